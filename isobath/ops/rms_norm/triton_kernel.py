"""rms_norm in Triton: one program a row."""

import torch
import triton
import triton.language as tl

from isobath.ops.tl_common import pow2
from isobath.ops.tl_rows import norm_row, warps_of


@triton.jit
def rms_norm_kernel(
    x_ptr, norm_ptr, out_ptr, x_stride, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    x = norm_row(x_ptr + row * x_stride, norm_ptr, eps, WIDTH, BLOCK)
    i = tl.arange(0, BLOCK)
    tl.store(out_ptr + row * WIDTH + i, x.to(out_ptr.dtype.element_ty), mask=i < WIDTH)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, *, eps: float) -> torch.Tensor:
    tokens, width = x.shape
    x = x if x.stride(1) == 1 else x.contiguous()
    out = torch.empty((tokens, width), dtype=x.dtype, device=x.device)
    block = pow2(width)
    if tokens:
        rms_norm_kernel[(tokens,)](
            x, weight, out, x.stride(0), eps, WIDTH=width, BLOCK=block, num_warps=warps_of(block)
        )
    return out
