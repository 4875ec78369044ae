"""attend on sm_90 in Gluon: the warps that fetch keys, for tl_gluon.py.

Items, what a program does one after the other, are here, too. An item is a token and SPAN of its
entries; the first of a token has the window as well. Its keys have places: those of the window are
below EDGE, those of entries follow, and the tiles of both are whole.

Which rows an item's keys lie in is found out two items ahead: an entry's number, the page it lies
in, the row. So when an item begins its rows lie in shared memory, and its first keys can be asked
for. Three times 16 rows are on their way while one is decoded.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import fence_async_shared, mbarrier

KEYS = gl.constexpr(64)
"""Of a tile."""
BLOCK = gl.constexpr(64)
PIECES = gl.constexpr(7)
ROPE = gl.constexpr(64)
NOPE = gl.constexpr(PIECES.value * BLOCK.value)
WIDTH = gl.constexpr(NOPE.value + ROPE.value)
FETCHING_WARPS = gl.constexpr(4)
FETCHING_REGISTERS = gl.constexpr(120)
ROWS = gl.constexpr(16)
"""Fetched at a time."""
AHEAD = gl.constexpr(3)
"""Times ROWS that are on their way. H200, 2026-11-26, us for 384, 136 and 128 keys in the mean, by
ROWS, AHEAD and registers: 16, 3, 120 209 / 115 / 92; 16, 2, 104 215 / 116 / 99; 16, 4, 136 240 /
126 / 96; 32, 2, 136 223 / 121 / 96. What is left of the registers is the other warps', and where
either spills, a load from the stack waits behind all that is fetched."""


@gluon.jit
def entries_of(item, num_tokens, num_splits, visible, TOPK: gl.constexpr, COMPRESSED: gl.constexpr):
    """Entries of an item's token, in all its items together."""
    entries = num_splits - 1  # of a window alone; as a constant 0 Triton 3.6 fails to compile
    if COMPRESSED:
        entries = gl.load(visible + gl.cast(item % num_tokens, gl.int64)).to(gl.int32)
        if TOPK:
            entries = gl.minimum(entries, TOPK)
    return entries


@gluon.jit
def places_of(split, entries, EDGE: gl.constexpr, SPAN: gl.constexpr):
    """(begin, end) of an item's keys; not before the end where its token has no such split."""
    return gl.where(split == 0, 0, EDGE), EDGE + gl.minimum(entries - split * SPAN, SPAN)


@gluon.jit
def window_of(item, num_tokens, window_rows, WINDOW: gl.constexpr, EDGE: gl.constexpr):
    """int32 [EDGE] rows of an item's window, -1 for none."""
    at = gl.arange(0, EDGE, layout=gl.BlockedLayout([1], [32], [FETCHING_WARPS], [0]))
    line = window_rows + gl.cast(item % num_tokens, gl.int64) * WINDOW
    return gl.load(line + at, mask=(at < WINDOW) & (item < num_tokens), other=-1).to(gl.int32)


@gluon.jit
def numbers_of(
    item, num_tokens, num_splits, selected, TOPK: gl.constexpr, SPAN: gl.constexpr
):  # fmt: skip
    """int32 [SPAN] numbers of an item's entries, before anybody knows how many there are."""
    at = gl.arange(0, SPAN, layout=gl.BlockedLayout([4], [32], [FETCHING_WARPS], [0]))
    at += item // num_tokens * SPAN
    if TOPK:
        line = selected + gl.cast(item % num_tokens, gl.int64) * TOPK
        ok = (at < TOPK) & (item < num_tokens * num_splits)
        at = gl.load(line + at, mask=ok, other=-1).to(gl.int32)
    return at


@gluon.jit
def rows_of(
    item, number, entries, num_tokens, num_splits, table, sequence, table_width,
    PAGE: gl.constexpr, SPAN: gl.constexpr,
):  # fmt: skip
    """int32 [SPAN] rows of an item's entries, -1 for none."""
    place = gl.arange(0, SPAN, layout=number.type.layout) + item // num_tokens * SPAN
    ok = (place < entries) & (number >= 0) & (item < num_tokens * num_splits)
    line = table + gl.load(sequence + gl.cast(item % num_tokens, gl.int64)) * table_width
    page = gl.load(line + number // PAGE, mask=ok, other=0).to(gl.int32)
    return gl.where(ok, page * PAGE + number % PAGE, -1)


@gluon.jit
def asked(
    place, half, window, compressed, near, far, EDGE: gl.constexpr, COMPRESSED: gl.constexpr,
    ROW: gl.constexpr, SCALE_AT: gl.constexpr, SPAN: gl.constexpr, LAYOUT: gl.constexpr,
):  # fmt: skip
    """The packed rows of ROWS places, in words of four codes or two bf16 values, so that what is on
    its way takes a register a word: PIECES tiles int32 [ROWS, BLOCK / 4], int32 [ROWS, ROPE / 2],
    the scales int64 [ROWS], and float32 [ROWS] 0, or -inf where there is no key: zeros there, and
    beyond the last place. near, far: rows [2 * n, ROWS], of which the item's are one half."""
    by_row: gl.constexpr = gl.SliceLayout(1, LAYOUT)
    base = window
    first = gl.minimum(place // ROWS, EDGE // ROWS - 1)
    rows = near.index(half * (EDGE // ROWS) + first).load(by_row)
    rows = gl.where(place < EDGE, rows, -1)
    if COMPRESSED:
        base = gl.where(place < EDGE, window, compressed)
        first = gl.minimum(gl.maximum(place - EDGE, 0) // ROWS, SPAN // ROWS - 1)
        more = far.index(half * (SPAN // ROWS) + first).load(by_row)
        rows = gl.where(place < EDGE, rows, gl.where(place < EDGE + SPAN, more, -1))
    line = gl.maximum(rows, 0).to(gl.int64)
    words = base.to(gl.pointer_type(gl.int32), bitcast=True)
    inside = gl.expand_dims(rows >= 0, 1)
    at = words + gl.expand_dims(line * (ROW // 4), 1)
    four = gl.expand_dims(gl.arange(0, BLOCK // 4, layout=gl.SliceLayout(0, LAYOUT)), 0)
    codes = ()
    for i in gl.static_range(PIECES):
        codes = codes + (gl.load(at + (four + i * (BLOCK // 4)), mask=inside, other=0),)
    # As decoded codes will lie, so that all of a row goes into shared memory by one store.
    wide: gl.constexpr = gl.BlockedLayout([1, 4], [4, 8], [FETCHING_WARPS, 1], [1, 0])
    two = gl.expand_dims(gl.arange(0, ROPE // 2, layout=gl.SliceLayout(0, wide)), 0)
    at = gl.expand_dims(gl.convert_layout(line * (ROW // 4), gl.SliceLayout(1, wide)), 1)
    inside = gl.expand_dims(gl.convert_layout(rows, gl.SliceLayout(1, wide)) >= 0, 1)
    rope = gl.load(words + at + (two + NOPE // 4), mask=inside, other=0)
    scales = base.to(gl.pointer_type(gl.int64), bitcast=True) + line * (ROW // 8) + SCALE_AT // 8
    scales = gl.load(scales, mask=rows >= 0, other=0)
    return codes, rope, scales, gl.where(rows >= 0, 0.0, float("-inf"))


@gluon.jit
def decoded(code, scales, PIECE: gl.constexpr):
    """Words of four e4m3fn codes, int32 [ROWS, n], of one scale a row, byte PIECE of scales ->
    words of two bf16 values [ROWS, 2 * n].

    Two codes at a time through f16, whose bits, moved by three places, are those of a bf16 that is
    2^112 too small; a scale beyond 2^15 gives NaN as 255 does. A block that holds NaN has that
    scale, so the codes for NaN need no care of their own.
    """
    byte = (scales >> (8 * PIECE)).to(gl.int32) & 255
    bits = gl.where(byte > 142, 0x7FC0, (byte + 112) << 7)
    scale = gl.expand_dims(bits | (bits << 16), 1)
    code, scale = gl.broadcast(code, scale)
    low, high = gl.inline_asm_elementwise(
        """{
        .reg .b16 a, b;
        .reg .b32 x, y, z;
        mov.b32 {a, b}, $2;
        cvt.rn.f16x2.e4m3x2 x, a;
        cvt.rn.f16x2.e4m3x2 y, b;
        shr.u32 z, x, 3;
        and.b32 z, z, 0x0fff0fff;
        lop3.b32 x, x, 0x80008000, z, 0xEA;
        shr.u32 z, y, 3;
        and.b32 z, z, 0x0fff0fff;
        lop3.b32 y, y, 0x80008000, z, 0xEA;
        mul.rn.bf16x2 $0, x, $3;
        mul.rn.bf16x2 $1, y, $3;
        }""",
        "=r,=r,r,r",
        [code, scale],
        dtype=(gl.int32, gl.int32),
        is_pure=True,
        pack=1,
    )
    return gl.reshape(gl.join(low, high), [ROWS, 2 * code.shape[1]])


@gluon.jit
def row_words(codes, rope, scales):
    """Decoded rows in one piece, int32 [ROWS, WIDTH / 2]: several stores into one tile would each
    wait for the one before it."""
    d0, d1 = decoded(codes[0], scales, 0), decoded(codes[1], scales, 1)
    d2, d3 = decoded(codes[2], scales, 2), decoded(codes[3], scales, 3)
    d4, d5 = decoded(codes[4], scales, 4), decoded(codes[5], scales, 5)
    d6 = decoded(codes[6], scales, 6)
    d7 = gl.convert_layout(rope, d6.type.layout)
    low = gl.join(gl.join(d0, d1), gl.join(d2, d3))
    high = gl.join(gl.join(d4, d5), gl.join(d6, d7))
    return gl.reshape(gl.permute(gl.join(low, high), (0, 4, 3, 2, 1)), [ROWS, WIDTH // 2])


@gluon.jit
def fetching(
    window, compressed, window_rows, table, sequence, visible, selected, table_width,
    num_tokens, num_splits, keys, bias, near, far, full, empty,
    EDGE: gl.constexpr, WINDOW: gl.constexpr, PAGE: gl.constexpr, TOPK: gl.constexpr,
    COMPRESSED: gl.constexpr, ROW: gl.constexpr, SCALE_AT: gl.constexpr, SPAN: gl.constexpr,
):  # fmt: skip
    """What FETCHING_WARPS do: tiles of keys [2, KEYS, WIDTH], and of bias [2, KEYS]: 0, or -inf
    where there is no key. near [2, EDGE], far [2, SPAN]: rows of two items in turn. full, empty: a
    barrier for each tile."""
    layout: gl.constexpr = gl.BlockedLayout([1, 2], [4, 8], [FETCHING_WARPS, 1], [1, 0])
    flat: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    words = keys._reinterpret(gl.int32, [2, KEYS, WIDTH // 2], gl.NVMMASharedLayout(128, 32, 2))
    near_rows = near._reinterpret(gl.int32, [2 * EDGE // ROWS, ROWS], flat)
    far_rows = far._reinterpret(gl.int32, [2 * SPAN // ROWS, ROWS], flat)
    item, step = gl.program_id(0), gl.num_programs(0)
    entries = entries_of(item, num_tokens, num_splits, visible, TOPK, COMPRESSED)
    near.index(0).store(window_of(item, num_tokens, window_rows, WINDOW, EDGE))
    if COMPRESSED:
        number = numbers_of(item, num_tokens, num_splits, selected, TOPK, SPAN)
        there = rows_of(
            item, number, entries, num_tokens, num_splits, table, sequence, table_width, PAGE, SPAN
        )
        far.index(0).store(there)
        number = numbers_of(item + step, num_tokens, num_splits, selected, TOPK, SPAN)
    next_entries = entries_of(item + step, num_tokens, num_splits, visible, TOPK, COMPRESSED)
    gl.thread_barrier()
    turn = 0
    half = 0
    for item in range(gl.program_id(0), num_tokens * num_splits, gl.num_programs(0)):
        begin, end = places_of(item // num_tokens, entries, EDGE, SPAN)
        entries = next_entries
        here = window_of(item + step, num_tokens, window_rows, WINDOW, EDGE)
        if COMPRESSED:
            there = rows_of(
                item + step, number, entries, num_tokens, num_splits, table, sequence, table_width,
                PAGE, SPAN,
            )  # fmt: skip
            number = numbers_of(item + 2 * step, num_tokens, num_splits, selected, TOPK, SPAN)
        next_entries = entries_of(
            item + 2 * step, num_tokens, num_splits, visible, TOPK, COMPRESSED
        )
        batches = ()
        for i in gl.static_range(AHEAD):
            batch = asked(
                begin + i * ROWS, half, window, compressed, near_rows, far_rows, EDGE, COMPRESSED,
                ROW, SCALE_AT, SPAN, layout,
            )  # fmt: skip
            batches = batches + (batch,)
        for start in range(begin, end, KEYS):
            tile, phase = turn & 1, (turn >> 1) & 1
            mbarrier.wait(empty.index(tile), phase ^ 1)
            for part in gl.static_range(KEYS // ROWS):
                codes, rope, scales, absent = batches[0]
                words.index(tile).slice(part * ROWS, ROWS).store(row_words(codes, rope, scales))
                bias.index(tile).slice(part * ROWS, ROWS).store(absent)
                batch = asked(
                    start + (part + AHEAD) * ROWS, half, window, compressed, near_rows, far_rows,
                    EDGE, COMPRESSED, ROW, SCALE_AT, SPAN, layout,
                )  # fmt: skip
                batches = batches[1:] + (batch,)
            fence_async_shared()
            gl.thread_barrier()
            mbarrier.arrive(full.index(tile), count=1)
            turn += 1
        half ^= 1
        near.index(half).store(here)
        if COMPRESSED:
            far.index(half).store(there)
        gl.thread_barrier()
