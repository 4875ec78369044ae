"""The two products of an expert, each over one tile of weight rows and up to BM tokens.

Weights are the left operand, tokens the right: 16 tokens fill a matrix instruction. FP8 activations
and MXFP4 weights are both exact in bf16, so products are exact in fp32 and the numerics are those
of FP8 times MXFP4 with fp32 sums, in ascending K, the same at every tile height. Reading FP8 bytes
into an FP8 instruction would need the sum scaled at every group of 32 (measured slower: see
triton_kernel.py).

PLAIN stands for float32 weights and activations; nothing is rounded then. WIDTH and INNER are
constants because ptxas serialises the matrix instructions of a loop that might not run at all.
"""

# mypy: ignore-errors
# Device code has no types.

import triton
import triton.language as tl

from isobath.ops.experts.tl_dispatch import tile_at
from isobath.ops.tl_common import quantize_groups, sigmoid, ue8m0_decode


@triton.jit
def times_power(pair, exponent, NATIVE: tl.constexpr):
    """Two bf16 in a uint32, each times 2**(exponent - 127); exact. NATIVE: by one sm_90
    instruction."""
    if NATIVE:
        factor = exponent * 0x00800080
        return tl.inline_asm_elementwise(
            "mul.bf16x2 $0, $1, $2;",
            "=r,r,r",
            [pair, factor],
            dtype=tl.uint32,
            is_pure=True,
            pack=1,
        )
    else:
        factor = (exponent << 23).to(tl.float32, bitcast=True)
        low = (pair << 16).to(tl.float32, bitcast=True) * factor
        high = (pair & 0xFFFF0000).to(tl.float32, bitcast=True) * factor
        low_bits = low.to(tl.uint32, bitcast=True) >> 16
        return low_bits | (high.to(tl.uint32, bitcast=True) & 0xFFFF0000)


@triton.jit
def widened_tile(
    words,
    scale,
    row,
    column,
    ROWS: tl.constexpr,
    BK: tl.constexpr,
    WGMMA: tl.constexpr,
    NATIVE: tl.constexpr,
):
    """Packed rows `row` (int64 [ROWS]), BK columns of their tile from `column`: bf16 [ROWS, BK].

    BK: 128, or with LANES "mfma" less. See packing.py.
    """
    word_at = column // 8 + tl.arange(0, BK // 8)
    word = tl.load(words + row[:, None] * 16 + word_at[None, :]).to(tl.uint32, bitcast=True)
    group = column // 32 + tl.arange(0, BK // 32)
    exponent = tl.load(scale + row[:, None] * 4 + group[None, :]).to(tl.uint32)
    if WGMMA:  # words of a row are (c, q), of which q is the group
        tl.static_assert(BK == 128)
        exponent = tl.broadcast_to(exponent[:, None, :], (ROWS, 4, 4))
    else:
        exponent = tl.broadcast_to(exponent[:, :, None], (ROWS, BK // 32, 4))
    exponent = tl.reshape(exponent, (ROWS, BK // 8))
    u0 = times_power(word & 0x81C081C0, exponent, NATIVE)
    u1 = times_power((word << 3) & 0x81C081C0, exponent, NATIVE)
    u2 = times_power((word << 6) & 0x81C081C0, exponent, NATIVE)
    rest = ((word << 1) & 0x80008000) | ((word >> 3) & 0x01800180) | ((word >> 7) & 0x00400040)
    u3 = times_power(rest, exponent, NATIVE)
    pairs = tl.join(tl.join(u0, u1), tl.join(u2, u3))  # [ROWS, word, i1, i0]
    halves = tl.join((pairs & 0xFFFF).to(tl.uint16), (pairs >> 16).to(tl.uint16))
    if WGMMA:
        halves = tl.reshape(halves, (ROWS, 4, 4, 2, 2, 2))  # row, c, q, i1, i0, h
        halves = tl.permute(halves, (0, 2, 4, 3, 1, 5))
    else:
        halves = tl.permute(halves, (0, 1, 3, 2, 4))  # row, j, i0, i1, h
    return tl.reshape(halves, (ROWS, BK)).to(tl.bfloat16, bitcast=True)


@triton.jit
def product(
    weight,
    scale,
    row,
    tokens,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    BM: tl.constexpr,
    K: tl.constexpr,
    BK: tl.constexpr,
    PLAIN: tl.constexpr,
    WGMMA: tl.constexpr,
    NATIVE: tl.constexpr,
):
    """[ROWS, BM] float32, the sum over all of K in ascending order.

    row: int64 [ROWS], rows of `weight`, or packed rows of its first tile in K, tiles of TILE rows
    following each other. tokens: pointers [BK, BM] to the first BK values of each token.
    """
    total = tl.zeros([ROWS, BM], tl.float32)
    PARTS: tl.constexpr = 128 // BK
    plain = weight + row[:, None] * K + tl.arange(0, BK)[None, :]
    for step in range(0, K // BK):
        x = tl.load(tokens + step * BK)
        if PLAIN:
            w = tl.load(plain + step * BK)
        else:
            at = row + step // PARTS * TILE
            w = widened_tile(weight, scale, at, step % PARTS * BK, ROWS, BK, WGMMA, NATIVE)
        total = tl.dot(w, x, total, input_precision="ieee")
    return total


@triton.jit
def gate_up(
    x,
    counts,
    buckets,
    weights,
    w13,
    scale,
    hidden,
    k,
    room,
    lift,
    limit,
    E: tl.constexpr,
    BINS: tl.constexpr,
    WIDTH: tl.constexpr,
    INNER: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    ROWS: tl.constexpr,
    PLAIN: tl.constexpr,
    WGMMA: tl.constexpr,
    NATIVE: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """hidden[pair] = q(silu(min(gate, limit)) * clamp(up) * weight) for 128 of its columns.

    x: bf16 [T, WIDTH], or float32. counts, buckets, room, E, BINS: of tile_at(). hidden: as x,
    [pairs, INNER]; rounded to bf16 and then to what FP8 with one scale a 128 can hold, so exact in
    bf16. ROWS: 256, gate and up in one pass over K; or 128, one after the other.
    """
    BLOCKS: tl.constexpr = INNER // 128
    block = tl.program_id(0) % BLOCKS
    expert, first, rows = tile_at(counts, tl.program_id(0) // BLOCKS, E, BINS, BM)
    if rows > 0:
        m = tl.arange(0, BM)
        pair = tl.load(buckets + expert * room + first + tl.where(m < rows, m, 0))
        tokens = x + (pair // k).to(tl.int64)[None, :] * WIDTH + tl.arange(0, BK)[:, None]
        turn = tl.arange(0, ROWS)
        if PLAIN:
            row = expert * 2 * INNER + block * 128 + turn // 128 * INNER + turn % 128
            other = row + INNER
        else:
            row = (expert * BLOCKS + block) * (WIDTH * 2) + turn
            other = row + 128
        both = product(w13, scale, row, tokens, ROWS, 256, BM, WIDTH, BK, PLAIN, WGMMA, NATIVE)
        if ROWS == 256:
            gate, up = tl.split(tl.permute(tl.reshape(both, (2, 128, BM)), (1, 2, 0)))
        else:
            gate = both
            up = product(w13, scale, other, tokens, ROWS, 256, BM, WIDTH, BK, PLAIN, WGMMA, NATIVE)
        gate = gate * lift
        gate = tl.where(gate > limit, limit, gate)  # a comparison keeps NaN
        up = up * lift
        up = tl.where(up > limit, limit, tl.where(up < -limit, -limit, up))
        factor = tl.load(weights + pair)
        value = tl.trans(gate * sigmoid(gate) * up * factor[None, :])
        if not PLAIN:
            codes, byte = quantize_groups(value.to(tl.bfloat16).to(tl.float32), QUANT_MAX, FP8)
            value = codes.to(FP8, bitcast=True).to(tl.float32) * ue8m0_decode(byte)[:, None]
        column = block * 128 + tl.arange(0, 128)[None, :]
        out = hidden + pair.to(tl.int64)[:, None] * INNER + column
        tl.store(out, value.to(hidden.dtype.element_ty), mask=(m < rows)[:, None])


@triton.jit
def down(
    hidden,
    counts,
    buckets,
    w2,
    scale,
    products,
    room,
    lift,
    E: tl.constexpr,
    BINS: tl.constexpr,
    WIDTH: tl.constexpr,
    INNER: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    ROWS: tl.constexpr,
    PLAIN: tl.constexpr,
    WGMMA: tl.constexpr,
    NATIVE: tl.constexpr,
):
    """products[pair] = w2 of its expert times hidden[pair], for ROWS of its columns: [pairs,
    WIDTH]. ROWS: 128, or 256 where it divides WIDTH. The rest as gate_up()."""
    BLOCKS: tl.constexpr = WIDTH // ROWS
    block = tl.program_id(0) % BLOCKS
    expert, first, rows = tile_at(counts, tl.program_id(0) // BLOCKS, E, BINS, BM)
    if rows > 0:
        m = tl.arange(0, BM)
        pair = tl.load(buckets + expert * room + first + tl.where(m < rows, m, 0)).to(tl.int64)
        tokens = hidden + pair[None, :] * INNER + tl.arange(0, BK)[:, None]
        column = block * ROWS + tl.arange(0, ROWS)
        row = expert * WIDTH + column
        if not PLAIN:  # tiles of 128 rows, all of K for one before the next
            row = row // 128 * INNER + row % 128
        total = product(w2, scale, row, tokens, ROWS, 128, BM, INNER, BK, PLAIN, WGMMA, NATIVE)
        out = products + pair[None, :] * WIDTH + column[:, None]
        value = (total * lift).to(products.dtype.element_ty)
        tl.store(out, value, mask=(m < rows)[None, :])
