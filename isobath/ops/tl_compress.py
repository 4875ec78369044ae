"""A compressor's step on the device, for compress_insert and compress_insert_pair: pool a window's
rows into an entry and store it, or keep a token's k and gate in the ring.

A program is one entry or one kept token. What it computes depends on the compressor's constants and
its warps alone, so the two ops store the same bits.
"""

import triton
import triton.language as tl

from isobath.ops.tl_rows import load_row, put_row, rms_scale, rotate_row

PLACES = 16
"""Pooled rows at a time: of 512 channels, k and gate are 64 registers in each lane of 8 warps.
Predicted, not measured."""


def warps_of(width: int) -> int:
    """Warps for entries of that many values. An entry of the indexer has those of the others, with
    which it shares a launch, though alone it is faster with fewer.

    Measured on an NVIDIA H200, 2026-11-22, median of 7 graph replays, 1/4 of the entries due, at 1,
    64, 1024 tokens in us: 512 values 3.7, 4.6, 12.1; 128 values 5.7, 5.9, 31.6, with 2 warps 3.0,
    3.1, 7.4; both in one launch of 8 warps 5.7, 7.7, 24.2."""
    return min(8, max(1, width // 16))


@triton.jit
def keep_token(
    fresh_ptr,
    ape_ptr,
    state_ptr,
    positions_ptr,
    token,
    row,
    fresh_stride,
    RATIO: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """State row `row` = k, and gate plus ape, of a fresh token."""
    i = tl.arange(0, CHANNELS)
    position = tl.load(positions_ptr + token)
    k = tl.load(fresh_ptr + token * fresh_stride + i)
    gate = tl.load(fresh_ptr + token * fresh_stride + CHANNELS + i)
    gate += tl.load(ape_ptr + position % RATIO * CHANNELS + i)
    tl.store(state_ptr + row * (2 * CHANNELS) + i, k)
    tl.store(state_ptr + row * (2 * CHANNELS) + CHANNELS + i, gate)


@triton.jit
def pool(
    fresh_ptr,
    ape_ptr,
    state_ptr,
    positions_ptr,
    rows_ptr,
    fresh_stride,
    PLACES: tl.constexpr,
    COUNT: tl.constexpr,
    RATIO: tl.constexpr,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    first,
    PART: tl.constexpr,
):
    """float32 [PART], of WIDTH channels those from `first` on: softmax of the gate over the COUNT
    places of a window, channel by channel, times k. PLACES at a time with a running maximum, oldest
    first."""
    channel = first + tl.arange(0, PART)
    # Below any gate, and finite: what is absent (-inf) then weighs exp(-inf) = 0 and not NaN.
    top = tl.full([PART], -3.0e38, tl.float32)
    weight_sum = tl.zeros([PART], tl.float32)
    total = tl.zeros([PART], tl.float32)
    for start in range(0, COUNT, PLACES):
        place = start + tl.arange(0, PLACES)
        row = tl.load(rows_ptr + place)
        is_fresh = row >= 0
        half = tl.where(place >= RATIO, CHANNELS - WIDTH, 0)
        at = half[:, None] + channel[None, :]
        # A place is either fresh or old; each load skips the rows of the other.
        new = fresh_ptr + (row * fresh_stride)[:, None] + at
        mask = is_fresh[:, None]
        position = tl.load(positions_ptr + row, mask=is_fresh, other=0)
        ape = ape_ptr + (position % RATIO * CHANNELS)[:, None] + at
        k = tl.load(new, mask=mask, other=0.0)
        gate = tl.load(new + CHANNELS, mask=mask, other=0.0)
        gate += tl.load(ape, mask=mask, other=0.0)
        old = state_ptr + ((-2 - row) * (2 * CHANNELS))[:, None] + at
        mask = (row < -1)[:, None]
        k += tl.load(old, mask=mask, other=0.0)
        gate += tl.load(old + CHANNELS, mask=mask, other=0.0)
        gate = tl.where((row == -1)[:, None], float("-inf"), gate)
        higher = tl.maximum(top, tl.max(gate, 0))
        weight = tl.exp(gate - higher[None, :])
        shrink = tl.exp(top - higher)
        weight_sum = weight_sum * shrink + tl.sum(weight, 0)
        total = total * shrink + tl.sum(weight * k, 0)
        top = higher
    return total / weight_sum


@triton.jit
def put_entry(
    x,
    entry,
    cache_row,
    norm_ptr,
    cos_sin_ptr,
    bytes_ptr,
    eps,
    DTYPE: tl.constexpr,
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
):
    """Norm, rotate, quantise and store what pool() made of a window: float32 [WIDTH]."""
    x = x.to(DTYPE).to(tl.float32)
    x = x * rms_scale(x, WIDTH, eps) * load_row(norm_ptr, WIDTH, WIDTH)
    x = rotate_row(x, cos_sin_ptr + entry * ROPE, WIDTH, ROPE)
    put_row(
        bytes_ptr, cache_row, x.to(DTYPE).to(tl.float32), WIDTH, NOPE, GROUP, NUM_SCALES,
        SCALE_BYTES, ROPE_OFFSET, SCALE_OFFSET, ROW_BYTES, PLAIN, QUANT_MAX, FP8,
    )  # fmt: skip


@triton.jit
def keep_one(
    kept,
    fresh_ptr,
    ape_ptr,
    state_ptr,
    positions_ptr,
    keep_tokens_ptr,
    keep_rows_ptr,
    fresh_stride,
    RATIO: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """keep_token() of the pair `kept` (int64), unless it is padding."""
    token = tl.load(keep_tokens_ptr + kept)
    if token >= 0:
        row = tl.load(keep_rows_ptr + kept)
        keep_token(
            fresh_ptr, ape_ptr, state_ptr, positions_ptr, token, row, fresh_stride, RATIO, CHANNELS
        )  # fmt: skip


@triton.jit
def compress_step(
    program,
    pooled_ptr,
    fresh_ptr,
    ape_ptr,
    norm_ptr,
    cos_sin_ptr,
    state_ptr,
    bytes_ptr,
    positions_ptr,
    pool_rows_ptr,
    entry_rows_ptr,
    keep_tokens_ptr,
    keep_rows_ptr,
    fresh_stride,
    num_entries,
    eps,
    DTYPE: tl.constexpr,
    POOLED: tl.constexpr,
    PLACES: tl.constexpr,
    COUNT: tl.constexpr,
    RATIO: tl.constexpr,
    CHANNELS: tl.constexpr,
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
):
    """Programs 0 .. num_entries - 1: entries. Those after them: kept tokens. POOLED: entries are in
    pooled, float32 [E, WIDTH]."""
    if program < num_entries:
        entry = program.to(tl.int64)
        cache_row = tl.load(entry_rows_ptr + entry)
        if cache_row >= 0:
            if POOLED:
                x = load_row(pooled_ptr + entry * WIDTH, WIDTH, WIDTH)
            else:
                x = pool(
                    fresh_ptr, ape_ptr, state_ptr, positions_ptr, pool_rows_ptr + entry * COUNT,
                    fresh_stride, PLACES, COUNT, RATIO, CHANNELS, WIDTH, 0, WIDTH,
                )  # fmt: skip
            put_entry(
                x, entry, cache_row, norm_ptr, cos_sin_ptr, bytes_ptr, eps, DTYPE, ROPE, WIDTH,
                NOPE, GROUP, NUM_SCALES, SCALE_BYTES, ROPE_OFFSET, SCALE_OFFSET, ROW_BYTES, PLAIN,
                QUANT_MAX, FP8,
            )  # fmt: skip
    else:
        keep_one(
            (program - num_entries).to(tl.int64), fresh_ptr, ape_ptr, state_ptr, positions_ptr,
            keep_tokens_ptr, keep_rows_ptr, fresh_stride, RATIO, CHANNELS,
        )  # fmt: skip
