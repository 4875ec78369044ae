"""fp8_linear: FP8 activations times FP8 weights, both block-scaled."""

from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.contract import Arguments, Op, Work
from isobath.ops.work import nbytes, product


class Fp8Linear(Protocol):
    """y = x @ weight^T, float32 accumulation, rounded to bf16 once.

    x: Fp8Tensor [T, K], quant_block (1, 128). weight: Fp8Tensor [N, K], quant_block (128, 128),
    through the backend's `prepare`. Returns bf16 [T, N]. Raises DialectMismatch when the operands
    speak different dialects.
    """

    def __call__(self, x: Fp8Tensor, weight: Fp8Tensor) -> torch.Tensor: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    x: Fp8Tensor = args["x"]
    return args | {"x": Fp8Tensor(x.data[rows], x.scale[rows], x.dialect, x.quant_block)}


def work(args: Arguments) -> Work:
    """Operands read once, bf16 written once."""
    x, weight = args["x"], args["weight"]
    (tokens, width), rows = x.shape, weight.shape[0]
    moved = nbytes(x, weight) + 2 * tokens * rows
    return Work(moved, product(tokens, rows, width), fp8=True)


OP = Op(
    "fp8_linear",
    signature=Fp8Linear,
    # Products of two 4-bit significands are exact in fp32. Accumulating K <= 8192 of them errs by
    # at most about sqrt(K) * 2^-24 relative to the row's norm; the bf16 rounding (2^-9) dominates.
    agree=Relative(2**-8),
    must=("deterministic", "batch_invariant"),
    weights=("weight",),
    select=select,
    work=work,
    asm={"gfx942": ("v_mfma_f32_16x16x32_fp8_fp8", "!scratch_")},
    backends=("triton", "triton_tma", "cublas", "aiter", "torch"),
    source="DeepSeek-V4 inference code, fp8_gemm",
)
