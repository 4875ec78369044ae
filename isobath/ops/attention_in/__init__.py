"""attention_in: the two products of a compressed layer's attention input, FP8 and unquantised."""

from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.contract import Arguments, Op, Work
from isobath.ops.work import nbytes, product


class AttentionIn(Protocol):
    """(fp8_linear(x, weight), linear(plain, plain_weight)): both read a row, so they go together.

    x: Fp8Tensor [T, K]. weight: Fp8Tensor [N, K]. plain: bf16 [T, K]. plain_weight: bf16 [M, K].
    Both weights through the backend's `prepare`. Returns bf16 [T, N] and float32 [T, M]. Raises
    DialectMismatch as fp8_linear does.
    """

    def __call__(
        self,
        x: Fp8Tensor,
        plain: torch.Tensor,
        weight: Fp8Tensor,
        plain_weight: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    x: Fp8Tensor = args["x"]
    picked = Fp8Tensor(x.data[rows], x.scale[rows], x.dialect, x.quant_block)
    return args | {"x": picked, "plain": args["plain"][rows]}


def work(args: Arguments) -> Work:
    """Operands read once, bf16 and float32 written once; the rate is that of the FP8 product."""
    x, weight, plain_weight = args["x"], args["weight"], args["plain_weight"]
    (tokens, width), rows, more = x.shape, weight.shape[0], plain_weight.shape[0]
    moved = nbytes(x, args["plain"], weight, plain_weight) + tokens * (2 * rows + 4 * more)
    return Work(moved, product(tokens, rows + more, width), fp8=True)


OP = Op(
    "attention_in",
    signature=AttentionIn,
    # Of fp8_linear, whose result is rounded to bf16 (2^-9). The other result is held to less than
    # linear's 2^-14 here; tests compare its bits with linear's.
    agree=Relative(2**-8),
    must=("deterministic", "batch_invariant"),
    weights=("weight", "plain_weight"),
    select=select,
    work=work,
    asm={"gfx942": ("v_mfma_f32_16x16x32_fp8_fp8", "!scratch_")},
    backends=("triton", "torch"),
    source="DeepSeek-V4 inference code, fp8_gemm and linear",
)
