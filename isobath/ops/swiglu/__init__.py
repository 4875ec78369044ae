"""swiglu: the clamped gate of the shared expert."""

from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op


class Swiglu(Protocol):
    """silu(min(gate, limit)) * clamp(up, -limit, limit), float32 inside, rounded once.

    gate, up: [T, I]. Returns [T, I] in gate.dtype.
    """

    def __call__(self, gate: torch.Tensor, up: torch.Tensor, *, limit: float) -> torch.Tensor: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {name: args[name][rows] for name in ("gate", "up")}


OP = Op(
    "swiglu",
    signature=Swiglu,
    agree=Relative(2**-8),  # one bf16 rounding (2^-9), which another exp may flip
    must=("deterministic", "batch_invariant"),
    select=select,
    backends=("triton", "torch"),
    source="Shazeer 2020; the clamp is DeepSeek-V4's swiglu_limit, shared expert included",
)
