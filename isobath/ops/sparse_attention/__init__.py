"""sparse_attention: one softmax over window rows, compressed entries and the sink."""

from typing import Protocol

import torch

from isobath.cache.view import CacheView, Pages
from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op
from isobath.ops.work import attended


class SparseAttention(Protocol):
    """Multi-query attention whose one cached row is key and value for every head.

    q: [T, H, d], normed and rotated. window: cache of recent rows. window_rows: int64 [T, W],
    distinct in a line, -1 marks an absent one. compressed: cache of compressed entries, or None (a
    window-only layer; then pages, visible and selected are None too). pages: where each sequence's
    entries are. sequence: int64 [T], each token's row of pages.table; tokens of one sequence are
    neighbours, in order. visible: int64 [T], entries j < visible[t] may be attended. selected:
    int64 [T, k] entries below visible[t], distinct, -1 trailing, or None for all visible ones.
    single: every token is its sequence's only one in this step (decode; a fact of the host's that
    lets a kernel choose its loop, never of effect on the meaning). sink: float32 [H], one extra
    logit a head. scale: d^-1/2. cos_sin: float32 [T, R] at the query's position.

    o = sum_n e^(s_n - M) v_n / (sum_n e^(s_n - M) + e^(sink - M)), scores and sums float32; then
    the last R values turn by minus the query's angle. Returns [T, H, d] in q.dtype, rounded once.
    A token with nothing to attend (padding) gives zeros. NaN in an attended row gives NaN; absent
    rows are never looked at. The two caches may differ in dialect.
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
    ) -> torch.Tensor: ...


PER_TOKEN = ("q", "cos_sin", "window_rows", "sequence", "visible", "selected")


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {n: args[n][rows] for n in PER_TOKEN if args[n] is not None}


OP = Op(
    "sparse_attention",
    signature=SparseAttention,
    # Keys decode exactly; fp32 scores. One bf16 rounding of the result is 2^-9; kernels that round
    # probabilities to bf16 before the value product add as much again.
    agree=Relative(2**-7),
    must=("deterministic", "graph_safe", "batch_invariant"),
    select=select,
    # attend's kernel: on sm_90 attend has another, and only tests call this part of it.
    asm={"gfx942": ("v_mfma_f32_", "!scratch_"), "sm_90": ("~spills",)},
    backends=("triton", "torch"),
    rows={"window": "window_rows", "compressed": "pages"},
    work=attended,
    source="DeepSeek-V4 report, attention with sinks and inverse rotation of the output",
)
