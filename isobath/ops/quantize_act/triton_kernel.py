"""quantize_act in Triton: one program a row and a slice of its groups."""

import torch
import triton
import triton.language as tl

from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import ACTIVATION_BLOCK, Fp8Tensor, scale_shape
from isobath.ops.tl_common import fp8_of, pow2, quantize_groups

_GROUP = ACTIVATION_BLOCK[1]
_SLICE_GROUPS = 8
"""Groups of 128 a program: 2 KiB of bf16. Predicted, not measured."""


@triton.jit
def quantize_act_kernel(
    x_ptr,
    codes_ptr,
    exponents_ptr,
    x_stride,
    GROUPS: tl.constexpr,
    SLICE: tl.constexpr,
    GROUP: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    g = tl.program_id(1) * SLICE + tl.arange(0, SLICE)
    at = g[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
    mask = (g < GROUPS)[:, None]
    x = tl.load(x_ptr + row * x_stride + at, mask=mask, other=0.0).to(tl.float32)
    codes, exponents = quantize_groups(x, QUANT_MAX, FP8)
    tl.store(codes_ptr + row * (GROUPS * GROUP) + at, codes, mask=mask)
    tl.store(exponents_ptr + row * GROUPS + g, exponents.to(tl.uint8), mask=g < GROUPS)


def quantize_act(x: torch.Tensor, dialect: Dialect) -> Fp8Tensor:
    tokens, width = x.shape
    x = x if x.stride(1) == 1 else x.contiguous()
    codes = torch.empty((tokens, width), dtype=torch.uint8, device=x.device)
    groups = scale_shape((tokens, width), ACTIVATION_BLOCK)
    exponents = torch.empty(groups, dtype=torch.uint8, device=x.device)
    size = min(_SLICE_GROUPS, pow2(groups[1]))
    if tokens:
        quantize_act_kernel[(tokens, -(-groups[1] // size))](
            x,
            codes,
            exponents,
            x.stride(0),
            GROUPS=groups[1],
            SLICE=size,
            GROUP=_GROUP,
            **fp8_of(dialect),
            num_warps=2,
        )
    return Fp8Tensor(codes.view(dialect.dtype), exponents, dialect, ACTIVATION_BLOCK)
