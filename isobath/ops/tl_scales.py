"""UE8M0 scales as libraries want them: float32 factors, row by row or transposed, in one launch.

Owns nothing but that conversion; the GEMMs of isobath read the bytes themselves.
"""

# mypy: ignore-errors

from __future__ import annotations

import torch
import triton
import triton.language as tl

from isobath.ops.tl_common import ue8m0_decode

TILE = 256


@triton.jit
def factors_kernel(scale, out, T, blocks, row_stride, block_stride, TILE: tl.constexpr):
    """scale: UE8M0 bytes [T, blocks]; out: float32 at row * row_stride + block * block_stride.
    Grid: (tiles of rows, blocks)."""
    row = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    block = tl.program_id(1).to(tl.int64)
    byte = tl.load(scale + row * blocks + block, mask=row < T, other=0)
    tl.store(out + row * row_stride + block * block_stride, ue8m0_decode(byte), mask=row < T)


def factors(scale: torch.Tensor, *, transposed: bool) -> torch.Tensor:
    """UE8M0 bytes [T, blocks] -> float32 [T, blocks]; transposed: stored block by block."""
    tokens, blocks = scale.shape
    shape = (blocks, tokens) if transposed else (tokens, blocks)
    stored = torch.empty(shape, dtype=torch.float32, device=scale.device)
    out = stored.t() if transposed else stored
    if tokens:
        grid = (triton.cdiv(tokens, TILE), blocks)
        factors_kernel[grid](scale, out, tokens, blocks, *out.stride(), TILE=TILE)
    return out
