"""query_norm_rope: weightless RMS norm of each query head, then rotation of its last values."""

from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op, Work
from isobath.ops.work import streamed


class QueryNormRope(Protocol):
    """q: [T, H, d]. cos_sin: float32 [T, R] (R/2 cosines, then R/2 sines), for the last R values.

    Norm over d, then adjacent pairs (2i, 2i + 1) of the last R values turn by angle i; float32
    inside, rounded once. Returns [T, H, d] in q.dtype.
    """

    def __call__(self, q: torch.Tensor, cos_sin: torch.Tensor, *, eps: float) -> torch.Tensor: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {name: args[name][rows] for name in ("q", "cos_sin")}


def work(args: Arguments) -> Work:
    q: torch.Tensor = args["q"]
    return streamed(args, (tuple(q.shape), q.element_size()))


OP = Op(
    "query_norm_rope",
    signature=QueryNormRope,
    agree=Relative(2**-8),  # one bf16 rounding (2^-9), which another summation order may flip
    must=("deterministic", "batch_invariant"),
    select=select,
    backends=("triton", "torch"),
    work=work,
    source="DeepSeek-V4 report; Su et al. 2021, adjacent pairs",
)
