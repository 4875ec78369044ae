"""embed in Triton: one program a token and a slice of its row, stored `copies` times."""

import torch
import triton
import triton.language as tl

from isobath.ops.tl_common import pow2

_SLICE = 2048
"""Values a program: 4 KiB of bf16. Predicted, not measured."""


@triton.jit
def embed_kernel(
    ids_ptr, weight_ptr, out_ptr, COPIES: tl.constexpr, WIDTH: tl.constexpr, SLICE: tl.constexpr
):
    token = tl.program_id(0).to(tl.int64)
    i = tl.program_id(1) * SLICE + tl.arange(0, SLICE)
    row = tl.load(ids_ptr + token)
    mask = i < WIDTH
    values = tl.load(weight_ptr + row * WIDTH + i, mask=mask & (row >= 0), other=0.0)
    for copy in tl.static_range(COPIES):
        tl.store(out_ptr + (token * COPIES + copy) * WIDTH + i, values, mask=mask)


def embed(token_ids: torch.Tensor, weight: torch.Tensor, *, copies: int) -> torch.Tensor:
    tokens, width = len(token_ids), weight.shape[1]
    out = torch.empty((tokens, copies, width), dtype=weight.dtype, device=weight.device)
    size = min(_SLICE, pow2(width))
    if tokens:
        embed_kernel[(tokens, -(-width // size))](
            token_ids, weight, out, COPIES=copies, WIDTH=width, SLICE=size, num_warps=4
        )
    return out
