"""grouped_linear in Triton: bf16 activations times FP8 weights decoded to bf16 in registers.

One launch for all groups. Weights that are not FP8 are multiplied as linear does it. K order and
invariance: ops/tl_gemm.py.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.tl_gemm import Tile, Tiles, choose, plain_product, rows_of, store_tile, tile_of
from isobath.ops.tl_gemm_few import lane_rows, widened_product

TILES: Tiles = {
    "cuda": (
        (16, Tile(16, 32, 4, 5, swap=True, lanes=2)),
        (32, Tile(32, 64, 4, 5, swap=True)),
        (64, Tile(64, 64, 4, 4, swap=True)),
        (0, Tile(128, 128, 8, 3, swap=True)),
    ),
    "hip": (
        (16, Tile(16, 32, 4, 2, swap=True)),
        (64, Tile(32, 64, 4, 2, swap=True)),
        (0, Tile(64, 128, 8, 2, swap=True)),
    ),
    "cpu": ((4, Tile(16, 16, 4, 1, swap=True, lanes=2)), (0, Tile(32, 64, 4, 1, swap=True))),
}
"""Predicted, not measured."""

FP32_TILES: Tiles = {kind: ((0, Tile(32, 32, 4, 2, swap=True)),) for kind in TILES}


@triton.jit(do_not_specialize=["T"])
def grouped_linear_kernel(
    x,
    w,
    w_scale,
    out,
    T,
    R,
    G,
    K: tl.constexpr,
    SCALED: tl.constexpr,
    DTYPE: tl.constexpr,
    STEP: tl.constexpr,
    TOKENS: tl.constexpr,
    ROWS: tl.constexpr,
    LANES: tl.constexpr,
    EVEN_N: tl.constexpr,
):
    """x: [T, G, K]. w: [G, R, K], FP8 with UE8M0 bytes w_scale [G, R/128, K/128] if SCALED, else
    plain and w_scale unread. out: [T, G * R]. Grid: (token tiles x weight tiles, G)."""
    token_tile, row_tile = tile_of(tl.program_id(0), tl.cdiv(T, TOKENS), tl.cdiv(R, ROWS))
    group = tl.program_id(1).to(tl.int64)
    first_token, tokens = rows_of(token_tile, T, TOKENS, False)
    first_row, rows = rows_of(row_tile, R, ROWS, EVEN_N)
    x += (first_token * G + group) * K
    w += (group * R + first_row) * K
    if SCALED:
        w_scale += (group * tl.cdiv(R, 128) + first_row // 128) * (K // 128)
        each, live = lane_rows(first_token, T, TOKENS, LANES)
        rows = lane_rows(first_row, R, ROWS, LANES)[0]
        acc = widened_product(x, G * K, each, live, w, w_scale, rows, K, DTYPE, LANES)
    else:
        acc = plain_product(x, G * K, tokens, w, rows, K, DTYPE, True, STEP)
    store_tile(out + group * R, G * R, acc, first_token, T, first_row, R, TOKENS, ROWS, True)


def grouped_linear(x: torch.Tensor, weight: Fp8Tensor | torch.Tensor) -> torch.Tensor:
    tiles = TILES if isinstance(weight, Fp8Tensor) and x.dtype == torch.bfloat16 else FP32_TILES
    return launch(x, weight, *choose(tiles, x, len(x)))


def launch(
    x: torch.Tensor, weight: Fp8Tensor | torch.Tensor, tile: Tile, options: dict[str, Any]
) -> torch.Tensor:
    """grouped_linear with a given tile: what tuning measures."""
    scaled = isinstance(weight, Fp8Tensor)
    data, scale = (weight.data, weight.scale) if scaled else (weight, weight)
    (tokens, groups, width), rows = x.shape, data.shape[1]
    tile = tile.narrowed(width)
    assert x.is_contiguous() and data.is_contiguous(), (x.stride(), data.stride())
    assert not scaled or (width % 128 == 0 and 128 % tile.rows == 0), (width, tile)
    dtype = x.dtype if scaled else torch.promote_types(x.dtype, data.dtype)
    out = torch.empty(tokens, groups * rows, dtype=x.dtype, device=x.device)
    if tokens:
        grid = (triton.cdiv(tokens, tile.tokens) * triton.cdiv(rows, tile.rows), groups)
        grouped_linear_kernel[grid](
            x,
            data,
            scale,
            out,
            tokens,
            rows,
            groups,
            K=width,
            SCALED=scaled,
            DTYPE=tl.bfloat16 if dtype == torch.bfloat16 else tl.float32,
            STEP=32,
            TOKENS=tile.tokens,
            ROWS=tile.rows,
            LANES=tile.lanes,
            EVEN_N=rows % tile.rows == 0,
            **options,
        )
    return out
