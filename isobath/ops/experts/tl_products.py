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
    part,
    ROWS: tl.constexpr,
    BK: tl.constexpr,
    WGMMA: tl.constexpr,
    NATIVE: tl.constexpr,
):
    """Weights of the packed tile part // (128 // BK), of which BK columns: bf16 [ROWS, BK].

    part: int64. BK: 128, or with LANES "mfma" less. See packing.py.
    """
    PARTS: tl.constexpr = 128 // BK
    row = (part // PARTS * ROWS + tl.arange(0, ROWS))[:, None]
    word_at = part % PARTS * (BK // 8) + tl.arange(0, BK // 8)
    word = tl.load(words + row * 16 + word_at[None, :]).to(tl.uint32, bitcast=True)
    group = part % PARTS * (BK // 32) + tl.arange(0, BK // 32)
    exponent = tl.load(scale + row * 4 + group[None, :]).to(tl.uint32)
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
def gate_up(
    x,
    order,
    tiles,
    weights,
    w13,
    scale,
    hidden,
    k,
    lift,
    limit,
    WIDTH: tl.constexpr,
    INNER: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    PLAIN: tl.constexpr,
    WGMMA: tl.constexpr,
    NATIVE: tl.constexpr,
    QUANT_MAX: tl.constexpr,
    FP8: tl.constexpr,
):
    """hidden[place] = q(silu(min(gate, limit)) * clamp(up) * weight) for 128 of its columns.

    x: bf16 [T, WIDTH], or float32. hidden: as x, [pairs, INNER], in the order of `order`; rounded
    to bf16 and then to what FP8 with one scale a 128 can hold, so exact in bf16.
    """
    BLOCKS: tl.constexpr = INNER // 128
    STEPS: tl.constexpr = WIDTH // BK
    entry = tiles + (tl.program_id(0) // BLOCKS) * 3
    block = tl.program_id(0) % BLOCKS
    rows = tl.load(entry + 2)
    if rows > 0:
        expert = tl.load(entry).to(tl.int64)
        first = tl.load(entry + 1)
        m = tl.arange(0, BM)
        pair = tl.load(order + first + m, mask=m < rows, other=0)
        source = x + (pair // k).to(tl.int64)[None, :] * WIDTH + tl.arange(0, BK)[:, None]
        total = tl.zeros([256, BM], tl.float32)
        turn = tl.arange(0, 256)  # 8 rows of w1, the same 8 of w3, ...
        row = turn // 16 * 8 + turn % 8 + turn // 8 % 2 * INNER + block * 128
        plain = w13 + (expert * 2 * INNER + row)[:, None] * WIDTH + tl.arange(0, BK)[None, :]
        for step in range(0, STEPS):
            tokens = tl.load(source + step * BK)
            if PLAIN:
                w = tl.load(plain + step * BK)
            else:
                part = (expert * BLOCKS + block) * STEPS + step
                w = widened_tile(w13, scale, part, 256, BK, WGMMA, NATIVE)
            total = tl.dot(w, tokens, total, input_precision="ieee")
        halves = tl.permute(tl.reshape(total * lift, (16, 2, 8, BM)), (0, 2, 3, 1))
        gate, up = tl.split(halves)
        gate, up = tl.reshape(gate, (128, BM)), tl.reshape(up, (128, BM))
        gate = tl.where(gate > limit, limit, gate)  # a comparison keeps NaN
        up = tl.where(up > limit, limit, tl.where(up < -limit, -limit, up))
        factor = tl.load(weights + pair, mask=m < rows, other=0.0)
        value = tl.trans(gate * sigmoid(gate) * up * factor[None, :])
        if not PLAIN:
            codes, byte = quantize_groups(value.to(tl.bfloat16).to(tl.float32), QUANT_MAX, FP8)
            value = codes.to(FP8, bitcast=True).to(tl.float32) * ue8m0_decode(byte)[:, None]
        place = (first + m).to(tl.int64)[:, None]
        column = block * 128 + tl.arange(0, 128)[None, :]
        out = hidden + place * INNER + column
        tl.store(out, value.to(hidden.dtype.element_ty), mask=(m < rows)[:, None])


@triton.jit
def down(
    hidden,
    order,
    tiles,
    w2,
    scale,
    products,
    lift,
    WIDTH: tl.constexpr,
    INNER: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    PLAIN: tl.constexpr,
    WGMMA: tl.constexpr,
    NATIVE: tl.constexpr,
):
    """products[pair] = w2 of its expert times hidden[place], for 128 of its columns: [pairs,
    WIDTH]."""
    BLOCKS: tl.constexpr = WIDTH // 128
    STEPS: tl.constexpr = INNER // BK
    entry = tiles + (tl.program_id(0) // BLOCKS) * 3
    block = tl.program_id(0) % BLOCKS
    rows = tl.load(entry + 2)
    if rows > 0:
        expert = tl.load(entry).to(tl.int64)
        first = tl.load(entry + 1)
        m = tl.arange(0, BM)
        place = first + tl.where(m < rows, m, 0)
        source = hidden + place.to(tl.int64)[None, :] * INNER + tl.arange(0, BK)[:, None]
        total = tl.zeros([128, BM], tl.float32)
        row = block * 128 + tl.arange(0, 128)
        plain = w2 + (expert * WIDTH + row)[:, None] * INNER + tl.arange(0, BK)[None, :]
        for step in range(0, STEPS):
            tokens = tl.load(source + step * BK)
            if PLAIN:
                w = tl.load(plain + step * BK)
            else:
                part = (expert * BLOCKS + block) * STEPS + step
                w = widened_tile(w2, scale, part, 128, BK, WGMMA, NATIVE)
            total = tl.dot(w, tokens, total, input_precision="ieee")
        pair = tl.load(order + first + m, mask=m < rows, other=0).to(tl.int64)
        column = block * 128 + tl.arange(0, 128)[:, None]
        out = products + pair[None, :] * WIDTH + column
        value = (total * lift).to(products.dtype.element_ty)
        tl.store(out, value, mask=(m < rows)[None, :])
