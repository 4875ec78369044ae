"""attend on sm_90 by a kernel of explicit layouts, for packed OCP rows and more than 16 heads.

Everything else takes the triton backend's kernels. Which of the two a token goes through follows
from the layer and the caches, never from the batch; the split of a token's many entries and the
merge of the parts are the triton backend's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isobath.cache.layout import RowLayout
from isobath.cache.view import CacheView, Pages
from isobath.numerics.dialect import OCP
from isobath.ops.attend import triton_kernel as plain
from isobath.ops.attend.tl_gluon import HEADS, LOG2E, WARPS, attend_gluon_kernel, described
from isobath.ops.attend.tl_gluon_keys import BLOCK, KEYS, NOPE, ROPE
from isobath.ops.libraries import require_arch
from isobath.ops.tl_common import pow2, target_of
from isobath.target import detect

require_arch("attend/gluon", detect(), "sm_90")

FEW_HEADS = 16
"""Up to as many, 64 rows of a matrix instruction would be mostly empty."""
LONGEST_WINDOW = 128
"""What a program has room for the rows of."""


def attend(
    q: torch.Tensor,
    window: CacheView,
    compressed: CacheView | None,
    sink: torch.Tensor,
    cos_sin: torch.Tensor,
    *,
    window_rows: torch.Tensor,
    pages: Pages | None,
    sequence: torch.Tensor,
    visible: torch.Tensor | None,
    selected: torch.Tensor | None,
    scale: float,
    single: bool,
    eps: float | None,
) -> torch.Tensor:
    views = [window] if compressed is None else [window, compressed]
    fits = all(view.dialect == OCP and _fits(view.layout) for view in views)
    if q.shape[1] <= FEW_HEADS or window_rows.shape[1] > LONGEST_WINDOW or not fits:
        return plain.attend(
            q,
            window,
            compressed,
            sink,
            cos_sin,
            window_rows=window_rows,
            pages=pages,
            sequence=sequence,
            visible=visible,
            selected=selected,
            scale=scale,
            single=single,
            eps=eps,
        )
    return plain.in_parts(
        q,
        cos_sin,
        window_rows=window_rows,
        pages=pages,
        sequence=sequence,
        visible=visible,
        selected=selected,
        run=_Launch(window, compressed, sink, pages, scale, eps),
    )


@dataclass(frozen=True, slots=True)
class _Launch:
    """One launch of the kernel: what is the same for all parts of the tokens."""

    window: CacheView
    compressed: CacheView | None
    sink: torch.Tensor
    pages: Pages | None
    scale: float
    eps: float | None

    def __call__(self, part: plain.Part) -> None:
        tokens, heads, _ = part.q.shape
        keys = part.window_rows.shape[1]
        blocks = -(-heads // HEADS.value)
        programs = max(1, target_of(part.q).compute_units // blocks)
        asked, given = described(part.q, part.out)
        attend_gluon_kernel[(min(tokens * part.splits, programs), blocks)](
            asked,
            self.window.bytes,
            self.compressed.bytes if self.compressed else self.window.bytes,
            self.sink,
            part.cos_sin,
            part.window_rows,
            self.pages.table if self.pages else part.window_rows,
            part.sequence,
            part.sequence if part.visible is None else part.visible,
            part.sequence if part.selected is None else part.selected,
            given,
            *part.sums,
            self.scale * LOG2E.value,
            self.eps or 0.0,
            tokens,
            part.splits,
            heads,
            self.pages.table.stride(0) if self.pages else 0,
            ROW=self.window.layout.row_bytes,
            SCALE_AT=self.window.layout.scale_offset,
            WINDOW=keys,
            PAGE=self.pages.page_rows if self.pages else 1,
            TOPK=0 if part.selected is None else part.selected.shape[1],
            COMPRESSED=self.compressed is not None,
            NORM=self.eps is not None,
            SPAN=plain.SPAN,
            EDGE=max(KEYS.value, pow2(keys)),
            SPLIT=part.splits > 1,
            num_warps=WARPS.value,
        )


def _fits(layout: RowLayout) -> bool:
    """Whether a row is what the kernel's pieces are cut for."""
    parts = (layout.nope, layout.rope, layout.quant_block)
    return not layout.plain and parts == (NOPE.value, ROPE.value, BLOCK.value)
