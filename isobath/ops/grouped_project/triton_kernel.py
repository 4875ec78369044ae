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
from isobath.ops.tl_common import fp8_of, quantize_groups
from isobath.ops.tl_gemm import (
    Tile,
    Tiles,
    choose,
    plain_product,
    rows_of,
    tile_of,
    widened_product,
)

TILES: Tiles = {
    "cuda": (
        (16, Tile(16, 128, 4, 6, swap=True)),
        (32, Tile(32, 128, 4, 5, swap=True)),
        (64, Tile(64, 128, 4, 4, swap=True)),
        (0, Tile(128, 128, 8, 3, swap=True)),
    ),
    "hip": (
        (16, Tile(16, 128, 4, 2, swap=True)),
        (64, Tile(32, 128, 4, 2, swap=True)),
        (0, Tile(64, 128, 8, 2, swap=True)),
    ),
    "cpu": ((4, Tile(16, 128, 4, 1, swap=True)), (0, Tile(32, 128, 4, 1, swap=True))),
}
"""Rows are always one quantisation group. Predicted, not measured."""

FP32_TILES: Tiles = {kind: ((0, Tile(16, 128, 4, 1, swap=True)),) for kind in TILES}


@triton.jit(do_not_specialize=["T"])
def grouped_project_kernel(
    x,
    w,
    w_scale,
    codes,
    scale,
    T,
    R,
    G,
    K: tl.constexpr,
    SCALED: tl.constexpr,
    DTYPE: tl.constexpr,
    STEP: tl.constexpr,
    TOKENS: tl.constexpr,
    EVEN_T: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """As grouped_linear_kernel with 128 rows a tile. codes: uint8 [T, G * R], scale: UE8M0 bytes
    [T, G * R / 128]. Grid: (token tiles x R / 128, G)."""
    token_tile, row_tile = tile_of(tl.program_id(0), tl.cdiv(T, TOKENS), R // 128)
    group = tl.program_id(1).to(tl.int64)
    first_token, tokens = rows_of(token_tile, T, TOKENS, EVEN_T)
    first_row, rows = rows_of(row_tile, R, 128, True)
    x_at = x + (first_token * G + group) * K
    w_at = w + (group * R + first_row) * K
    block = group * (R // 128) + row_tile
    if SCALED:
        acc = widened_product(
            x_at, G * K, tokens, w_at, w_scale + block * (K // 128), rows, K, DTYPE
        )
    else:
        acc = plain_product(x_at, G * K, tokens, w_at, rows, K, DTYPE, True, STEP)
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
    dtype = x.dtype if scaled else torch.promote_types(x.dtype, data.dtype)
    codes = torch.empty(tokens, groups * rows, dtype=torch.uint8, device=x.device)
    scale = torch.empty(tokens, groups * rows // 128, dtype=torch.uint8, device=x.device)
    if tokens:
        grouped_project_kernel[(triton.cdiv(tokens, tile.tokens) * (rows // 128), groups)](
            x,
            data,
            w_scale,
            codes,
            scale,
            tokens,
            rows,
            groups,
            K=width,
            SCALED=scaled,
            DTYPE=tl.bfloat16 if dtype == torch.bfloat16 else tl.float32,
            STEP=32,
            TOKENS=tile.tokens,
            EVEN_T=tokens % tile.tokens == 0,
            **fp8_of(dialect),
            **options,
        )
    return Fp8Tensor(codes.view(dialect.dtype), scale, dialect, ACTIVATION_BLOCK)
