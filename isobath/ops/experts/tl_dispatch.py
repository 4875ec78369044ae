"""Before the expert products: who goes where.

Pairs (token, slot) are numbered token * k + slot. Every expert has a bucket with room for all
tokens, and a count of the pairs in it. A pair takes the next free place of its expert's bucket, so
the order in a bucket depends on which program runs first; no result does, because a row of a
product depends on no other row, and is stored where its pair's number says. All grids follow from
T. Counts are zero before the first pair is placed.
"""

# mypy: ignore-errors
# Device code has no types.

import triton
import triton.language as tl

from isobath.ops.tl_common import ue8m0_decode


@triton.jit
def place(counts, buckets, expert, pair, room, mask):
    """Put pairs into the buckets of their experts, where `mask` is set. counts: int32 [E]. buckets:
    int32 [E, room]."""
    at = tl.atomic_add(counts + expert, 1, mask=mask, sem="relaxed")
    tl.store(buckets + expert.to(tl.int64) * room + at, pair, mask=mask & (at < room))


@triton.jit
def decode_row(codes, scale, rows, token, WIDTH, SPAN: tl.constexpr, FP8: tl.constexpr,
               GROUP: tl.constexpr):  # fmt: skip
    """The exact bf16 values of one FP8 activation row. SPAN: the power of two at or above WIDTH."""
    col = tl.arange(0, SPAN)
    inside = col < WIDTH
    code = tl.load(codes + token * WIDTH + col, mask=inside, other=0).to(FP8, bitcast=True)
    byte = tl.load(scale + token * (WIDTH // GROUP) + col // GROUP, mask=inside, other=127)
    value = code.to(tl.float32) * ue8m0_decode(byte)
    tl.store(rows + token * WIDTH + col, value.to(tl.bfloat16), mask=inside)


@triton.jit
def tile_at(counts, tile, E: tl.constexpr, BINS: tl.constexpr, BM: tl.constexpr):
    """Tile `tile` of all experts' tiles of up to BM pairs, expert by expert: (int64 expert, first
    place in its bucket, pairs), no pairs past the last tile. BINS: a power of two, at least E."""
    bins = tl.arange(0, BINS)
    count = tl.load(counts + bins, mask=bins < E, other=0)
    heights = (count + BM - 1) // BM
    ends = tl.cumsum(heights, 0)
    expert = tl.sum((ends <= tile).to(tl.int32), 0)
    mine = bins == expert
    first = (tile - tl.sum(tl.where(mine, ends - heights, 0), 0)) * BM
    return expert.to(tl.int64), first, tl.minimum(tl.sum(tl.where(mine, count, 0), 0) - first, BM)


@triton.jit
def dispatch(
    experts,
    counts,
    buckets,
    codes,
    scale,
    rows,
    num_pairs,
    room,
    CHUNK: tl.constexpr,
    WIDTH: tl.constexpr,
    SPAN: tl.constexpr,
    FP8: tl.constexpr,
    GROUP: tl.constexpr,
    PLAIN: tl.constexpr,
):
    """Programs: chunks of pairs, placed; then, unless PLAIN, one for each FP8 row to decode.

    experts: int64 [pairs], -1 nowhere. counts, buckets: see place(). codes, scale: FP8 activations
    as bytes. rows: bf16 [T, WIDTH].
    """
    program = tl.program_id(0)
    chunks = tl.cdiv(num_pairs, CHUNK)
    if program < chunks:
        pair = program * CHUNK + tl.arange(0, CHUNK)
        expert = tl.load(experts + pair, mask=pair < num_pairs, other=-1)
        place(counts, buckets, tl.maximum(expert, 0), pair, room, expert >= 0)
    elif not PLAIN:
        decode_row(codes, scale, rows, (program - chunks).to(tl.int64), WIDTH, SPAN, FP8, GROUP)
