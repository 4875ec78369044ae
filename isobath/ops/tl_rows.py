"""Rows on the device: norm, rotation, and the store of a cache row by its layout.

A program holds one row as a float32 tile [BLOCK], BLOCK a power of two at least its width, zero
beyond it. The tile and the number of warps depend on the width alone, so a row's bits do not depend
on how many there are, nor on which op asks.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from isobath.cache.layout import RowLayout
from isobath.ops.tl_common import (
    cast_fp8,
    magnitude_bits,
    pow2,
    turn,
    ue8m0_decode,
    ue8m0_of,
    ue8m0_reciprocal,
)

ELEMENTS_A_LANE = 32
"""Of a row, in each of 32 lanes: four 16-byte loads of bf16, and one warp for the row of either
half of latent_insert. Predicted, not measured."""


def warps_of(block: int) -> int:
    """Warps for a row tile [block]: 1 up to 1024 values, 8 from 8192 on."""
    return min(8, max(1, block // (32 * ELEMENTS_A_LANE)))


def row_constants(layout: RowLayout) -> dict[str, Any]:
    """The constexpr arguments by which a kernel knows a cache's rows."""
    block = pow2(layout.width)
    even = layout.quant_block == pow2(layout.quant_block)
    assert even or layout.plain or layout.num_scales == 1, layout
    return {
        "WIDTH": layout.width,
        "NOPE": layout.nope,
        "GROUP": min(block, layout.quant_block if even else block),
        "NUM_SCALES": layout.num_scales,
        "SCALE_BYTES": layout.scale_bytes,
        "ROPE_OFFSET": layout.rope_offset,
        "SCALE_OFFSET": layout.scale_offset,
        "ROW_BYTES": layout.row_bytes,
        "PLAIN": layout.plain,
    }


@triton.jit
def rms_scale(x, WIDTH: tl.constexpr, eps):
    """1 / RMS of a row tile that is zero beyond WIDTH."""
    return tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps)


@triton.jit
def load_row(from_ptr, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """Values [BLOCK] of a contiguous row as float32, zero beyond WIDTH."""
    i = tl.arange(0, BLOCK)
    return tl.load(from_ptr + i, mask=i < WIDTH, other=0.0).to(tl.float32)


@triton.jit
def rotate_row(x, cos_sin_ptr, WIDTH: tl.constexpr, ROPE: tl.constexpr):
    """Turn the adjacent pairs of a row's last ROPE values. cos_sin: [ROPE], cosines first."""
    half: tl.constexpr = ROPE // 2
    a, b = tl.split(tl.reshape(x, [x.shape[0] // 2, 2]))
    i = tl.arange(0, x.shape[0] // 2) - (WIDTH - ROPE) // 2
    turned = (i >= 0) & (i < half)
    cos = tl.load(cos_sin_ptr + i, mask=turned, other=1.0)
    sin = tl.load(cos_sin_ptr + half + i, mask=turned, other=0.0)
    a, b = turn(a, b, cos, sin)
    return tl.reshape(tl.join(a, b), [x.shape[0]])


@triton.jit
def put_row(
    bytes_ptr,
    row,
    x,
    WIDTH: tl.constexpr,
    NOPE: tl.constexpr,
    GROUP: tl.constexpr,
    NUM_SCALES: tl.constexpr,
    SCALE_BYTES: tl.constexpr,
    ROPE_OFFSET: tl.constexpr,
    SCALE_OFFSET: tl.constexpr,
    ROW_BYTES: tl.constexpr,
    PLAIN: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """Quantise the row tile x by the layout and store it as row `row` (int64) of a cache."""
    i = tl.arange(0, x.shape[0])
    start = bytes_ptr + row * ROW_BYTES
    if PLAIN:
        tl.store(start.to(tl.pointer_type(tl.float32)) + i, x, mask=i < WIDTH)
    else:
        groups: tl.constexpr = x.shape[0] // GROUP
        tile = tl.reshape(tl.where(i < NOPE, x, 0.0), [groups, GROUP])
        exponent = ue8m0_of(tl.max(magnitude_bits(tile), 1), QUANT_MAX)
        codes = cast_fp8(tile * ue8m0_reciprocal(exponent)[:, None], QUANT_MAX, FP8)
        tl.store(start + i, tl.reshape(codes, [x.shape[0]]), mask=i < NOPE)
        if NOPE < WIDTH:
            rope = (start + ROPE_OFFSET).to(tl.pointer_type(tl.bfloat16))
            tl.store(rope + (i - NOPE), x.to(tl.bfloat16), mask=(i >= NOPE) & (i < WIDTH))
        g = tl.arange(0, groups)
        if SCALE_BYTES == 4:
            scales = (start + SCALE_OFFSET).to(tl.pointer_type(tl.float32))
            tl.store(scales + g, ue8m0_decode(exponent), mask=g < NUM_SCALES)
        else:  # the byte that pads a row to a multiple of 4 goes with the scales, as 0
            byte = tl.where(g < NUM_SCALES, exponent, 0).to(tl.uint8)
            tl.store(start + SCALE_OFFSET + g, byte, mask=g < ROW_BYTES - SCALE_OFFSET)


@triton.jit
def insert_row(
    kv_ptr,
    norm_ptr,
    cos_sin_ptr,
    bytes_ptr,
    row,
    eps,
    ROPE: tl.constexpr,
    WIDTH: tl.constexpr,
    NOPE: tl.constexpr,
    GROUP: tl.constexpr,
    NUM_SCALES: tl.constexpr,
    SCALE_BYTES: tl.constexpr,
    ROPE_OFFSET: tl.constexpr,
    SCALE_OFFSET: tl.constexpr,
    ROW_BYTES: tl.constexpr,
    PLAIN: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Norm, rotate, round to the dtype of kv, and store: the key/value row at kv_ptr."""
    x = load_row(kv_ptr, WIDTH, BLOCK)
    x = x * rms_scale(x, WIDTH, eps) * load_row(norm_ptr, WIDTH, BLOCK)
    x = rotate_row(x, cos_sin_ptr, WIDTH, ROPE).to(kv_ptr.dtype.element_ty).to(tl.float32)
    put_row(
        bytes_ptr, row, x, WIDTH, NOPE, GROUP, NUM_SCALES, SCALE_BYTES, ROPE_OFFSET, SCALE_OFFSET,
        ROW_BYTES, PLAIN, QUANT_MAX, FP8,
    )  # fmt: skip


@triton.jit
def norm_row(x_ptr, norm_ptr, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """The normed row at x_ptr as float32 [BLOCK], rounded to the dtype of x."""
    x = load_row(x_ptr, WIDTH, BLOCK)
    x = x * rms_scale(x, WIDTH, eps) * load_row(norm_ptr, WIDTH, BLOCK)
    return x.to(x_ptr.dtype.element_ty).to(tl.float32)
