"""attend's device functions: pieces of rows, queries and outputs, and one tile of keys.

Tiles have power-of-two extents, an FP8 part of 448 values has not: it comes in COUNT pieces of SIZE
values, and the bf16 part is one more. They are never joined: each has its own product into one tile
of scores and its own accumulator of the output, and tuples hold them.

Decoding is exact: an FP8 code times a power of two has four bits.
"""

import triton
import triton.language as tl

from isobath.ops.tl_common import turn, ue8m0_decode


@triton.jit
def decoded(code, FP8: tl.constexpr):
    """uint8 codes -> float32. FP8 None: FNUZ, by integers, where the compiler lacks the type."""
    if FP8 is None:
        bits = code.to(tl.int32)
        size = ((bits & 127) << 20).to(tl.float32, bitcast=True) * (2.0**119)
        value = tl.where(bits > 128, -size, size)
        value = tl.where(bits == 128, float("nan"), value)
    else:
        value = code.to(FP8, bitcast=True).to(tl.float32)
    return value


@triton.jit
def key_piece(
    base, rows, ok, START: tl.constexpr, SIZE: tl.constexpr, ROW: tl.constexpr,
    SCALE_AT: tl.constexpr, FP8: tl.constexpr, PLAIN: tl.constexpr,
):  # fmt: skip
    """[keys, SIZE] values from START on, of the FP8 part: bf16, or float32 of plain rows; 0 where
    not ok. rows: int64. SCALE_AT: byte of the scale."""
    column = START + tl.arange(0, SIZE)
    if PLAIN:
        plain = base.to(tl.pointer_type(tl.float32), bitcast=True)
        value = tl.load(
            plain + (rows[:, None] * (ROW // 4) + column[None, :]), mask=ok[:, None], other=0.0
        )
    else:
        code = tl.load(base + (rows[:, None] * ROW + column[None, :]), mask=ok[:, None], other=0)
        words = base.to(tl.pointer_type(tl.int32), bitcast=True)
        word = tl.load(words + (rows * (ROW // 4) + SCALE_AT // 4), mask=ok, other=0)
        byte = (word >> (8 * (SCALE_AT % 4))) & 255
        value = decoded(code, FP8) * ue8m0_decode(byte)[:, None]
        # Towards zero: exact here, and one instruction for two values.
        value = tl.cast(value, tl.bfloat16, fp_downcast_rounding="rtz")
    return value


@triton.jit
def key_rope(
    base, rows, ok, NOPE: tl.constexpr, ROPE: tl.constexpr, ROW: tl.constexpr, PLAIN: tl.constexpr
):
    """[keys, ROPE] values that rows (int64) keep in bf16 (float32 in plain rows)."""
    KIND: tl.constexpr = tl.float32 if PLAIN else tl.bfloat16
    STEP: tl.constexpr = ROW // 4 if PLAIN else ROW // 2
    FIRST: tl.constexpr = NOPE if PLAIN else NOPE // 2
    typed = base.to(tl.pointer_type(KIND), bitcast=True)
    at = rows[:, None] * STEP + (FIRST + tl.arange(0, ROPE))[None, :]
    return tl.load(typed + at, mask=ok[:, None], other=0.0)


@triton.jit
def turned(x, cos_sin, sign, ROPE: tl.constexpr):
    """x [heads, ROPE] turned by the angles at cos_sin (float32 [ROPE]) times sign."""
    half = tl.arange(0, ROPE // 2)
    cos, sin = tl.load(cos_sin + half), tl.load(cos_sin + ROPE // 2 + half) * sign
    a, b = tl.split(tl.reshape(x, [x.shape[0], ROPE // 2, 2]))
    a, b = turn(a, b, cos[None, :], sin[None, :])
    return tl.reshape(tl.join(a, b), [x.shape[0], ROPE])


@triton.jit
def query_piece(line, ok, START: tl.constexpr, SIZE: tl.constexpr):
    """line: [heads] pointers -> [heads, SIZE] as they lie there, and float32 sums of squares."""
    x = tl.load(line[:, None] + (START + tl.arange(0, SIZE))[None, :], mask=ok[:, None], other=0.0)
    wide = x.to(tl.float32)
    return x, tl.sum(wide * wide, 1)


@triton.jit
def put_piece(line, x, ok, START: tl.constexpr):
    """Store [heads, n] at the pointers line [heads], START values on."""
    at = line[:, None] + (START + tl.arange(0, x.shape[1]))[None, :]
    tl.store(at, x.to(line.dtype.element_ty), mask=ok[:, None])


@triton.jit
def rows_at(
    start, t, end, window_rows, pages, selected,
    WINDOW: tl.constexpr, EDGE: tl.constexpr, PAGE: tl.constexpr, TOPK: tl.constexpr,
    COMPRESSED: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """int32 [BK] rows of the keys from place start on, -1 for none. Places below EDGE are the
    window's, from EDGE to end those of entries."""
    at = start + tl.arange(0, BK)
    rows = tl.full([BK], -1, tl.int32)
    if WINDOW > 0:
        rows = tl.load(window_rows + t * WINDOW + at, mask=at < WINDOW, other=-1).to(tl.int32)
    if COMPRESSED:
        ok = (at >= EDGE) & (at < end)
        entry = at - EDGE
        if TOPK:
            entry = tl.load(selected + t * TOPK + entry, mask=ok, other=-1).to(tl.int32)
            ok = entry >= 0
        page = tl.load(pages + entry // PAGE, mask=ok, other=0).to(tl.int32)
        # 1: Triton 3.6 takes this sum for a multiple of PAGE in every place, and would
        # read rows with 16-byte loads that are not aligned.
        rows = tl.where(ok, tl.multiple_of(page * PAGE + entry % PAGE, 1), rows)
    return rows


@triton.jit
def step(
    m, total, outs, queries, factor, base, rows, COUNT: tl.constexpr, SIZE: tl.constexpr,
    ROPE: tl.constexpr, ROW: tl.constexpr, BLOCK: tl.constexpr, SCALE_AT: tl.constexpr,
    FP8: tl.constexpr, PLAIN: tl.constexpr,
):  # fmt: skip
    """One tile of keys: base-2 running maximum m, sum total and outputs -> the next ones.

    rows: int32 [keys], -1 for none. factor: float32 [heads], what scores are multiplied with. m
    never falls below the sink's score, so it is finite.
    """
    ok = rows >= 0
    rows = rows.to(tl.int64)
    rope = key_rope(base, rows, ok, COUNT * SIZE, ROPE, ROW, PLAIN)
    s = tl.zeros([factor.shape[0], rows.shape[0]], tl.float32)
    keys = ()
    for i in tl.static_range(COUNT):
        piece = key_piece(
            base, rows, ok, i * SIZE, SIZE, ROW, SCALE_AT + i * SIZE // BLOCK, FP8, PLAIN
        )
        s = tl.dot(queries[i], tl.trans(piece), s, input_precision="ieee")
        keys += (piece,)
    keys += (rope,)
    s = tl.dot(queries[COUNT], tl.trans(rope), s, input_precision="ieee")
    s = tl.where(ok[None, :], s * factor[:, None], float("-inf"))
    m_next = tl.maximum(m, tl.max(s, 1))
    keep = tl.exp2(m - m_next)
    p = tl.exp2(s - m_next[:, None])
    total = total * keep + tl.sum(p, 1)
    p = p.to(rope.dtype)
    next_outs = ()
    for i in tl.static_range(COUNT + 1):
        out = tl.dot(p, keys[i], outs[i] * keep[:, None], input_precision="ieee")
        next_outs += (out,)
    return m_next, total, next_outs
