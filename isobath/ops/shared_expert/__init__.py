"""shared_expert: the expert that every token visits, from quantised input to its output row."""

from typing import Protocol

import torch

from isobath.numerics.compare import Relative
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.contract import Arguments, Op, Work
from isobath.ops.work import nbytes, product


class SharedExpert(Protocol):
    """y = w2 . q(silu(min(gate, limit)) * clamp(up, -limit, limit)), gate | up = w13 . x.

    x: Fp8Tensor [T, D], quant_block (1, 128), with FP8 weights in blocks of (128, 128) and I a
    multiple of 128; or plain fp32 [T, D] with plain weights. w13: [2 * I, D], the rows of w1 (gate)
    then those of w3 (up). w2: [D, I]. Both through the backend's `prepare`. limit: SwiGLU clamp.
    float32 accumulation; gate, up and the hidden vector are each rounded to bf16, the latter then
    quantised as x was. With plain operands nothing is rounded.
    Returns [T, D], bf16 or, of plain operands, fp32.
    """

    def __call__(
        self,
        x: Fp8Tensor | torch.Tensor,
        w13: Fp8Tensor | torch.Tensor,
        w2: Fp8Tensor | torch.Tensor,
        *,
        limit: float,
    ) -> torch.Tensor: ...


def select(args: Arguments, rows: list[int]) -> Arguments:
    x = args["x"]
    if isinstance(x, Fp8Tensor):
        return args | {"x": Fp8Tensor(x.data[rows], x.scale[rows], x.dialect, x.quant_block)}
    return args | {"x": x[rows]}


def work(args: Arguments) -> Work:
    """Input and weights read once, the output written once; the hidden vector may stay in cache."""
    x, w13, w2 = args["x"], args["w13"], args["w2"]
    (tokens, width), hidden, quantized = x.shape, w2.shape[1], isinstance(x, Fp8Tensor)
    moved = nbytes(x, w13, w2) + tokens * width * (2 if quantized else 4)
    return Work(moved, 3 * product(tokens, hidden, width), fp8=quantized)


OP = Op(
    "shared_expert",
    signature=SharedExpert,
    # A gate in [-16, -8) that is rounded the other way to bf16 moves by 2^-4, and with it its
    # hidden value by 2^-4 of itself: the error of a row whose gates all are, at worst. The FP8 MMA
    # of sm_90 keeps about 14 bits of its sums and moves some in a hundred: measured on an H200,
    # 2026-11-22, one run, 0.030 in "closed" and 0.020 in the worst of 1,024 rows of "prefill".
    agree=Relative(2**-4),
    must=("deterministic", "batch_invariant"),
    weights=("w13", "w2"),
    select=select,
    work=work,
    asm={"gfx942": ("v_mfma_f32_16x16x32_fp8_fp8", "!scratch_")},
    backends=("triton", "torch"),
    source="DeepSeek-V4 report and inference code, Expert.forward with the shared expert's weights",
)
