"""attend's two kernels: a token's attention, and the sum over the parts of a long one.

A program takes a token and up to 64 heads, the rows of its matrix products. It gathers packed rows,
decodes them once for all heads and uses them as keys and values. Queries are taken as they lie
there: the norm's factor is one number a head and multiplies its scores; only the rotated part is
rounded again. Outputs are turned back as they are written.
"""

import triton
import triton.language as tl

from isobath.ops.attend.tl_attend import put_piece, query_piece, rows_at, step, turned
from isobath.ops.tl_common import turn

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def attend_kernel(
    q, window, compressed, sink, cos_sin, window_rows, table, sequence, visible, selected,
    out, part_o, part_m, part_l, scale, eps, num_heads, table_width, num_splits,
    COUNT: tl.constexpr, SIZE: tl.constexpr,
    WIDTH: tl.constexpr, ROPE: tl.constexpr, ROW: tl.constexpr, BLOCK: tl.constexpr,
    SCALE_AT: tl.constexpr, PLAIN: tl.constexpr, WINDOW: tl.constexpr, WINDOW_FP8: tl.constexpr,
    FP8: tl.constexpr, PAGE: tl.constexpr, TOPK: tl.constexpr, COMPRESSED: tl.constexpr,
    NORM: tl.constexpr, SPAN: tl.constexpr, BH: tl.constexpr, BK: tl.constexpr,
    EK: tl.constexpr, STAGES: tl.constexpr, ONE: tl.constexpr,
):  # fmt: skip
    """Grid (T, num_splits, blocks of BH heads). part_*: float32 [T, num_splits, H, d] and twice
    [T, num_splits, H], read only for tokens of more than SPAN entries. scale: times log2(e).

    COUNT, SIZE: of the pieces of a row's FP8 part. ROW: bytes of a row. BLOCK: values of a scale.
    TOPK: entries in a line of selected, 0: all visible ones. PAGE: entries of a page. BK, EK: keys
    of a tile of the window and of entries. ONE: one loop over both, which speak one dialect.
    """
    t, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    NOPE: tl.constexpr = WIDTH - ROPE
    EDGE: tl.constexpr = (WINDOW + BK - 1) // BK * BK
    entries = 0
    pages = table
    if COMPRESSED:
        entries = tl.load(visible + t).to(tl.int32)
        pages = table + tl.load(sequence + t) * table_width
        if TOPK:
            entries = tl.minimum(entries, TOPK)
    if (split > 0) & (split * SPAN >= entries):
        return
    heads = tl.program_id(2) * BH + tl.arange(0, BH)
    in_heads = heads < num_heads
    angles = cos_sin + t * ROPE
    line = q + (t * num_heads + heads) * WIDTH
    queries = ()
    squares = tl.zeros([BH], tl.float32)
    for i in tl.static_range(COUNT):
        piece, more = query_piece(line, in_heads, i * SIZE, SIZE)
        queries += (piece,)
        squares += more
    piece, more = query_piece(line, in_heads, NOPE, ROPE)
    factor = tl.zeros([BH], tl.float32) + scale
    if NORM:
        factor = factor / tl.sqrt_rn((squares + more) / WIDTH + eps)
        piece = turned(piece.to(tl.float32), angles, 1.0, ROPE).to(q.dtype.element_ty)
    queries += (piece,)
    m = tl.load(sink + heads, mask=in_heads, other=0.0) * LOG2E
    total = tl.zeros([BH], tl.float32)
    if split == 0:
        total += 1.0  # the sink's own share
    outs = ()
    for _ in tl.static_range(COUNT):
        outs += (tl.zeros([BH, SIZE], tl.float32),)
    outs += (tl.zeros([BH, ROPE], tl.float32),)
    begin = tl.where(split == 0, 0, EDGE + split * SPAN)
    end = EDGE + tl.minimum(entries, (split + 1) * SPAN)
    if ONE:
        for start in tl.range(begin, end, BK, num_stages=STAGES):
            rows = rows_at(
                start,
                t,
                end,
                window_rows,
                pages,
                selected,
                WINDOW,
                EDGE,
                PAGE,
                TOPK,
                COMPRESSED,
                BK,
            )
            base = window
            if COMPRESSED:
                base = tl.where(start < EDGE, window, compressed)
            m, total, outs = step(
                m, total, outs, queries, factor, base, rows,
                COUNT, SIZE, ROPE, ROW, BLOCK, SCALE_AT, FP8, PLAIN,
            )  # fmt: skip
    else:
        for start in tl.range(begin, EDGE, BK, num_stages=STAGES):
            rows = rows_at(
                start, t, end, window_rows, pages, selected, WINDOW, EDGE, PAGE, TOPK, False, BK
            )
            m, total, outs = step(
                m, total, outs, queries, factor, window, rows,
                COUNT, SIZE, ROPE, ROW, BLOCK, SCALE_AT, WINDOW_FP8, PLAIN,
            )  # fmt: skip
        for start in tl.range(tl.maximum(begin, EDGE), end, EK, num_stages=STAGES):
            rows = rows_at(
                start, t, end, window_rows, pages, selected, 0, EDGE, PAGE, TOPK, True, EK
            )
            m, total, outs = step(
                m, total, outs, queries, factor, compressed, rows,
                COUNT, SIZE, ROPE, ROW, BLOCK, SCALE_AT, FP8, PLAIN,
            )  # fmt: skip
    if entries > SPAN:
        place = (t * num_splits + split) * num_heads + heads
        tl.store(part_m + place, m, mask=in_heads)
        tl.store(part_l + place, total, mask=in_heads)
        for i in tl.static_range(COUNT + 1):
            put_piece(part_o + place * WIDTH, outs[i], in_heads, i * SIZE)
    else:
        into = out + (t * num_heads + heads) * WIDTH
        share = (1.0 / total)[:, None]
        for i in tl.static_range(COUNT):
            put_piece(into, outs[i] * share, in_heads, i * SIZE)
        put_piece(into, turned(outs[COUNT] * share, angles, -1.0, ROPE), in_heads, NOPE)


@triton.jit
def attend_merge_kernel(
    out,
    part_o,
    part_m,
    part_l,
    cos_sin,
    visible,
    num_heads,
    num_splits,
    TOPK: tl.constexpr,
    SPAN: tl.constexpr,
    WIDTH: tl.constexpr,
    ROPE: tl.constexpr,
    BD: tl.constexpr,
):
    """Grid (T, H): add a head's partial sums in the order of its keys; tokens of one are left."""
    t, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    entries = tl.load(visible + t).to(tl.int32)
    if TOPK:
        entries = tl.minimum(entries, TOPK)
    if entries <= SPAN:
        return
    pair = tl.arange(0, BD // 2)
    inside = pair < WIDTH // 2
    m, total = float("-inf"), 0.0
    a, b = tl.zeros([BD // 2], tl.float32), tl.zeros([BD // 2], tl.float32)
    for split in range(tl.cdiv(entries, SPAN)):
        place = (t * num_splits + split) * num_heads + head
        m_part, l_part = tl.load(part_m + place), tl.load(part_l + place)
        m_next = tl.maximum(m, m_part)
        keep, share = tl.exp2(m - m_next), tl.exp2(m_part - m_next)
        line = part_o + place * WIDTH + 2 * pair
        a = a * keep + tl.load(line, mask=inside, other=0.0) * share
        b = b * keep + tl.load(line + 1, mask=inside, other=0.0) * share
        total = total * keep + l_part * share
        m = m_next
    angle = pair - (WIDTH - ROPE) // 2
    turning = inside & (angle >= 0)
    cos = tl.load(cos_sin + t * ROPE + angle, mask=turning, other=1.0)
    sin = tl.load(cos_sin + t * ROPE + ROPE // 2 + angle, mask=turning, other=0.0)
    a, b = turn(a / total, b / total, cos, -sin)
    line = out + (t * num_heads + head) * WIDTH + 2 * pair
    tl.store(line, a.to(out.dtype.element_ty), mask=inside)
    tl.store(line + 1, b.to(out.dtype.element_ty), mask=inside)
