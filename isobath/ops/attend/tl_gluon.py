"""attend's kernel for sm_90 in Gluon, Triton's language of explicit layouts and shared memory.

A program is a compute unit's: it takes items (tl_gluon_keys.py) one after the other, so that the
beginning and the end of one lie under the keys of another. Four warps do nothing but gather packed
rows, decode them and leave them, 64 keys at a time, in one of two tiles of shared memory. Eight
warps multiply: a tile serves transposed for the scores of 64 heads and as it is for the output.
Their two warp groups halve the keys of the scores and the values of the output. The next item's
queries come while the output of one leaves, both by the tensor memory accelerator.

Queries are taken as they lie there: the norm's factor is one number a head and multiplies its
scores; only the rotated part is rounded again.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)

from isobath.ops.attend.tl_gluon_keys import (
    BLOCK,
    FETCHING_REGISTERS,
    FETCHING_WARPS,
    KEYS,
    NOPE,
    PIECES,
    ROPE,
    WIDTH,
    entries_of,
    fetching,
    places_of,
)

LOG2E = gl.constexpr(1.4426950408889634)
HEADS = gl.constexpr(64)
"""Of a program: the rows of a matrix instruction."""
WARPS = gl.constexpr(8)
PART = gl.constexpr(128)
"""Values of an accumulator, and of what is stored at once."""
PARTS = gl.constexpr(WIDTH.value // PART.value)
STAGED = gl.constexpr(gl.NVMMASharedLayout(128, 16, 3))
"""Of queries [1, HEADS, WIDTH] and outputs [1, HEADS, PART] as they come and go."""
TILE = gl.constexpr(gl.NVMMASharedLayout(128, 16, 2))


@gluon.jit
def weighted(x, by_row):
    """x [HEADS, n] times a number a row, whatever its layout."""
    return x * gl.expand_dims(gl.convert_layout(by_row, gl.SliceLayout(1, x.type.layout)), 1)


@gluon.jit
def by_thread(p):
    """p [HEADS, KEYS] in the layout of scores -> sums [HEADS, 2, 4] of what each thread has of a
    row: pairs in each of KEYS / 16 groups of 8, by warp group and by lane of four."""
    return gl.sum(gl.sum(gl.reshape(p, [HEADS, 2, KEYS // 16, 4, 2]), 4), 2)


@gluon.jit
def spread(by_row, like):
    """[HEADS] -> [HEADS, 1, 1] in the layout of like."""
    row = gl.convert_layout(by_row, gl.SliceLayout(1, gl.SliceLayout(2, like.type.layout)))
    return gl.expand_dims(gl.expand_dims(row, 1), 2)


@gluon.jit
def turned(x, angles, sign):
    """x float32 [HEADS, n]; its last ROPE values turned by angles times sign. angles: float32
    [2 * ROPE] in shared memory: ROPE / 2 ones and the cosines, as many zeros and the sines."""
    HALF: gl.constexpr = x.shape[1] // 2
    a, b = gl.split(gl.reshape(x, [HEADS, HALF, 2]))
    pair: gl.constexpr = gl.SliceLayout(0, a.type.layout)
    cos = gl.expand_dims(angles.slice(ROPE - HALF, HALF).load(pair), 0)
    sin = gl.expand_dims(angles.slice(2 * ROPE - HALF, HALF).load(pair), 0) * sign
    turned_pairs = gl.join(a * cos - b * sin, b * cos + a * sin)
    return gl.convert_layout(gl.reshape(turned_pairs, [HEADS, 2 * HALF]), x.type.layout)


@gluon.jit
def ask(item, num_items, num_tokens, first, q, cos_sin, staged, angles, arrived):
    """Ask for an item's queries, if there is one, and for the angles of its token."""
    t = item % num_tokens
    if item < num_items:
        mbarrier.expect(arrived, HEADS * WIDTH * 2)
        tma.async_copy_global_to_shared(q, [t, first, 0], arrived, staged)
    pair = gl.arange(0, ROPE // 2, layout=gl.BlockedLayout([1], [32], [WARPS], [0]))
    line = cos_sin + gl.cast(t, gl.int64) * ROPE + pair
    ok = pair < ROPE
    async_copy.async_copy_global_to_shared(angles.slice(ROPE // 2, ROPE // 2), line, mask=ok)
    line += ROPE // 2
    async_copy.async_copy_global_to_shared(angles.slice(3 * ROPE // 2, ROPE // 2), line, mask=ok)
    async_copy.commit_group()


@gluon.jit
def normed(queries, angles, eps, NORM: gl.constexpr):
    """float32 [HEADS], the norm's factors; turns the last ROPE values of queries where they lie."""
    layout: gl.constexpr = gl.BlockedLayout([1, 8], [4, 8], [WARPS, 1], [1, 0])
    factor = gl.full([HEADS], 1.0, gl.float32, gl.SliceLayout(1, layout))
    if NORM:
        last = queries.slice(NOPE, ROPE, dim=1)
        x = last.load(layout).to(gl.float32)
        squares = x * x
        last.store(turned(x, angles, 1.0).to(gl.bfloat16))
        for i in gl.static_range(PIECES):
            x = queries.slice(i * BLOCK, BLOCK, dim=1).load(layout).to(gl.float32)
            squares = gl.fma(x, x, squares)
        factor = 1.0 / gl.sqrt_rn(gl.sum(squares, 1) / WIDTH + eps)
    return factor


@gluon.jit
def put_sums(x, into, heads_left):
    """x [HEADS, n] to the rows of WIDTH values at into."""
    layout: gl.constexpr = x.type.layout
    row = gl.arange(0, HEADS, layout=gl.SliceLayout(1, layout))
    column = gl.arange(0, x.shape[1], layout=gl.SliceLayout(0, layout))
    at = into + (gl.expand_dims(row * WIDTH, 1) + gl.expand_dims(column, 0))
    gl.store(at, x, mask=gl.expand_dims(row < heads_left, 1))


@gluon.jit
def put_outputs(outs, total, angles, staged, out, t, first):
    """The outputs, divided and turned back, to token t; no head beyond the last is written."""
    share = 1.0 / total
    for i in gl.static_range(PARTS):
        done = weighted(outs[i], share)
        if i == PARTS - 1:
            done = turned(done, angles, -1.0)
        tma.store_wait(0)
        gl.thread_barrier()
        staged._reinterpret(gl.bfloat16, [HEADS, PART], TILE).store(done.to(gl.bfloat16))
        fence_async_shared()
        gl.thread_barrier()
        tma.async_copy_shared_to_global(out, [t, first, i * PART], staged)


@gluon.jit
def multiplying(
    q, out, part_o, part_m, part_l, sink, cos_sin, visible, scale, eps, num_tokens, num_splits,
    num_heads, first, staged, keys, bias, chance, staged_out, angles, arrived, full, empty,
    EDGE: gl.constexpr, SPAN: gl.constexpr, NORM: gl.constexpr, TOPK: gl.constexpr,
    COMPRESSED: gl.constexpr, SPLIT: gl.constexpr,
):  # fmt: skip
    """What WARPS do: the queries of an item, all its tiles of keys, and the outputs, or the partial
    sums of a token of more than SPAN entries."""
    score: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 2], [16, KEYS // 2, 16])
    value: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 2], [16, PART // 2, 16])
    queries = staged._reinterpret(gl.bfloat16, [HEADS, WIDTH], TILE)
    head = first + gl.arange(0, HEADS, layout=gl.SliceLayout(1, score))
    in_heads = head < num_heads
    sinks = gl.load(sink + head, mask=in_heads, other=0.0) * LOG2E
    plain: gl.constexpr = gl.BlockedLayout([1], [32], [WARPS], [0])
    for i in gl.static_range(2):
        ones = gl.full([ROPE // 2], 1.0, gl.float32, plain)
        angles.index(i).slice(0, ROPE // 2).store(ones)
        angles.index(i).slice(ROPE, ROPE // 2).store(ones - 1.0)
    item, step = gl.program_id(0), gl.num_programs(0)
    num_items = num_tokens * num_splits
    ask(item, num_items, num_tokens, first, q, cos_sin, staged, angles.index(0), arrived)
    next_entries = entries_of(item, num_tokens, num_splits, visible, TOPK, COMPRESSED)
    turn = 0
    half = 0
    for item in range(gl.program_id(0), num_items, gl.num_programs(0)):
        t, split, entries = item % num_tokens, item // num_tokens, next_entries
        next_entries = entries_of(item + step, num_tokens, num_splits, visible, TOPK, COMPRESSED)
        begin, end = places_of(split, entries, EDGE, SPAN)
        mine, others = angles.index(half), angles.index(half ^ 1)
        async_copy.wait_group(0)
        mbarrier.wait(arrived, half)
        gl.thread_barrier()
        if begin < end:
            factor = gl.convert_layout(
                scale * normed(queries, mine, eps, NORM), gl.SliceLayout(1, score)
            )
            m = sinks
            alone = gl.full([HEADS], 0.0, gl.float32, gl.SliceLayout(1, score))
            if split == 0:
                alone += 1.0  # the sink's own share
            totals = by_thread(gl.full([HEADS, KEYS], 0.0, gl.float32, score))
            outs = ()
            for _ in gl.static_range(PARTS):
                outs = outs + (gl.full([HEADS, PART], 0.0, gl.float32, value),)
            zero = gl.full([HEADS, KEYS], 0.0, gl.float32, score)
            fence_async_shared()
            for _ in range(begin, end, KEYS):
                tile, phase = turn & 1, (turn >> 1) & 1
                mbarrier.wait(full.index(tile), phase)
                now = keys.index(tile)
                s = warpgroup_mma(queries, now.permute((1, 0)), zero, use_acc=False, is_async=True)
                absent = bias.index(tile).load(gl.SliceLayout(0, score))
                s = warpgroup_mma_wait(0, [s])
                s = s * gl.expand_dims(factor, 1) + gl.expand_dims(absent, 0)
                m_next = gl.maximum(m, gl.max(s, 1))
                keep = gl.exp2(m - m_next)
                p = gl.exp2(s - gl.expand_dims(m_next, 1))
                alone = alone * keep
                totals = totals * spread(keep, totals) + by_thread(p)
                m = m_next
                chance.store(p.to(gl.bfloat16))
                kept = ()
                for i in gl.static_range(PARTS):
                    kept = kept + (weighted(outs[i], keep),)
                fence_async_shared()
                outs = ()
                for i in gl.static_range(PARTS):
                    values = now.slice(i * PART, PART, dim=1)
                    outs = outs + (warpgroup_mma(chance, values, kept[i], is_async=True),)
                outs = warpgroup_mma_wait(0, outs)
                gl.thread_barrier()
                mbarrier.arrive(empty.index(tile), count=1)
                turn += 1
            ask(item + step, num_items, num_tokens, first, q, cos_sin, staged, others, arrived)
            total = alone + gl.convert_layout(gl.sum(gl.sum(totals, 2), 1), alone.type.layout)
            if SPLIT:
                if entries > SPAN:
                    at = (gl.cast(t, gl.int64) * num_splits + split) * num_heads + first
                    for i in gl.static_range(PARTS):
                        put_sums(outs[i], part_o + at * WIDTH + i * PART, num_heads - first)
                    gl.store(part_m + at - first + head, m, mask=in_heads)
                    gl.store(part_l + at - first + head, total, mask=in_heads)
                else:
                    put_outputs(outs, total, mine, staged_out, out, t, first)
            else:
                put_outputs(outs, total, mine, staged_out, out, t, first)
        else:
            ask(item + step, num_items, num_tokens, first, q, cos_sin, staged, others, arrived)
        half ^= 1


@gluon.jit(do_not_specialize=["num_tokens", "num_splits", "num_heads", "table_width"])
def attend_gluon_kernel(
    q, window, compressed, sink, cos_sin, window_rows, table, sequence, visible, selected,
    out, part_o, part_m, part_l, scale, eps, num_tokens, num_splits, num_heads, table_width,
    ROW: gl.constexpr, SCALE_AT: gl.constexpr, WINDOW: gl.constexpr, PAGE: gl.constexpr,
    TOPK: gl.constexpr, COMPRESSED: gl.constexpr, NORM: gl.constexpr, SPAN: gl.constexpr,
    EDGE: gl.constexpr, SPLIT: gl.constexpr,
):  # fmt: skip
    """Arguments of attend_kernel, but for q and out, which are descriptors of [T, H, WIDTH] in
    blocks of [1, HEADS, WIDTH] and [1, HEADS, PART]; rows of NOPE e4m3fn codes in blocks of BLOCK,
    and ROPE bf16 values. EDGE: WINDOW in whole tiles, a power of two. SPLIT: num_splits is more
    than one. Grid: programs, at most one for each of num_tokens * num_splits, times blocks of
    HEADS."""
    flat: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    staged = gl.allocate_shared_memory(gl.bfloat16, [1, HEADS, WIDTH], STAGED)
    keys = gl.allocate_shared_memory(gl.bfloat16, [2, KEYS, WIDTH], TILE)
    chance = gl.allocate_shared_memory(gl.bfloat16, [HEADS, KEYS], TILE)
    staged_out = gl.allocate_shared_memory(gl.bfloat16, [1, HEADS, PART], STAGED)
    bias = gl.allocate_shared_memory(gl.float32, [2, KEYS], flat)
    near = gl.allocate_shared_memory(gl.int32, [2, EDGE], flat)
    far = gl.allocate_shared_memory(gl.int32, [2, SPAN], flat)
    angles = gl.allocate_shared_memory(gl.float32, [2, 2 * ROPE], flat)
    arrived = gl.allocate_shared_memory(gl.int64, [1], mbarrier.MBarrierLayout())
    full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    empty = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    mbarrier.init(arrived, count=1)
    for i in gl.static_range(2):
        mbarrier.init(full.index(i), count=1)
        mbarrier.init(empty.index(i), count=1)
    gl.warp_specialize(
        [
            (
                multiplying,
                (
                    q, out, part_o, part_m, part_l, sink, cos_sin, visible, scale, eps, num_tokens,
                    num_splits, num_heads, gl.program_id(1) * HEADS, staged, keys, bias, chance,
                    staged_out, angles, arrived, full, empty, EDGE, SPAN, NORM, TOPK, COMPRESSED,
                    SPLIT,
                ),
            ),
            (
                fetching,
                (
                    window, compressed, window_rows, table, sequence, visible, selected,
                    table_width, num_tokens, num_splits, keys, bias, near, far, full, empty, EDGE,
                    WINDOW, PAGE, TOPK, COMPRESSED, ROW, SCALE_AT, SPAN,
                ),
            ),
        ],
        [FETCHING_WARPS],
        [FETCHING_REGISTERS],
    )  # fmt: skip
