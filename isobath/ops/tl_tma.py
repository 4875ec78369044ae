"""fp8_linear's loop with tiles fetched by NVIDIA's tensor memory accelerator, for many tokens.

Owns the kernel and its launch, not the choice to use them. One instruction fetches a tile, so the
warps that multiply compute no addresses; where SPECIALIZE is set Triton gives the fetching to warps
of its own and two groups of warps multiply in turn. Blocks, scales and their order are those of
ops/tl_gemm.py, and so are the bits.
"""

# mypy: ignore-errors

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from triton.tools.tensor_descriptor import TensorDescriptor

from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.tl_common import ue8m0_decode
from isobath.ops.tl_gemm import BLOCK_K, SLICE, rows_of, slice_ends, store_tile, tile_of


@dataclass(frozen=True, slots=True)
class Fetch:
    """tokens, rows, warps, stages: as tl_gemm.Tile's. specialize: warps that only fetch."""

    tokens: int
    rows: int
    warps: int
    stages: int
    specialize: bool = False


@triton.jit(do_not_specialize=["T"])
def fp8_tma_kernel(
    x,
    x_scale,
    w,
    w_scale,
    out,
    T,
    N,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    SPECIALIZE: tl.constexpr,
):
    """x, w: descriptors of FP8 [T, K] and [N, K] in tiles of 128 of K; the rest as
    fp8_linear_kernel. Grid: token tiles x weight tiles."""
    token_tile, row_tile = tile_of(tl.program_id(0), tl.cdiv(T, TOKENS), tl.cdiv(N, ROWS))
    first_token, tokens = rows_of(token_tile, T, TOKENS, False)
    first_row = row_tile.to(tl.int64) * ROWS
    x_scale += first_token * (K // BLOCK_K)
    w_scale += first_row // 128 * (K // BLOCK_K)
    STEPS: tl.constexpr = K // BLOCK_K
    acc = tl.zeros((TOKENS, ROWS), tl.float32)
    total = acc
    for b in tl.range(0, STEPS, warp_specialize=SPECIALIZE):
        by_token = ue8m0_decode(tl.load(x_scale + tokens * (K // BLOCK_K) + b))
        factor = by_token * ue8m0_decode(tl.load(w_scale + b))
        left = x.load([token_tile * TOKENS, b * BLOCK_K])
        right = w.load([row_tile * ROWS, b * BLOCK_K])
        acc += tl.dot(left, right.T) * factor[:, None]
        if STEPS > SLICE // BLOCK_K:  # known to the compiler
            ends = slice_ends(b, STEPS, SLICE // BLOCK_K)
            if ends:
                total += acc
                acc = tl.zeros_like(acc)
    store_tile(out, N, total + acc, first_token, T, first_row, N, TOKENS, ROWS, False)


def launch(x: Fp8Tensor, weight: Fp8Tensor, fetch: Fetch) -> torch.Tensor:
    """fp8_linear of one token or more, with given tiles."""
    (tokens, width), rows = x.data.shape, weight.data.shape[0]
    assert width % 128 == 0 and 128 % fetch.rows == 0, (width, fetch)
    out = torch.empty(tokens, rows, dtype=torch.bfloat16, device=x.data.device)
    grid = (triton.cdiv(tokens, fetch.tokens) * triton.cdiv(rows, fetch.rows),)
    fp8_tma_kernel[grid](
        TensorDescriptor.from_tensor(x.data, [fetch.tokens, 128]),
        x.scale,
        TensorDescriptor.from_tensor(weight.data, [fetch.rows, 128]),
        weight.scale,
        out,
        tokens,
        rows,
        K=width,
        TOKENS=fetch.tokens,
        ROWS=fetch.rows,
        SPECIALIZE=fetch.specialize,
        num_warps=fetch.warps,
        num_stages=fetch.stages,
    )
    return out
