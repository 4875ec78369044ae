"""linear: unquantised weights times activations, with a float32 result."""

from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.ops.contract import Arguments, Op, Work
from isobath.ops.work import nbytes, product


class Linear(Protocol):
    """y = x @ weight^T, float32 accumulation and output: gate, compressors, indexer weights, head.

    x: [T, K] bf16 or fp32. weight: [N, K] bf16 or fp32, through the backend's `prepare`.
    Returns float32 [T, N].
    """

    def __call__(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    return args | {"x": args["x"][rows]}


def work(args: Arguments) -> Work:
    """Operands read once, float32 written once."""
    (tokens, width), rows = args["x"].shape, args["weight"].shape[0]
    moved = nbytes(args["x"], args["weight"]) + 4 * tokens * rows
    return Work(moved, product(tokens, rows, width))


OP = Op(
    "linear",
    signature=Linear,
    # fp32 accumulation of K <= 16384 terms: about sqrt(K) * 2^-24 = 8e-6; 2^-14 leaves a factor 8.
    agree=Relative(2**-14),
    must=("deterministic", "batch_invariant"),
    weights=("weight",),
    select=select,
    work=work,
    asm={"gfx942": ("v_mfma_f32_", "!scratch_")},
    backends=("triton", "cublas", "torch"),
    source="DeepSeek-V4 inference code, linear",
)
