"""index_query: rotate and quantise the indexer's queries."""

from collections.abc import Mapping
from typing import Protocol

import torch

from isobath.cache.layout import RowLayout
from isobath.numerics.compare import Relative
from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Op


class IndexQuery(Protocol):
    """q: [T, Hi, d]. cos_sin: float32 [T, R]. weights: float32 [T, Hi].

    Rotates the last R values of each head (rounded to q.dtype), then, unless `layout` is plain,
    quantises each head to FP8 with one power-of-two scale (amax floor 1e-4). The scale is folded
    into the weight: with s the scale, relu(q . k) * w = relu((q / s) . k) * (w * s).
    Returns (values, weights): values [T, Hi, d] in dialect.dtype, or q.dtype for a plain
    layout; weights float32 [T, Hi] = weights * s * d^-1/2 * Hi^-1/2.
    """

    def __call__(
        self,
        q: torch.Tensor,
        cos_sin: torch.Tensor,
        weights: torch.Tensor,
        *,
        layout: RowLayout,
        dialect: Dialect,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


def observe(
    result: tuple[torch.Tensor, torch.Tensor], args: Arguments
) -> Mapping[str, torch.Tensor]:
    """The product of values and weights, which does not depend on where the scale went."""
    values, weights = result
    return {"weighted": values.float() * weights.unsqueeze(-1)}


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {name: args[name][rows] for name in ("q", "cos_sin", "weights")}


OP = Op(
    "index_query",
    signature=IndexQuery,
    agree=Relative(2**-5),  # FP8 code flips after a bf16 flip, as window_insert
    must=("deterministic", "graph_safe", "batch_invariant"),
    observe=observe,
    select=select,
    asm={"gfx942": ("v_cvt_pk_fp8_f32", "!scratch_")},
    backends=("triton", "torch"),
    source="DeepSeek-V4 report, lightning indexer; FP8 rows as vLLM, no Hadamard on either side",
)
