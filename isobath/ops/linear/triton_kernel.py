"""linear in Triton: bf16 MMAs with a float32 sum, or plain fp32 where an operand is fp32.

One launch, one program a tile; K order and invariance: ops/tl_gemm.py. fp32 operands never take
TF32, whose 11 bits the contract's agreement excludes; they occur in exact numerics alone.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from isobath.ops.tl_gemm import Tile, Tiles, choose, plain_product, rows_of, store_tile, tile_of
from isobath.ops.tl_gemm_few import lane_rows, plain_product_few

TILES: Tiles = {
    "cuda": (
        (16, Tile(16, 16, 4, 6, swap=True, lanes=4)),
        (64, Tile(32, 32, 4, 6, swap=True, lanes=2)),
        (256, Tile(64, 128, 4, 4)),
        (0, Tile(128, 128, 8, 3)),
    ),
    "hip": (
        (16, Tile(16, 16, 4, 2, swap=True)),
        (32, Tile(32, 32, 4, 2, swap=True)),
        (64, Tile(64, 64, 4, 2, swap=True)),
        (0, Tile(128, 128, 8, 2)),
    ),
    "cpu": ((4, Tile(16, 16, 4, 1, swap=True, lanes=2)), (0, Tile(32, 64, 4, 1))),
}
"""Predicted, not measured."""

FP32_TILES: Tiles = {
    "cuda": ((0, Tile(32, 32, 4, 2)),),
    "hip": ((0, Tile(32, 32, 4, 2)),),
    "cpu": ((0, Tile(16, 32, 4, 1)),),
}
STEP = {torch.bfloat16: 64, torch.float32: 32}
"""K extent of a tile: 128 bytes a row."""


@triton.jit
def plain_tile(
    pid,
    x,
    w,
    out,
    T,
    N,
    K: tl.constexpr,
    DTYPE: tl.constexpr,
    STEP: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    SWAP: tl.constexpr,
    LANES: tl.constexpr,
    EVEN_T: tl.constexpr,
    EVEN_N: tl.constexpr,
):
    """Tile `pid` of the product, token tiles x weight tiles. x: [T, K], w: [N, K], out: float32
    [T, N]."""
    token_tile, row_tile = tile_of(pid, tl.cdiv(T, TOKENS), tl.cdiv(N, ROWS))
    first_token, tokens = rows_of(token_tile, T, TOKENS, EVEN_T)
    first_row, rows = rows_of(row_tile, N, ROWS, EVEN_N)
    x += first_token * K
    w += first_row * K
    if LANES > 1:
        each, live = lane_rows(first_token, T, TOKENS, LANES)
        rows = lane_rows(first_row, N, ROWS, LANES)[0]
        acc = plain_product_few(x, K, each, live, w, rows, K, DTYPE, STEP, LANES)
    else:
        acc = plain_product(x, K, tokens, w, rows, K, DTYPE, SWAP, STEP)
    store_tile(out, N, acc, first_token, T, first_row, N, TOKENS, ROWS, SWAP)


@triton.jit(do_not_specialize=["T"])
def linear_kernel(
    x,
    w,
    out,
    T,
    N,
    K: tl.constexpr,
    DTYPE: tl.constexpr,
    STEP: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    SWAP: tl.constexpr,
    LANES: tl.constexpr,
    EVEN_T: tl.constexpr,
    EVEN_N: tl.constexpr,
):
    """Grid: the tiles of plain_tile."""
    plain_tile(
        tl.program_id(0), x, w, out, T, N, K, DTYPE, STEP, TOKENS, ROWS, SWAP, LANES, EVEN_T, EVEN_N
    )  # fmt: skip


def linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    dtype = torch.promote_types(x.dtype, weight.dtype)
    tiles = TILES if dtype == torch.bfloat16 else FP32_TILES
    return launch(x, weight, *choose(tiles, x, len(x)))


def launch(
    x: torch.Tensor, weight: torch.Tensor, tile: Tile, options: dict[str, Any]
) -> torch.Tensor:
    """linear with a given tile: what tuning measures."""
    (tokens, width), rows = x.shape, weight.shape[0]
    tile = tile.narrowed(width)
    assert x.is_contiguous() and weight.is_contiguous(), (x.stride(), weight.stride())
    dtype = torch.promote_types(x.dtype, weight.dtype)
    out = torch.empty(tokens, rows, dtype=torch.float32, device=x.device)
    if tokens:
        grid = (triton.cdiv(tokens, tile.tokens) * triton.cdiv(rows, tile.rows),)
        linear_kernel[grid](
            x,
            weight,
            out,
            tokens,
            rows,
            K=width,
            DTYPE=tl.bfloat16 if dtype == torch.bfloat16 else tl.float32,
            STEP=STEP[dtype],
            TOKENS=tile.tokens,
            ROWS=tile.rows,
            SWAP=tile.swap,
            LANES=tile.lanes,
            EVEN_T=not tile.swap and tokens % tile.tokens == 0,
            EVEN_N=rows % tile.rows == 0,
            **options,
        )
    return out
