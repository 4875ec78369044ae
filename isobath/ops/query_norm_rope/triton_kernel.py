"""query_norm_rope in Triton: one program a head of a token."""

import torch
import triton
import triton.language as tl

from isobath.ops.tl_common import pow2
from isobath.ops.tl_rows import load_row, rms_scale, rotate_row, warps_of


@triton.jit
def query_norm_rope_kernel(
    q_ptr,
    cos_sin_ptr,
    out_ptr,
    heads,
    eps,
    ROPE: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    x = load_row(q_ptr + row * WIDTH, WIDTH, BLOCK)
    x = rotate_row(x * rms_scale(x, WIDTH, eps), cos_sin_ptr + row // heads * ROPE, WIDTH, ROPE)
    i = tl.arange(0, BLOCK)
    tl.store(out_ptr + row * WIDTH + i, x.to(out_ptr.dtype.element_ty), mask=i < WIDTH)


def query_norm_rope(q: torch.Tensor, cos_sin: torch.Tensor, *, eps: float) -> torch.Tensor:
    tokens, heads, width = q.shape
    out = torch.empty((tokens, heads, width), dtype=q.dtype, device=q.device)
    block = pow2(width)
    if tokens:
        query_norm_rope_kernel[(tokens * heads,)](
            q.contiguous(),
            cos_sin.contiguous(),
            out,
            heads,
            eps,
            ROPE=cos_sin.shape[1],
            WIDTH=width,
            BLOCK=block,
            num_warps=warps_of(block),
        )
    return out
