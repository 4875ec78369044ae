"""rms_norm: RMS normalisation with a weight."""

from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op


class RmsNorm(Protocol):
    """x * rsqrt(mean(x^2) + eps) * weight, float32 inside, rounded once.

    x: [T, K]. weight: [K]. Returns [T, K] in x.dtype.
    """

    def __call__(self, x: torch.Tensor, weight: torch.Tensor, *, eps: float) -> torch.Tensor: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {"x": args["x"][rows]}


OP = Op(
    "rms_norm",
    signature=RmsNorm,
    agree=Relative(2**-8),  # one bf16 rounding (2^-9), which another summation order may flip
    must=("deterministic", "batch_invariant"),
    select=select,
    backends=("triton", "torch"),
    source="Zhang and Sennrich 2019; DeepSeek-V4 inference code",
)
