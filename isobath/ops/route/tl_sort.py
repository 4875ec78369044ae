"""Sorting (token, slot) pairs by expert in one program, from a bit a token and expert.

Whoever chooses leaves for every block of up to 8 tokens and every expert a byte of marks: bit b
says that the block's token b has chosen the expert. A pair's place is then the number of pairs of
lower experts, and of marks of its own expert before it: nothing depends on which program ran first.
"""

# mypy: ignore-errors
# Device code has no types.

import triton
import triton.language as tl


@triton.jit
def popcount(bits):
    """Bits that are set in each of int32 values below 256."""
    twos = bits - ((bits >> 1) & 0x55)
    fours = (twos & 0x33) + ((twos >> 2) & 0x33)
    return (fours + (fours >> 4)) & 0x0F


@triton.jit
def sort_pairs(
    experts,
    marks,
    ranks,
    firsts,
    order,
    tiles,
    tokens,
    num_tiles,
    E: tl.constexpr,
    SPAN: tl.constexpr,
    TOP_K: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BM: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """order and tiles as in route.Pairs, of height BM. experts: int64 [T, TOP_K], -1 nowhere.

    marks: uint8 [blocks, E], written by other programs of this launch, as experts are. ranks: int16
    [blocks, E] and firsts: int32 [E], for this program's own use. SPAN: power of two at or above E.
    ROWS blocks, and CHUNK pairs, are looked at together.
    """
    lane = tl.arange(0, SPAN)
    inside = lane < E
    blocks = tl.cdiv(tokens, BLOCK_T)
    counts = tl.zeros([SPAN], tl.int32)
    for start in range(0, blocks, ROWS):
        block = start + tl.arange(0, ROWS)
        at = block[:, None] * E + lane[None, :]
        there = (block < blocks)[:, None] & inside[None, :]
        bits = tl.load(marks + at, mask=there, other=0, cache_modifier=".cg").to(tl.int32)
        here = popcount(bits)
        before = tl.cumsum(here, 0) - here + counts[None, :]
        tl.store(ranks + at, before.to(tl.int16), mask=there)
        counts += tl.sum(here, 0)
    first = tl.cumsum(counts, 0) - counts
    tl.store(firsts + lane, first, mask=inside)
    heights = (counts + BM - 1) // BM
    tile = tl.cumsum(heights, 0) - heights
    for i in range(0, tl.max(heights, 0)):
        entry = tiles + (tile + i) * 3
        more = i < heights
        tl.store(entry, lane, mask=more)
        tl.store(entry + 1, first + i * BM, mask=more)
        tl.store(entry + 2, tl.minimum(counts - i * BM, BM), mask=more)
    one = tl.arange(0, CHUNK)
    for start in range(tl.sum(heights, 0), num_tiles, CHUNK):
        entry = tiles + (start + one) * 3
        tl.store(entry + 2, tl.zeros([CHUNK], tl.int32), mask=start + one < num_tiles)
    tl.debug_barrier()  # ranks and firsts are read by other lanes than those that wrote them
    pairs = tokens * TOP_K
    for start in range(0, pairs, CHUNK):
        pair = start + one
        chosen = tl.load(experts + pair, mask=pair < pairs, other=-1, cache_modifier=".cg")
        chosen = chosen.to(tl.int32)
        there = chosen >= 0
        token = pair // TOP_K
        at = token // BLOCK_T * E + chosen
        bits = tl.load(marks + at, mask=there, other=0, cache_modifier=".cg").to(tl.int32)
        place = tl.load(firsts + chosen, mask=there, other=0)
        place += tl.load(ranks + at, mask=there, other=0).to(tl.int32)
        place += popcount(bits & ((1 << (token % BLOCK_T)) - 1))
        tl.store(order + place, pair, mask=there)
