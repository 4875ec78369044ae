"""swiglu in Triton: elementwise, one program a row and a slice of it."""

import torch
import triton
import triton.language as tl

from isobath.ops.tl_common import pow2

_SLICE = 1024
"""Values a program: 2 KiB of each half in bf16. Predicted, not measured."""


@triton.jit
def swiglu_kernel(
    gate_ptr,
    up_ptr,
    out_ptr,
    gate_stride,
    up_stride,
    limit,
    WIDTH: tl.constexpr,
    SLICE: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * SLICE + tl.arange(0, SLICE)
    mask = i < WIDTH
    gate = tl.load(gate_ptr + row * gate_stride + i, mask=mask, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + row * up_stride + i, mask=mask, other=0.0).to(tl.float32)
    gate = tl.where(gate > limit, limit, gate)  # unlike a minimum, these keep NaN
    up = tl.where(up > limit, limit, tl.where(up < -limit, -limit, up))
    out = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(out_ptr + row * WIDTH + i, out.to(out_ptr.dtype.element_ty), mask=mask)


def swiglu(gate: torch.Tensor, up: torch.Tensor, *, limit: float) -> torch.Tensor:
    tokens, width = gate.shape
    gate, up = (t if t.stride(1) == 1 else t.contiguous() for t in (gate, up))
    out = torch.empty((tokens, width), dtype=gate.dtype, device=gate.device)
    size = min(_SLICE, pow2(width))
    if tokens:
        swiglu_kernel[(tokens, -(-width // size))](
            gate,
            up,
            out,
            gate.stride(0),
            up.stride(0),
            limit,
            WIDTH=width,
            SLICE=size,
            num_warps=4,
        )
    return out
