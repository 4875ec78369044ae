"""attend's kernel for sm_90 in Gluon, Triton's language of explicit layouts and shared memory.

A program takes a token and 64 heads, and its keys 64 at a time. Four warps do nothing but gather
packed rows, decode them and leave them in one of two tiles of shared memory; two times 32 rows are
on their way meanwhile. Eight warps multiply: a tile serves transposed for the scores and as it is
for the output. Their two warp groups halve the keys of the scores and the values of the output.

Queries are normed and rotated in float32 and rounded once, as the reference has it.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    warpgroup_mma,
    warpgroup_mma_wait,
)

LOG2E = gl.constexpr(1.4426950408889634)
KEYS = gl.constexpr(64)
"""Of a tile."""
HEADS = gl.constexpr(64)
"""Of a program: the rows of a matrix instruction."""
BLOCK = gl.constexpr(64)
PIECES = gl.constexpr(7)
ROPE = gl.constexpr(64)
NOPE = gl.constexpr(PIECES.value * BLOCK.value)
WIDTH = gl.constexpr(NOPE.value + ROPE.value)
WARPS = gl.constexpr(8)
FETCHING_WARPS = gl.constexpr(4)
FETCHING_REGISTERS = gl.constexpr(136)
ROWS = gl.constexpr(32)
"""Gathered at a time. H100, 2026-11-26, 1,024 tokens, us for 384, 136 and 128 keys in the mean:
32 rows 226 / 153 / 132, 16 rows in 104 registers 252 / 159 / 135, triton 625 / 327 / 224.
"""


@gluon.jit
def rows_of(
    start, end, window_rows, pages, selected, EDGE: gl.constexpr, WINDOW: gl.constexpr,
    PAGE: gl.constexpr, TOPK: gl.constexpr, COMPRESSED: gl.constexpr, LAYOUT: gl.constexpr,
):  # fmt: skip
    """int32 [ROWS] rows of the keys from place start on, -1 for none. Places below EDGE are the
    window's, from EDGE to end those of entries."""
    at = start + gl.arange(0, ROWS, layout=LAYOUT)
    rows = gl.load(window_rows + at, mask=at < WINDOW, other=-1).to(gl.int32)
    if COMPRESSED:
        ok = (at >= EDGE) & (at < end)
        entry = at - EDGE
        if TOPK:
            entry = gl.load(selected + entry, mask=ok, other=-1).to(gl.int32)
            ok = entry >= 0
        page = gl.load(pages + entry // PAGE, mask=ok, other=0).to(gl.int32)
        # Triton 3.6 would take the sum for a multiple of PAGE in every place.
        rows = gl.where(ok, gl.multiple_of(page * PAGE + entry % PAGE, 1), rows)
    return rows


@gluon.jit
def fetch(base, rows, ROW: gl.constexpr, SCALE_AT: gl.constexpr, LAYOUT: gl.constexpr):
    """The packed rows in words, four codes or two bf16 values each, so that what is on its way
    takes a register a word: PIECES tiles int32 [ROWS, BLOCK / 4], int32 [ROWS, ROPE / 2], and the
    scales int64 [ROWS]. Zeros where a row is -1."""
    ok = rows >= 0
    line = gl.where(ok, rows, 0).to(gl.int64)
    inside = gl.expand_dims(ok, 1)
    words = base.to(gl.pointer_type(gl.int32), bitcast=True) + gl.expand_dims(line * (ROW // 4), 1)
    four = gl.expand_dims(gl.arange(0, BLOCK // 4, layout=gl.SliceLayout(0, LAYOUT)), 0)
    codes = ()
    for i in gl.static_range(PIECES):
        at = words + (four + i * (BLOCK // 4))
        codes = codes + (gl.load(at, mask=inside, other=0),)
    two = gl.expand_dims(gl.arange(0, ROPE // 2, layout=gl.SliceLayout(0, LAYOUT)), 0)
    rope = gl.load(words + (two + NOPE // 4), mask=inside, other=0)
    scales = base.to(gl.pointer_type(gl.int64), bitcast=True) + line * (ROW // 8) + SCALE_AT // 8
    return codes, rope, gl.load(scales, mask=ok, other=0)


@gluon.jit
def decoded(code, byte):
    """Words of four e4m3fn codes, int32 [ROWS, n], and the UE8M0 byte (int32) of each row's scale
    -> words of two bf16 values [ROWS, 2 * n].

    Two codes at a time through f16, whose bits, moved by three places, are those of a bf16 that is
    2^112 too small; a scale beyond 2^15 gives NaN as 255 does. A block that holds NaN has that
    scale, so the codes for NaN need no care of their own.
    """
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
def fetching(
    window, compressed, window_rows, pages, selected, begin, end, keys, bias, full, empty,
    EDGE: gl.constexpr, WINDOW: gl.constexpr, PAGE: gl.constexpr, TOPK: gl.constexpr,
    COMPRESSED: gl.constexpr, ROW: gl.constexpr, SCALE_AT: gl.constexpr,
):  # fmt: skip
    """What FETCHING_WARPS do: tiles of keys [2, KEYS, WIDTH], and of bias [2, KEYS]: 0, or -inf
    where there is no key. full, empty: a barrier for each of the two."""
    layout: gl.constexpr = gl.BlockedLayout([1, 2], [4, 8], [FETCHING_WARPS, 1], [1, 0])
    at: gl.constexpr = gl.SliceLayout(1, layout)
    rows = rows_of(
        begin, end, window_rows, pages, selected, EDGE, WINDOW, PAGE, TOPK, COMPRESSED, at
    )
    base = window
    if COMPRESSED:
        base = gl.where(begin < EDGE, window, compressed)
    absent = gl.where(rows >= 0, 0.0, float("-inf"))
    codes, rope, word = fetch(base, rows, ROW, SCALE_AT, layout)
    rows = rows_of(
        begin + ROWS, end, window_rows, pages, selected, EDGE, WINDOW, PAGE, TOPK, COMPRESSED, at
    )
    if COMPRESSED:
        base = gl.where(begin + ROWS < EDGE, window, compressed)
    next_absent = gl.where(rows >= 0, 0.0, float("-inf"))
    next_codes, next_rope, next_word = fetch(base, rows, ROW, SCALE_AT, layout)
    rows = rows_of(
        begin + 2 * ROWS, end, window_rows, pages, selected, EDGE, WINDOW, PAGE, TOPK, COMPRESSED,
        at,
    )  # fmt: skip
    words = keys._reinterpret(gl.int32, [2, KEYS, WIDTH // 2], gl.NVMMASharedLayout(128, 32, 2))
    turn = 0
    for start in range(begin, end, KEYS):
        tile, phase = turn & 1, (turn >> 1) & 1
        mbarrier.wait(empty.index(tile), phase ^ 1)
        for part in gl.static_range(KEYS // ROWS):
            into = words.index(tile).slice(part * ROWS, ROWS, dim=0)
            for i in gl.static_range(PIECES):
                byte = (word >> (8 * i)).to(gl.int32) & 255
                into.slice(i * (BLOCK // 2), BLOCK // 2, dim=1).store(decoded(codes[i], byte))
            into.slice(NOPE // 2, ROPE // 2, dim=1).store(rope)
            bias.index(tile).slice(part * ROWS, ROWS, dim=0).store(absent)
            codes, word, rope, absent = next_codes, next_word, next_rope, next_absent
            if COMPRESSED:
                base = gl.where(start + (part + 2) * ROWS < EDGE, window, compressed)
            next_absent = gl.where(rows >= 0, 0.0, float("-inf"))
            next_codes, next_rope, next_word = fetch(base, rows, ROW, SCALE_AT, layout)
            rows = rows_of(
                start + (part + 3) * ROWS, end, window_rows, pages, selected, EDGE, WINDOW, PAGE,
                TOPK, COMPRESSED, at,
            )  # fmt: skip
        fence_async_shared()
        gl.thread_barrier()
        mbarrier.arrive(full.index(tile), count=1)
        turn += 1  # noqa: SIM113


@gluon.jit
def multiplying(
    q, out, part_o, part_m, part_l, sink, angles, first, num_heads, place, scale, eps, split,
    begin, end, entries, queries, keys, bias, chance, full, empty, SPAN: gl.constexpr,
    NORM: gl.constexpr,
):  # fmt: skip
    """What WARPS do: the queries at q, all tiles of keys, and the outputs at out, or the partial
    sums at `place` of a token of more than SPAN entries."""
    score: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 2], [16, KEYS // 2, 16])
    value: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 2], [16, WIDTH // 2, 16])
    put_queries(queries, q, num_heads - first, angles, eps, NORM)
    head = first + gl.arange(0, HEADS, layout=gl.SliceLayout(1, score))
    in_heads = head < num_heads
    m = gl.load(sink + head, mask=in_heads, other=0.0) * LOG2E
    total = gl.full([HEADS], 0.0, gl.float32, gl.SliceLayout(1, score))
    if split == 0:
        total += 1.0  # the sink's own share
    o = gl.full([HEADS, WIDTH], 0.0, gl.float32, value)
    zero = gl.full([HEADS, KEYS], 0.0, gl.float32, score)
    fence_async_shared()
    turn = 0
    for _ in range(begin, end, KEYS):
        tile, phase = turn & 1, (turn >> 1) & 1
        mbarrier.wait(full.index(tile), phase)
        now = keys.index(tile)
        s = warpgroup_mma(queries, now.permute((1, 0)), zero, use_acc=False, is_async=True)
        absent = bias.index(tile).load(gl.SliceLayout(0, score))
        s = warpgroup_mma_wait(0, [s])
        s = s * scale + gl.expand_dims(absent, 0)
        m_next = gl.maximum(m, gl.max(s, 1))
        keep = gl.exp2(m - m_next)
        p = gl.exp2(s - gl.expand_dims(m_next, 1))
        total = total * keep + gl.sum(p, 1)
        m = m_next
        chance.store(p.to(gl.bfloat16))
        o = o * gl.expand_dims(gl.convert_layout(keep, gl.SliceLayout(1, value)), 1)
        fence_async_shared()
        o = warpgroup_mma(chance, now, o, is_async=True)
        o = warpgroup_mma_wait(0, [o])
        gl.thread_barrier()
        mbarrier.arrive(empty.index(tile), count=1)
        turn += 1  # noqa: SIM113
    if entries > SPAN:
        row = gl.arange(0, HEADS, layout=gl.SliceLayout(1, value))
        column = gl.arange(0, WIDTH, layout=gl.SliceLayout(0, value))
        at = part_o + place * WIDTH + (gl.expand_dims(row * WIDTH, 1) + gl.expand_dims(column, 0))
        gl.store(at, o, mask=gl.expand_dims(row < num_heads - first, 1))
        gl.store(part_m + place - first + head, m, mask=in_heads)
        gl.store(part_l + place - first + head, total, mask=in_heads)
    else:
        share = gl.convert_layout(1.0 / total, gl.SliceLayout(1, value))
        done = turned(o * gl.expand_dims(share, 1), angles, -1.0, HEADS)
        queries.store(gl.convert_layout(done, value).to(out.dtype.element_ty))
        put_rows(queries, out, num_heads - first)


@gluon.jit
def turned(x, angles, sign, ROWS: gl.constexpr):
    """x float32 [ROWS, WIDTH] with its last ROPE values turned by the angles (float32 [ROPE] at
    the pointer) times sign."""
    a, b = gl.split(gl.reshape(x, [ROWS, WIDTH // 2, 2]))
    pair = gl.arange(0, WIDTH // 2, layout=gl.SliceLayout(0, a.type.layout)) - NOPE // 2
    turns = pair >= 0
    cos = gl.expand_dims(gl.load(angles + pair, mask=turns, other=1.0), 0)
    sin = gl.expand_dims(gl.load(angles + ROPE // 2 + pair, mask=turns, other=0.0), 0) * sign
    turns = gl.expand_dims(turns, 0)
    c = gl.where(turns, a * cos - b * sin, a)
    d = gl.where(turns, b * cos + a * sin, b)
    return gl.reshape(gl.join(c, d), [ROWS, WIDTH])


@gluon.jit
def put_queries(into, q, heads_left, angles, eps, NORM: gl.constexpr):
    """The HEADS queries at q into shared memory [HEADS, WIDTH]; zeros beyond the last."""
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [1, 32], [WARPS, 1], [1, 0])
    head = gl.arange(0, HEADS, layout=gl.SliceLayout(1, layout))
    column = gl.arange(0, WIDTH, layout=gl.SliceLayout(0, layout))
    at = q + (gl.expand_dims(head * WIDTH, 1) + gl.expand_dims(column, 0))
    x = gl.load(at, mask=gl.expand_dims(head < heads_left, 1), other=0.0)
    if NORM:
        wide = x.to(gl.float32)
        squares = gl.sum(wide * wide, 1)
        wide = wide * gl.expand_dims(1.0 / gl.sqrt_rn(squares / WIDTH + eps), 1)
        x = gl.convert_layout(turned(wide, angles, 1.0, HEADS), layout).to(gl.bfloat16)
    into.store(x)


@gluon.jit
def put_rows(staged, into, heads_left):
    """Shared memory [HEADS, WIDTH] to the rows at into."""
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [1, 32], [WARPS, 1], [1, 0])
    head = gl.arange(0, HEADS, layout=gl.SliceLayout(1, layout))
    column = gl.arange(0, WIDTH, layout=gl.SliceLayout(0, layout))
    at = into + (gl.expand_dims(head * WIDTH, 1) + gl.expand_dims(column, 0))
    gl.store(at, staged.load(layout), mask=gl.expand_dims(head < heads_left, 1))


@gluon.jit(do_not_specialize=["num_heads", "table_width", "num_splits"])
def attend_gluon_kernel(
    q, window, compressed, sink, cos_sin, window_rows, table, sequence, visible, selected,
    out, part_o, part_m, part_l, scale, eps, num_heads, table_width, num_splits,
    ROW: gl.constexpr, SCALE_AT: gl.constexpr, WINDOW: gl.constexpr, PAGE: gl.constexpr,
    TOPK: gl.constexpr, COMPRESSED: gl.constexpr, NORM: gl.constexpr, SPAN: gl.constexpr,
):  # fmt: skip
    """Arguments and grid of attend_kernel; rows of NOPE e4m3fn codes in blocks of BLOCK, and ROPE
    bf16 values."""
    tile: gl.constexpr = gl.NVMMASharedLayout(128, 16, 2)
    flat: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    EDGE: gl.constexpr = (WINDOW + KEYS - 1) // KEYS * KEYS
    t, split = gl.program_id(0).to(gl.int64), gl.program_id(1)
    entries = num_splits - 1  # of a window alone; as a constant 0 Triton 3.6 fails to compile
    pages = table
    if COMPRESSED:
        entries = gl.load(visible + t).to(gl.int32)
        pages = table + gl.load(sequence + t) * table_width
        if TOPK:
            entries = gl.minimum(entries, TOPK)
    if (split > 0) & (split * SPAN >= entries):
        return
    first = gl.program_id(2) * HEADS
    begin = gl.where(split == 0, 0, EDGE + split * SPAN)
    end = EDGE + gl.minimum(entries, (split + 1) * SPAN)
    queries = gl.allocate_shared_memory(gl.bfloat16, [HEADS, WIDTH], tile)
    keys = gl.allocate_shared_memory(gl.bfloat16, [2, KEYS, WIDTH], tile)
    chance = gl.allocate_shared_memory(gl.bfloat16, [HEADS, KEYS], tile)
    bias = gl.allocate_shared_memory(gl.float32, [2, KEYS], flat)
    full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    for i in gl.static_range(2):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=1)
    at = (t * num_heads + first) * WIDTH
    gl.warp_specialize(
        [
            (
                multiplying,
                (
                    q + at, out + at, part_o, part_m, part_l, sink, cos_sin + t * ROPE, first,
                    num_heads, (t * num_splits + split) * num_heads + first, scale, eps, split,
                    begin, end, entries, queries, keys, bias, chance, full, empty, SPAN, NORM,
                ),
            ),
            (
                fetching,
                (
                    window, compressed, window_rows + t * WINDOW, pages, selected + t * TOPK,
                    begin, end, keys, bias, full, empty, EDGE, WINDOW, PAGE, TOPK, COMPRESSED,
                    ROW, SCALE_AT,
                ),
            ),
        ],
        [FETCHING_WARPS],
        [FETCHING_REGISTERS],
    )  # fmt: skip
