"""fp8_linear in Triton: FP8 MMAs a block of 128 of K, scaled into a float32 sum.

One launch, one program a tile. K order and invariance: ops/tl_gemm.py. Weights are used as they
come; their rows may end inside a tile, K is a multiple of 128.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from isobath.errors import DialectMismatch
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.tl_gemm import (
    SLICE,
    Tile,
    Tiles,
    choose,
    fp8_product,
    fp8_product_pair,
    rows_of,
    store_tile,
    tile_of,
)
from isobath.ops.tl_gemm_few import fp8_product_few, lane_rows

TILES: Tiles = {
    "cuda": (
        (16, Tile(16, 16, 4, 6, swap=True, lanes=4)),
        (32, Tile(32, 32, 4, 6, swap=True, lanes=2)),
        (64, Tile(64, 64, 4, 5)),
        (0, Tile(64, 128, 4, 4)),
    ),
    "hip": (
        (16, Tile(16, 16, 4, 2, swap=True)),
        (32, Tile(32, 32, 4, 2, swap=True)),
        (64, Tile(64, 64, 4, 2, swap=True)),
        (0, Tile(128, 128, 8, 2)),
    ),
    "cpu": (
        (4, Tile(16, 16, 4, 1, swap=True, lanes=2)),
        (8, Tile(32, 64, 4, 1, pair=True)),
        (0, Tile(32, 64, 4, 1)),
    ),
}
"""Predicted from instruction counts and occupancy, not measured; that 64 x 128 in four warps is the
best of six for 1,024 tokens was measured on an H200, 2026-11-22, one run of six shapes."""

SHORT_TILES: Tiles = TILES | {
    "cuda": (
        (16, Tile(16, 128, 4, 6, swap=True)),
        (32, Tile(32, 64, 4, 6, swap=True)),
        (0, Tile(64, 128, 4, 4)),
    )
}
"""Of a K of one slice. For up to 16, 64 and 1,024 tokens the best of five or more measured on an
H200, 2026-11-22, one run of N = 32,768."""


@triton.jit
def fp8_tile(
    pid,
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
    SWAP: tl.constexpr,
    PAIR: tl.constexpr,
    LANES: tl.constexpr,
    EVEN_T: tl.constexpr,
    EVEN_N: tl.constexpr,
):
    """Tile `pid` of the product: token tiles x weight tiles, of 2 * ROWS in pairs. x: [T, K] and w:
    [N, K] FP8, x_scale: [T, K/128] and w_scale: [N/128, K/128] UE8M0 bytes, out: bf16 [T, N]. EVEN:
    whole tiles."""
    WIDE: tl.constexpr = ROWS * 2 if PAIR else ROWS
    token_tile, row_tile = tile_of(pid, tl.cdiv(T, TOKENS), tl.cdiv(N, WIDE))
    first_token, tokens = rows_of(token_tile, T, TOKENS, EVEN_T)
    x += first_token * K
    x_scale += first_token * (K // 128)
    if PAIR:
        row0, rows = rows_of(row_tile * 2, N, ROWS, True)
        row1 = row0 + ROWS
        w0, w0_scale = w + row0 * K, w_scale + row0 // 128 * (K // 128)
        w1, w1_scale = w + row1 * K, w_scale + row1 // 128 * (K // 128)
        acc, acc1 = fp8_product_pair(x, x_scale, tokens, w0, w0_scale, w1, w1_scale, rows, K)
        store_tile(out, N, acc, first_token, T, row0, N, TOKENS, ROWS, False)
        store_tile(out, N, acc1, first_token, T, row1, N, TOKENS, ROWS, False)
    else:
        row, rows = rows_of(row_tile, N, ROWS, EVEN_N)
        scale = w_scale + row // 128 * (K // 128)
        if SWAP:
            each, live = lane_rows(first_token, T, TOKENS, LANES)
            rows = lane_rows(row, N, ROWS, LANES)[0]
            acc = fp8_product_few(x, x_scale, each, live, w + row * K, scale, rows, K, LANES)
        else:
            acc = fp8_product(x, x_scale, tokens, w + row * K, scale, rows, K)
        store_tile(out, N, acc, first_token, T, row, N, TOKENS, ROWS, SWAP)


@triton.jit(do_not_specialize=["T"])
def fp8_linear_kernel(
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
    SWAP: tl.constexpr,
    PAIR: tl.constexpr,
    LANES: tl.constexpr,
    EVEN_T: tl.constexpr,
    EVEN_N: tl.constexpr,
):
    """Grid: the tiles of fp8_tile."""
    fp8_tile(
        tl.program_id(0), x, x_scale, w, w_scale, out, T, N, K, TOKENS, ROWS, SWAP, PAIR, LANES,
        EVEN_T, EVEN_N,
    )  # fmt: skip


def fp8_linear(x: Fp8Tensor, weight: Fp8Tensor) -> torch.Tensor:
    expect_one_dialect(x, weight, "fp8_linear")
    tiles = SHORT_TILES if x.data.shape[1] <= SLICE.value else TILES
    return launch(x, weight, *choose(tiles, x.data, len(x.data)))


def expect_one_dialect(x: Fp8Tensor, weight: Fp8Tensor, op: str) -> None:
    """Raise DialectMismatch unless both operands speak the same."""
    if x.dialect != weight.dialect:
        raise DialectMismatch(
            f"{op}(weight=): expected {x.dialect} like the activations",
            found=str(weight.dialect),
            effect="the product would be off by a factor of two",
            do="transcode the weight at load",
        )


def launch(x: Fp8Tensor, weight: Fp8Tensor, tile: Tile, options: dict[str, Any]) -> torch.Tensor:
    """fp8_linear with a given tile: what tuning measures. A pair needs whole tiles of weights."""
    (tokens, width), rows = x.data.shape, weight.data.shape[0]
    tile = tile.narrowed(width)
    assert width % 128 == 0 and 128 % tile.rows == 0, (width, tile)
    assert x.data.is_contiguous() and x.scale.is_contiguous(), "activations have gaps"
    out = torch.empty(tokens, rows, dtype=torch.bfloat16, device=x.data.device)
    pair = tile.pair and rows % (2 * tile.rows) == 0
    if tokens:
        row_tiles = triton.cdiv(rows, tile.rows * 2 if pair else tile.rows)
        fp8_linear_kernel[(triton.cdiv(tokens, tile.tokens) * row_tiles,)](
            x.data,
            x.scale,
            weight.data,
            weight.scale,
            out,
            tokens,
            rows,
            K=width,
            TOKENS=tile.tokens,
            ROWS=tile.rows,
            SWAP=tile.swap,
            PAIR=pair,
            LANES=tile.lanes,
            EVEN_T=not tile.swap and tokens % tile.tokens == 0,
            EVEN_N=rows % tile.rows == 0,
            **options,
        )
    return out
