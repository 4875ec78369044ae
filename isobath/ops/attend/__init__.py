"""attend: query_norm_rope, then sparse_attention, as one op."""

from typing import Protocol

import torch

from isobath.cache.view import CacheView, Pages
from isobath.numerics.compare import Relative
from isobath.ops.contract import Op
from isobath.ops.sparse_attention import select
from isobath.ops.work import attended


class Attend(Protocol):
    """Attention of raw query heads, as they leave their projection.

    q: [T, H, d], neither normed nor rotated. eps: of the weightless norm over d. The other
    arguments, the padding and NaN rules and the result are those of sparse_attention.

    q is normed and rotated in float32 and rounded once, to q.dtype, before the scores (what
    query_norm_rope returns is what sparse_attention reads), or less: a kernel may apply the norm,
    one factor a head, to the scores. A head that is all zeros (a padding lane) stays zeros. Returns
    [T, H, d] in q.dtype, rounded once.
    """

    def __call__(
        self,
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
        eps: float,
    ) -> torch.Tensor: ...


OP = Op(
    "attend",
    signature=Attend,
    # Keys decode exactly. 2^-9 of the result for its rounding to bf16, as much for probabilities
    # rounded to bf16 before the value product, and as much for queries that are rounded the other
    # way, after another order of summation under the norm, or before the norm.
    agree=Relative(2**-7),
    must=("deterministic", "graph_safe", "batch_invariant"),
    select=select,
    # On sm_90 packed rows of many heads go through gluon, which loads on that machine alone.
    asm={"gfx942": ("v_mfma_f32_", "!scratch_"), "sm_90": ("~spills",)},
    backends=("gluon", "triton", "torch"),
    rows={"window": "window_rows", "compressed": "pages"},
    work=attended,
    source="DeepSeek-V4 report, attention with sinks and inverse rotation of the output",
)
