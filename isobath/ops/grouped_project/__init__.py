"""grouped_project: the first half of the attention output projection, quantised for the second.

What grouped_linear and quantize_act do one after the other, as one op: on a GPU a program that
holds a group of 128 outputs also holds what their scale depends on.
"""

from collections.abc import Mapping
from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import Fp8Tensor, dequantize
from isobath.ops.contract import Arguments, Op, Work
from isobath.ops.work import nbytes, product


class GroupedProject(Protocol):
    """y[:, g] = x[:, g] @ weight[g]^T for each of G groups, rounded to x.dtype, then quantised.

    x: [T, G, K] bf16 or fp32, not quantised. weight: [G, R, K], an Fp8Tensor in blocks of
    (128, 128) or plain bf16/fp32, through the backend's `prepare`. float32 accumulation.
    dialect: of the bytes to write, R being a multiple of 128, or None: nothing is quantised.
    Returns Fp8Tensor [T, G * R], quant_block (1, 128), or with None [T, G * R] in x.dtype.
    """

    def __call__(
        self, x: torch.Tensor, weight: Fp8Tensor | torch.Tensor, *, dialect: Dialect | None
    ) -> Fp8Tensor | torch.Tensor: ...


def observe(result: Fp8Tensor | torch.Tensor, args: Arguments) -> Mapping[str, torch.Tensor]:
    return {"values": dequantize(result) if isinstance(result, Fp8Tensor) else result}


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {"x": args["x"][rows]}


def work(args: Arguments) -> Work:
    """Operands read once; a byte a value written, or a value of x's dtype."""
    (tokens, groups, width), rows = args["x"].shape, args["weight"].shape[1]
    size = args["x"].element_size() if args["dialect"] is None else 1
    moved = nbytes(args["x"], args["weight"]) + tokens * groups * rows * size
    return Work(moved, product(tokens, groups * rows, width))


OP = Op(
    "grouped_project",
    signature=GroupedProject,
    # Where fp32 order moves a bf16 rounding, the FP8 value may move by one code, 2^-3 of itself.
    # Few of a row's 128 or more values do: sqrt(flips / 128) * 2^-3 stays below 2^-5 up to 8 flips.
    agree=Relative(2**-5),
    must=("deterministic", "batch_invariant"),
    weights=("weight",),
    observe=observe,
    select=select,
    work=work,
    asm={"gfx942": ("v_mfma_f32_", "!scratch_")},
    backends=("triton", "triton_bf16", "cublas", "torch"),
    source="DeepSeek-V4 report, grouped output projection; inference code, act_quant before wo_b",
)
