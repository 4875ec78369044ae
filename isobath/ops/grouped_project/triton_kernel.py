"""grouped_project in Triton: one launch, from unquantised heads to quantised projections.

A program's tile holds a whole group of 128 outputs of one weight group, rounds them to bf16 as the
parts would, and quantises them where they are. Without a dialect it is grouped_linear.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from isobath.errors import NumericsError
from isobath.numerics.dialect import Dialect
from isobath.numerics.fp8 import ACTIVATION_BLOCK, Fp8Tensor
from isobath.ops.grouped_linear.triton_kernel import grouped_linear
from isobath.ops.linear.triton_kernel import STEP
from isobath.ops.tl_common import fp8_of, quantize_groups
from isobath.ops.tl_gemm import Tile, Tiles, choose, plain_product, rows_of, store_tile, tile_of
from isobath.ops.tl_gemm_few import COUNTERS, counters, lane_rows, quantize_last, widened_product

TILES: Tiles = {
    "cuda": (
        (16, Tile(16, 32, 4, 5, swap=True, lanes=2)),
        (64, Tile(32, 64, 4, 4, swap=True)),
        (0, Tile(128, 128, 8, 3, swap=True)),
    ),
    "hip": (
        (16, Tile(16, 128, 4, 2, swap=True)),
        (64, Tile(32, 128, 4, 2, swap=True)),
        (0, Tile(64, 128, 8, 2, swap=True)),
    ),
    "cpu": ((4, Tile(16, 32, 4, 1, swap=True, lanes=2)), (0, Tile(32, 128, 4, 1, swap=True))),
}
"""Tiles of less than a quantisation group of rows are for NVIDIA alone: see last_of().
Predicted, not measured."""

FP32_TILES: Tiles = {kind: ((0, Tile(16, 128, 4, 1, swap=True)),) for kind in TILES}


@triton.jit(do_not_specialize=["T"])
def grouped_project_kernel(
    x,
    w,
    w_scale,
    between,
    codes,
    scale,
    counter,
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
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """As grouped_linear_kernel. codes: uint8 [T, G * R], scale: UE8M0 bytes [T, G * R / 128].
    between: bf16 [T, G * R] and counter: where ROWS < 128. Grid: (token tiles x R / ROWS, G)."""
    token_tile, row_tile = tile_of(tl.program_id(0), tl.cdiv(T, TOKENS), R // ROWS)
    group = tl.program_id(1).to(tl.int64)
    first_token, tokens = rows_of(token_tile, T, TOKENS, False)
    first_row, rows = rows_of(row_tile, R, ROWS, True)
    x_at = x + (first_token * G + group) * K
    w_at = w + (group * R + first_row) * K
    block = group * (R // 128) + first_row // 128
    if SCALED:
        each, live = lane_rows(first_token, T, TOKENS, LANES)
        rows = lane_rows(first_row, R, ROWS, LANES)[0]
        scale_at = w_scale + block * (K // 128)
        acc = widened_product(x_at, G * K, each, live, w_at, scale_at, rows, K, DTYPE, LANES)
    else:
        acc = plain_product(x_at, G * K, tokens, w_at, rows, K, DTYPE, True, STEP)
    if ROWS < 128:
        out = between + group * R
        store_tile(out, G * R, acc, first_token, T, first_row, R, TOKENS, ROWS, True)
        tile = token_tile * (G * R // 128) + block
        quantize_last(
            between,
            codes,
            scale,
            counter,
            tile,
            first_token,
            T,
            block,
            G * R,
            TOKENS,
            128 // ROWS,
            QUANT_MAX,
            FP8,
        )
    else:
        rounded = acc.to(x.dtype.element_ty).to(tl.float32)
        code, byte = quantize_groups(tl.trans(rounded), QUANT_MAX, FP8)
        token = first_token + tl.arange(0, TOKENS)
        at = codes + token[:, None] * (G * R) + block * 128 + tl.arange(0, 128)[None, :]
        tl.store(at, code, mask=token[:, None] < T)
        tl.store(scale + token * (G * R // 128) + block, byte.to(tl.uint8), mask=token < T)


def grouped_project(
    x: torch.Tensor, weight: Fp8Tensor | torch.Tensor, *, dialect: Dialect | None
) -> Fp8Tensor | torch.Tensor:
    if dialect is None:
        return grouped_linear(x, weight)
    narrow = isinstance(weight, Fp8Tensor) and x.dtype == torch.bfloat16
    return launch(x, weight, dialect, *choose(TILES if narrow else FP32_TILES, x, len(x)))


def launch(
    x: torch.Tensor,
    weight: Fp8Tensor | torch.Tensor,
    dialect: Dialect,
    tile: Tile,
    options: dict[str, Any],
) -> Fp8Tensor:
    """grouped_project with a given tile: what tuning measures."""
    scaled = isinstance(weight, Fp8Tensor)
    data, w_scale = (weight.data, weight.scale) if scaled else (weight, weight)
    (tokens, groups, width), rows = x.shape, data.shape[1]
    if rows % 128:
        raise NumericsError(
            f"grouped_project(dialect={dialect}): {rows} outputs a group",
            found="no multiple of 128",
            effect="a quantisation group would span two weight groups, held by two programs",
            do="pass dialect=None, or bind grouped_project to the torch backend",
        )
    assert x.is_contiguous() and data.is_contiguous(), (x.stride(), data.stride())
    assert not scaled or width % 128 == 0, width
    tile = tile.narrowed(width)
    parts, token_tiles = 128 // tile.rows, triton.cdiv(tokens, tile.tokens)
    assert parts == 1 or token_tiles * groups * rows // 128 <= COUNTERS, (tokens, tile)
    dtype = x.dtype if scaled else torch.promote_types(x.dtype, data.dtype)
    codes = torch.empty(tokens, groups * rows, dtype=torch.uint8, device=x.device)
    scale = torch.empty(tokens, groups * rows // 128, dtype=torch.uint8, device=x.device)
    between = torch.empty(codes.shape, dtype=x.dtype, device=x.device) if parts > 1 else codes
    if tokens:
        grouped_project_kernel[(token_tiles * (rows // tile.rows), groups)](
            x,
            data,
            w_scale,
            between,
            codes,
            scale,
            counters(x.device, "grouped_project") if parts > 1 else codes,
            tokens,
            rows,
            groups,
            K=width,
            SCALED=scaled,
            DTYPE=tl.bfloat16 if dtype == torch.bfloat16 else tl.float32,
            STEP=STEP[dtype],
            TOKENS=tile.tokens,
            ROWS=tile.rows,
            LANES=tile.lanes,
            **fp8_of(dialect),
            **options,
        )
    return Fp8Tensor(codes.view(dialect.dtype), scale, dialect, ACTIVATION_BLOCK)
