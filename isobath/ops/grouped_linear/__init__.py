"""grouped_linear: the block-diagonal first half of the attention output projection (wo_a)."""

from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.contract import Arguments, Op, Work
from isobath.ops.work import nbytes, product


class GroupedLinear(Protocol):
    """y[:, g] = x[:, g] @ weight[g]^T for each of G groups.

    x: [T, G, K] bf16 or fp32, not quantised. weight: [G, R, K], an Fp8Tensor in blocks of
    (128, 128) or plain bf16/fp32, through the backend's `prepare`. float32 accumulation.
    Returns [T, G * R] in x.dtype.
    """

    def __call__(self, x: torch.Tensor, weight: Fp8Tensor | torch.Tensor) -> torch.Tensor: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {"x": args["x"][rows]}


def work(args: Arguments) -> Work:
    """Operands read once, the result written once."""
    (tokens, groups, width), rows = args["x"].shape, args["weight"].shape[1]
    written = tokens * groups * rows * args["x"].element_size()
    moved = nbytes(args["x"], args["weight"]) + written
    return Work(moved, product(tokens, groups * rows, width))


OP = Op(
    "grouped_linear",
    signature=GroupedLinear,
    agree=Relative(2**-8),  # one bf16 rounding (2^-9) dominates fp32 accumulation
    must=("deterministic", "batch_invariant"),
    weights=("weight",),
    select=select,
    work=work,
    asm={"gfx942": ("v_mfma_f32_", "!scratch_")},
    backends=("triton", "torch"),
    source="DeepSeek-V4 report, grouped output projection",
)
