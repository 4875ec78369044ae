"""hyper_collapse: the residual streams to one normed block input."""

from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op


class HyperCollapse(Protocol):
    """x = RMSNorm(round(sum_j pre_j * stream_j)) * norm_weight, float32 inside.

    streams: [T, S, D]. pre: float32 [T, S]. norm_weight: [D]. eps: RMS norm epsilon.
    Returns [T, D] in streams.dtype; rounds to it twice: after the sum and after the norm.
    """

    def __call__(
        self, streams: torch.Tensor, pre: torch.Tensor, norm_weight: torch.Tensor, *, eps: float
    ) -> torch.Tensor: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {name: args[name][rows] for name in ("streams", "pre")}


OP = Op(
    "hyper_collapse",
    signature=HyperCollapse,
    # Two bf16 roundings (2^-9 each, relative); a flip in the first moves a value by 2^-8.
    agree=Relative(2**-7),
    must=("deterministic", "batch_invariant"),
    select=select,
    backends=("triton", "torch"),
    source="DeepSeek-V4 report, manifold-constrained hyper-connections",
)
