"""Before the expert products: who goes where.

Pairs (token, slot) are numbered token * k + slot. Sorting is by counting, with nothing that depends
on which program runs first: the order is by expert, then by pair. All grids follow from T.
"""

# mypy: ignore-errors
# Device code has no types.

import triton
import triton.language as tl

from isobath.ops.tl_common import ue8m0_decode


@triton.jit
def dispatch(
    experts,
    order,
    tiles,
    codes,
    scale,
    rows,
    num_pairs,
    num_tiles,
    E: tl.constexpr,
    BINS: tl.constexpr,
    CHUNK: tl.constexpr,
    BM: tl.constexpr,
    WIDTH: tl.constexpr,
    SPAN: tl.constexpr,
    FP8: tl.constexpr,
    GROUP: tl.constexpr,
    PLAIN: tl.constexpr,
):
    """Programs below E each place the pairs of one expert; program E closes the tile table; those
    after it each decode one activation row.

    experts: int64 [pairs], -1 nowhere. order: int32 [pairs], pairs by expert, the valid ones first.
    tiles: int32 [num_tiles, 3], (expert, first place in order, rows), rows 0 past the last. codes,
    scale: FP8 activations as bytes. rows: bf16 [T, WIDTH], their exact values. SPAN: the power of
    two at or above WIDTH.
    """
    pid = tl.program_id(0)
    if pid > E:
        if not PLAIN:  # float32 rows are read as they are: there is no such program
            token = (pid - E - 1).to(tl.int64)
            col = tl.arange(0, SPAN)
            inside = col < WIDTH
            code = tl.load(codes + token * WIDTH + col, mask=inside, other=0).to(FP8, bitcast=True)
            byte = tl.load(scale + token * (WIDTH // GROUP) + col // GROUP, mask=inside, other=127)
            value = code.to(tl.float32) * ue8m0_decode(byte)
            tl.store(rows + token * WIDTH + col, value.to(tl.bfloat16), mask=inside)
    else:
        lane = tl.arange(0, CHUNK)
        bins = tl.arange(0, BINS)
        counts = tl.zeros([BINS], tl.int32)
        for start in range(0, num_pairs, CHUNK):
            at = start + lane
            chosen = tl.load(experts + at, mask=at < num_pairs, other=-1).to(tl.int32)
            counts += tl.histogram(tl.where(chosen < 0, BINS - 1, chosen), BINS)
        counts = tl.where(bins < E, counts, 0)
        heights = (counts + BM - 1) // BM
        before = bins < pid
        tile = tl.sum(tl.where(before, heights, 0))
        if pid == E:
            for start in range(tile, num_tiles, CHUNK):
                at = start + lane
                tl.store(tiles + at * 3 + 2, tl.zeros([CHUNK], tl.int32), mask=at < num_tiles)
        else:
            count = tl.sum(tl.where(bins == pid, counts, 0))
            first = tl.sum(tl.where(before, counts, 0))
            for start in range(0, tl.cdiv(count, BM), CHUNK):
                at = start + lane
                inside = at < tl.cdiv(count, BM)
                entry = tiles + (tile + at) * 3
                tl.store(entry, tl.zeros([CHUNK], tl.int32) + pid, mask=inside)
                tl.store(entry + 1, first + at * BM, mask=inside)
                tl.store(entry + 2, tl.minimum(count - at * BM, BM), mask=inside)
            if count > 0:
                for start in range(0, num_pairs, CHUNK):
                    at = start + lane
                    chosen = tl.load(experts + at, mask=at < num_pairs, other=-1).to(tl.int32)
                    mine = (chosen == pid).to(tl.int32)
                    place = first + tl.cumsum(mine, 0) - 1
                    tl.store(order + place, at, mask=mine != 0)
                    first += tl.sum(mine)
