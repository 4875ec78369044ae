"""attend on sm_90 by a kernel of explicit layouts, for packed OCP rows and more than 16 heads.

Everything else takes the triton backend's kernels. Which of the two a token goes through follows
from the layer and the caches, never from the batch; the split of a token's many entries and the
merge of the parts are the triton backend's own.
"""

from __future__ import annotations

import torch

from isobath.cache.layout import RowLayout
from isobath.cache.view import CacheView, Pages
from isobath.numerics.dialect import OCP
from isobath.ops.attend import triton_kernel as plain
from isobath.ops.attend.tl_gluon_keys import BLOCK, NOPE, ROPE
from isobath.ops.attend.tl_gluon_launch import GluonLaunch
from isobath.ops.libraries import require_arch
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
        run=GluonLaunch(window, compressed, sink, pages, scale, eps),
    )


def _fits(layout: RowLayout) -> bool:
    """Whether a row is what the kernel's pieces are cut for."""
    parts = (layout.nope, layout.rope, layout.quant_block)
    return not layout.plain and parts == (NOPE.value, ROPE.value, BLOCK.value)
