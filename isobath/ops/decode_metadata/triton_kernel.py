"""decode_metadata on a GPU: one launch. A program does one lane, or one lane and one entry of one
ratio; which of these is the second axis of the grid."""

import torch
import triton
import triton.language as tl

from isobath.cache.pool import PAGE_TOKENS
from isobath.ops.decode_metadata import DecodeRows, EntryRows
from isobath.ops.tl_common import pow2


@triton.jit
def _turn(position, freqs, out, HALF: tl.constexpr, BLOCK_HALF: tl.constexpr):
    """Store HALF cosines, then HALF sines, of the float32 product of position and frequency."""
    pair = tl.arange(0, BLOCK_HALF)
    is_pair = pair < HALF
    angle = position.to(tl.float32) * tl.load(freqs + pair, mask=is_pair, other=0.0)
    tl.store(out + pair, tl.cos(angle), mask=is_pair)
    tl.store(out + HALF + pair, tl.sin(angle), mask=is_pair)


@triton.jit
def _lane(
    t,
    lanes,
    lanes_stride,
    table,
    table_stride,
    freqs_window,
    freqs_compressed,
    sequence,
    window_slots,
    keep_tokens,
    window_rows,
    cos_sin_window,
    cos_sin_compressed,
    WINDOW: tl.constexpr,
    BLOCK_WINDOW: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """What all layers read of lane t."""
    position = tl.load(lanes + lanes_stride + t)
    slot = tl.load(lanes + 2 * lanes_stride + t)
    page = tl.load(lanes + 3 * lanes_stride + t)
    is_real = slot >= 0
    tl.store(sequence + t, tl.maximum(slot, 0))
    tl.store(keep_tokens + t, tl.where(is_real, t, -1))
    tl.store(table + slot * table_stride + position // TOKENS, page, mask=is_real)
    tl.store(window_slots + t, tl.where(is_real, slot * WINDOW + position % WINDOW, -1))
    place = tl.arange(0, BLOCK_WINDOW)
    attended = position - WINDOW + 1 + place
    row = slot * WINDOW + (attended + WINDOW) % WINDOW
    row = tl.where(is_real & (attended >= 0), row, -1)
    tl.store(window_rows + t * WINDOW + place, row, mask=place < WINDOW)
    line = 2 * HALF * t
    _turn(position, freqs_window, cos_sin_window + line, HALF, BLOCK_HALF)
    _turn(position, freqs_compressed, cos_sin_compressed + line, HALF, BLOCK_HALF)


@triton.jit
def _entry(
    i,
    lanes,
    lanes_stride,
    freqs,
    due,
    visible,
    keep_rows,
    pool_rows,
    entry_rows,
    cos_sin,
    num_lanes,
    num_due,
    RATIO: tl.constexpr,
    RING: tl.constexpr,
    BLOCK_RING: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """What the compressors of one ratio read of lane i, and of entry i."""
    if i < num_lanes:
        position = tl.load(lanes + lanes_stride + i)
        slot = tl.load(lanes + 2 * lanes_stride + i)
        tl.store(visible + i, tl.where(slot >= 0, (position + 1) // RATIO, 0))
        tl.store(keep_rows + i, tl.where(slot >= 0, slot * RING + position % RING, -1))
    if i < num_due:
        t = tl.load(due + i)
        position = tl.load(lanes + lanes_stride + t)
        slot = tl.load(lanes + 2 * lanes_stride + t)
        page = tl.load(lanes + 3 * lanes_stride + t)
        end = position + 1
        exists = (slot >= 0) & (end % RATIO == 0)
        page_rows: tl.constexpr = TOKENS // RATIO
        entry = page * page_rows + position // RATIO % page_rows
        tl.store(entry_rows + i, tl.where(exists, entry, -1))
        place = tl.arange(0, BLOCK_RING)
        pooled = end - RING + place
        row = tl.where(pooled == position, t, -2 - (slot * RING + (pooled + RING) % RING))
        row = tl.where(exists & (pooled >= 0), row, -1)
        tl.store(pool_rows + i * RING + place, row, mask=place < RING)
        first = tl.where(exists, end - RATIO, 0)
        _turn(first, freqs, cos_sin + 2 * HALF * i, HALF, BLOCK_HALF)


@triton.jit(do_not_specialize=["num_lanes", "num_due_a", "num_due_b"])
def _decode_metadata(
    lanes,
    lanes_stride,
    table,
    table_stride,
    freqs_window,
    freqs_compressed,
    sequence,
    window_slots,
    keep_tokens,
    window_rows,
    cos_sin_window,
    cos_sin_compressed,
    due_a,
    visible_a,
    keep_rows_a,
    pool_rows_a,
    entry_rows_a,
    cos_sin_a,
    due_b,
    visible_b,
    keep_rows_b,
    pool_rows_b,
    entry_rows_b,
    cos_sin_b,
    num_lanes,
    num_due_a,
    num_due_b,
    WINDOW: tl.constexpr,
    BLOCK_WINDOW: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_HALF: tl.constexpr,
    TOKENS: tl.constexpr,
    RATIO_A: tl.constexpr,
    RING_A: tl.constexpr,
    BLOCK_RING_A: tl.constexpr,
    RATIO_B: tl.constexpr,
    RING_B: tl.constexpr,
    BLOCK_RING_B: tl.constexpr,
):
    """Axis 1: 0 is the lane, 1 and 2 the ratios A and B, of which there are as many as axis 1 has
    places for."""
    i = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    if part == 0:
        if i < num_lanes:
            _lane(
                i, lanes, lanes_stride, table, table_stride, freqs_window, freqs_compressed,
                sequence, window_slots, keep_tokens, window_rows, cos_sin_window,
                cos_sin_compressed, WINDOW, BLOCK_WINDOW, HALF, BLOCK_HALF, TOKENS,
            )  # fmt: skip
    elif part == 1:
        _entry(
            i, lanes, lanes_stride, freqs_compressed, due_a, visible_a, keep_rows_a, pool_rows_a,
            entry_rows_a, cos_sin_a, num_lanes, num_due_a, RATIO_A, RING_A, BLOCK_RING_A, HALF,
            BLOCK_HALF, TOKENS,
        )  # fmt: skip
    else:
        _entry(
            i, lanes, lanes_stride, freqs_compressed, due_b, visible_b, keep_rows_b, pool_rows_b,
            entry_rows_b, cos_sin_b, num_lanes, num_due_b, RATIO_B, RING_B, BLOCK_RING_B, HALF,
            BLOCK_HALF, TOKENS,
        )  # fmt: skip


def decode_metadata(
    lanes: torch.Tensor,
    due: tuple[torch.Tensor, ...],
    table: torch.Tensor,
    freqs_window: torch.Tensor,
    freqs_compressed: torch.Tensor,
    *,
    out: DecodeRows,
) -> None:
    count = lanes.shape[1]
    if count == 0:
        return
    assert len(due) == len(out.entries) <= 2, len(due)
    # Two ratios' arguments, those of an absent one never used.
    spare = EntryRows(1, *(out.sequence,) * 2, out.window_rows, out.sequence, out.cos_sin_window)
    plans = (*zip(due, out.entries, strict=True), *[(out.sequence[:0], spare)] * 2)[:2]
    arrays = [
        t
        for chosen, one in plans
        for t in (chosen, one.visible, one.keep_rows, one.pool_rows, one.entry_rows, one.cos_sin)
    ]
    lines = (out.sequence, out.window_slots, out.keep_tokens, out.window_rows)
    turns = (out.cos_sin_window, out.cos_sin_compressed)
    assert all(t.is_contiguous() for t in (*lines, *turns, *arrays)), "lines follow one another"
    assert lanes.stride(1) == 1 and table.stride(1) == 1, (lanes.stride(), table.stride())
    numbers = [len(chosen) for chosen, _ in plans]
    rings = [one.pool_rows.shape[1] for _, one in plans]
    window, half = out.window_rows.shape[1], len(freqs_window)
    _decode_metadata[max(count, *numbers), 1 + len(due)](
        lanes, lanes.stride(0), table, table.stride(0), freqs_window, freqs_compressed,
        *lines, *turns, *arrays, count, *numbers,
        WINDOW=window, BLOCK_WINDOW=pow2(window), HALF=half, BLOCK_HALF=pow2(half),
        TOKENS=PAGE_TOKENS, RATIO_A=plans[0][1].ratio, RING_A=rings[0], BLOCK_RING_A=pow2(rings[0]),
        RATIO_B=plans[1][1].ratio, RING_B=rings[1], BLOCK_RING_B=pow2(rings[1]),
        num_warps=1,
    )  # fmt: skip
