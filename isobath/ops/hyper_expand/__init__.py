"""hyper_expand: a block's output back into the residual streams."""

from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op
from isobath.ops.experts import Summands


class HyperExpand(Protocol):
    """out_k = post_k * y + sum_j comb[j, k] * stream_j, float32 inside, rounded once.

    y: [T, D] block output, or the Summands of one. streams: [T, S, D]. post: float32 [T, S]. comb:
    float32 [T, S(in), S(out)]. Returns [T, S, D] in streams.dtype.
    """

    def __call__(
        self,
        y: torch.Tensor | Summands,
        streams: torch.Tensor,
        post: torch.Tensor,
        comb: torch.Tensor,
    ) -> torch.Tensor: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    return {
        name: value.of(rows) if isinstance(value, Summands) else value[rows]
        for name, value in args.items()
    }


OP = Op(
    "hyper_expand",
    signature=HyperExpand,
    agree=Relative(2**-8),  # one bf16 rounding is 2^-9; a different fp32 order may flip it
    must=("deterministic", "batch_invariant"),
    select=select,
    backends=("triton", "torch"),
    source="DeepSeek-V4 report, manifold-constrained hyper-connections",
)
