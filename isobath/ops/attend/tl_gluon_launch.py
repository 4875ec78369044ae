"""The launch of attend's kernel for sm_90; gluon_kernel.py says what goes through it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from isobath.cache.view import CacheView, Pages
from isobath.ops.attend.tl_gluon import HEADS, LOG2E, PART, STAGED, WARPS, attend_gluon_kernel
from isobath.ops.attend.tl_gluon_keys import KEYS, WIDTH
from isobath.ops.attend.triton_kernel import SPAN, Part
from isobath.ops.tl_common import pow2, target_of


@dataclass(frozen=True, slots=True)
class GluonLaunch:
    """One launch of the kernel: what is the same for all parts of the tokens."""

    window: CacheView
    compressed: CacheView | None
    sink: torch.Tensor
    pages: Pages | None
    scale: float
    eps: float | None

    def __call__(self, part: Part) -> None:
        tokens, heads, _ = part.q.shape
        keys = part.window_rows.shape[1]
        blocks = -(-heads // HEADS.value)
        programs = max(1, target_of(part.q).compute_units // blocks)
        attend_gluon_kernel[(min(tokens * part.splits, programs), blocks)](
            _blocks(part.q, WIDTH.value),
            self.window.bytes,
            self.compressed.bytes if self.compressed else self.window.bytes,
            self.sink,
            part.cos_sin,
            part.window_rows,
            self.pages.table if self.pages else part.window_rows,
            part.sequence,
            part.sequence if part.visible is None else part.visible,
            part.sequence if part.selected is None else part.selected,
            _blocks(part.out, PART.value),
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
            SPAN=SPAN,
            EDGE=max(KEYS.value, pow2(keys)),
            SPLIT=part.splits > 1,
            num_warps=WARPS.value,
        )


def _blocks(heads: torch.Tensor, values: int) -> TensorDescriptor:
    """[T, H, d] in blocks of [1, HEADS, values]."""
    return TensorDescriptor.from_tensor(heads, [1, HEADS.value, values], STAGED.value)
