"""attend on a GPU: one program a token, its heads the rows of a matrix product.

A program gathers packed rows, decodes them to bf16 once for all heads (exactly: an FP8 code times a
power of two has four bits) and uses them as keys and values. Queries are normed and rotated as they
are read, outputs turned back as they are written.

Tiles have power-of-two extents, an FP8 part of 448 values has not: a row comes in pieces of a half,
a quarter, ... of its width, the last of them the bf16 part, and the pieces are joined value by
value, which moves nothing between threads. A product does not mind the order of its columns, so
queries are joined alike and outputs taken apart again.

A token's keys are its window, then its entries in ascending order. A program takes the window and
the first SPAN entries; each further SPAN of them are another program's, which leaves its sums in
float32, and a second kernel adds them up in order. How many there are follows from the token's own
number of entries alone, so neither the batch nor the table's width changes a bit of a result.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from isobath.cache.layout import RowLayout
from isobath.cache.view import CacheView, Pages
from isobath.errors import BackendUnavailable
from isobath.numerics.dialect import FNUZ, Dialect
from isobath.ops.tl_common import fp8_of, pow2, target_of, turn, ue8m0_decode

LOG2E = tl.constexpr(1.4426950408889634)


@dataclass(frozen=True, slots=True)
class Tile:
    """keys: of one step of the loop. warps, stages: of the launch. reload: put the finished queries
    into `out` and read them back, so that they reach the product through shared memory and not
    through registers. spread: give each warp group keys of its own in the first product."""

    keys: int
    warps: int
    stages: int
    reload: bool
    spread: bool


TILES = {
    # Triton 3.6, ptxas 12.8: without reload 928 bytes spill a thread, without spread both warp
    # groups compute the same scores (128 wgmma for 64 in a tile of 64 keys).
    "cuda": Tile(64, 8, 3, True, True),
    # Triton 3.6: 32 keys spill registers, 16 do not and fill the 64 KiB of LDS.
    "hip": Tile(16, 8, 1, False, False),
    "cpu": Tile(64, 4, 1, True, True),
}
NARROW = Tile(16, 4, 1, False, False)
"""For up to 16 heads and for plain rows."""
HEADS = 64
"""Most heads of one program."""
SPAN = 512
"""Compressed entries of one program: all that are ever selected. Part of the order of sums."""
PARTIAL_BYTES = 256 << 20
"""Bound on the float32 sums of one launch; more tokens go in several launches."""


@triton.jit
def _decoded(code, FP8: tl.constexpr):
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
def _piece(
    base, rows, ok, START: tl.constexpr, SIZE: tl.constexpr, ROW: tl.constexpr,
    BLOCK: tl.constexpr, SCALE_AT: tl.constexpr, FP8: tl.constexpr, PLAIN: tl.constexpr,
):  # fmt: skip
    """[keys, SIZE] values from START on, of the FP8 part: bf16, or float32 of plain rows."""
    column = START + tl.arange(0, SIZE)
    if PLAIN:
        plain = base.to(tl.pointer_type(tl.float32), bitcast=True)
        at = rows[:, None].to(tl.int64) * (ROW // 4) + column[None, :]
        value = tl.load(plain + at, mask=ok[:, None], other=0.0)
    else:
        GROUPS: tl.constexpr = SIZE // BLOCK if SIZE > BLOCK else 1
        at = rows[:, None].to(tl.int64) * ROW + column[None, :]
        code = tl.load(base + at, mask=ok[:, None], other=0)
        value = tl.reshape(_decoded(code, FP8), [rows.shape[0], GROUPS, SIZE // GROUPS])
        FIRST: tl.constexpr = SCALE_AT + START // BLOCK
        group = tl.arange(0, GROUPS)
        # Words, which a copy past the registers can fetch, and of another size for each piece: a
        # load that two pieces share stops Triton 3.6 with an internal error.
        if GROUPS > 1 and (ROW | FIRST) % 4 == 0:
            words = base.to(tl.pointer_type(tl.int32), bitcast=True)
            word = tl.load(words + (rows.to(tl.int64) * (ROW // 4) + FIRST // 4), mask=ok, other=0)
            byte = (word[:, None] >> (8 * group)[None, :]) & 255
        elif GROUPS == 1 and ROW % 8 == 0:
            words = base.to(tl.pointer_type(tl.int64), bitcast=True)
            word = tl.load(words + (rows.to(tl.int64) * (ROW // 8) + FIRST // 8), mask=ok, other=0)
            byte = (word >> (8 * (FIRST % 8))).to(tl.int32)[:, None] & 255
        else:
            at = rows.to(tl.int64)[:, None] * ROW + (FIRST + group)[None, :]
            byte = tl.load(base + at, mask=ok[:, None], other=0).to(tl.int32)
        value = tl.reshape(value * ue8m0_decode(byte)[:, :, None], [rows.shape[0], SIZE])
        # Towards zero: exact here, and one instruction for two values.
        value = tl.cast(value, tl.bfloat16, fp_downcast_rounding="rtz")
    return value


@triton.jit
def _pair(a, b):
    """Join two [n, m] tiles value by value: [n, 2 m]."""
    return tl.reshape(tl.join(a, b), [a.shape[0], 2 * a.shape[1]])


@triton.jit
def _part(x):
    """The inverse of _pair."""
    return tl.split(tl.reshape(x, [x.shape[0], x.shape[1] // 2, 2]))


@triton.jit
def _keys(
    base, rows, ok, WIDTH: tl.constexpr, ROPE: tl.constexpr, ROW: tl.constexpr,
    BLOCK: tl.constexpr, SCALE_AT: tl.constexpr, FP8: tl.constexpr, PLAIN: tl.constexpr,
):  # fmt: skip
    """[keys, WIDTH] decoded rows, their pieces joined; zeros where not ok."""
    KIND: tl.constexpr = tl.float32 if PLAIN else tl.bfloat16
    AT: tl.constexpr = WIDTH - ROPE if PLAIN else (WIDTH - ROPE) // 2
    STEP: tl.constexpr = ROW // 4 if PLAIN else ROW // 2
    half: tl.constexpr = WIDTH // 2
    first = _piece(base, rows, ok, 0, half, ROW, BLOCK, SCALE_AT, FP8, PLAIN)
    second = _piece(base, rows, ok, half, half // 2, ROW, BLOCK, SCALE_AT, FP8, PLAIN)
    typed = base.to(tl.pointer_type(KIND), bitcast=True)
    at = rows[:, None].to(tl.int64) * STEP + (AT + tl.arange(0, ROPE))[None, :]
    if WIDTH // 8 == ROPE:
        size: tl.constexpr = WIDTH // 8
        third = _piece(base, rows, ok, 6 * size, size, ROW, BLOCK, SCALE_AT, FP8, PLAIN)
        rest = tl.load(typed + at, mask=ok[:, None], other=0.0)
        rest = _pair(third, rest)
    else:
        rest = tl.load(typed + at, mask=ok[:, None], other=0.0)
    return _pair(first, _pair(second, rest))


@triton.jit
def _turned(x, cos_sin, sign, ROPE: tl.constexpr):
    """x [heads, ROPE] turned by the angles at cos_sin (float32 [ROPE]) times sign."""
    half = tl.arange(0, ROPE // 2)
    cos, sin = tl.load(cos_sin + half), tl.load(cos_sin + ROPE // 2 + half) * sign
    a, b = _part(x)
    a, b = turn(a, b, cos[None, :], sin[None, :])
    return _pair(a, b)


@triton.jit
def _queries(
    line, heads, ok, cos_sin, eps, WIDTH: tl.constexpr, ROPE: tl.constexpr, NORM: tl.constexpr
):
    """[heads, WIDTH] of one token in line's dtype, normed and rotated if NORM, pieces joined."""
    kind: tl.constexpr = line.dtype.element_ty
    at = line + heads[:, None] * WIDTH
    half: tl.constexpr = WIDTH // 2
    x = tl.load(at + tl.arange(0, WIDTH)[None, :], mask=ok[:, None], other=0.0).to(tl.float32)
    factor = tl.full([heads.shape[0], 1], 1.0, tl.float32)
    if NORM:
        factor = (1.0 / tl.sqrt_rn(tl.sum(x * x, 1) / WIDTH + eps))[:, None]
    rest = tl.load(at + (WIDTH - ROPE + tl.arange(0, ROPE))[None, :], mask=ok[:, None], other=0.0)
    rest = rest.to(tl.float32) * factor
    if NORM:
        rest = _turned(rest, cos_sin, 1.0, ROPE)
    if WIDTH // 8 == ROPE:
        column = WIDTH - 2 * ROPE + tl.arange(0, ROPE)
        third = tl.load(at + column[None, :], mask=ok[:, None], other=0.0).to(tl.float32)
        rest = _pair(third * factor, rest)
    column = half + tl.arange(0, half // 2)
    second = tl.load(at + column[None, :], mask=ok[:, None], other=0.0).to(tl.float32) * factor
    column = tl.arange(0, half)
    first = tl.load(at + column[None, :], mask=ok[:, None], other=0.0).to(tl.float32) * factor
    return _pair(first.to(kind), _pair(second.to(kind), rest.to(kind)))


@triton.jit
def _put(line, x, heads, ok, cos_sin, TURN: tl.constexpr, WIDTH: tl.constexpr, ROPE: tl.constexpr):
    """Take [heads, WIDTH] apart and store it at line; TURN: rotate back first."""
    kind: tl.constexpr = line.dtype.element_ty
    at = line + heads[:, None] * WIDTH
    half: tl.constexpr = WIDTH // 2
    first, rest = _part(x)
    tl.store(at + tl.arange(0, half)[None, :], first.to(kind), mask=ok[:, None])
    second, rest = _part(rest)
    column = half + tl.arange(0, half // 2)
    tl.store(at + column[None, :], second.to(kind), mask=ok[:, None])
    if WIDTH // 8 == ROPE:
        third, rest = _part(rest)
        column = WIDTH - 2 * ROPE + tl.arange(0, ROPE)
        tl.store(at + column[None, :], third.to(kind), mask=ok[:, None])
    if TURN:
        rest = _turned(rest, cos_sin, -1.0, ROPE)
    column = WIDTH - ROPE + tl.arange(0, ROPE)
    tl.store(at + column[None, :], rest.to(kind), mask=ok[:, None])


@triton.jit
def _step(m, total, o, query, keys, ok, scale, num_heads, SPREAD: tl.constexpr):
    """One tile of keys: base-2 running maximum m, sum total and output o -> the next ones.

    m never falls below the sink's score, so it is finite.
    """
    if SPREAD:
        # Always true. Triton gives all warps the same scores when it sees that a product feeds
        # another; behind a branch it does not see it and divides the keys between warp groups.
        if num_heads > 0:
            s = tl.dot(query, tl.trans(keys), input_precision="ieee")
        else:
            s = tl.zeros([query.shape[0], keys.shape[0]], tl.float32)
    else:
        s = tl.dot(query, tl.trans(keys), input_precision="ieee")
    s = tl.where(ok[None, :], s * scale, float("-inf"))
    m_next = tl.maximum(m, tl.max(s, 1))
    keep = tl.exp2(m - m_next)
    p = tl.exp2(s - m_next[:, None])
    total = total * keep + tl.sum(p, 1)
    o = tl.dot(p.to(keys.dtype), keys, o * keep[:, None], input_precision="ieee")
    return m_next, total, o


@triton.jit
def attend_kernel(
    q, window, compressed, sink, cos_sin, window_rows, table, sequence, visible, selected,
    out, part_o, part_m, part_l, scale, eps, num_heads, table_width, num_splits,
    WIDTH: tl.constexpr, ROPE: tl.constexpr, ROW: tl.constexpr, BLOCK: tl.constexpr,
    SCALE_AT: tl.constexpr, PLAIN: tl.constexpr, WINDOW: tl.constexpr, WINDOW_FP8: tl.constexpr,
    FP8: tl.constexpr, PAGE: tl.constexpr, TOPK: tl.constexpr, COMPRESSED: tl.constexpr,
    NORM: tl.constexpr, SPAN: tl.constexpr, BH: tl.constexpr, BK: tl.constexpr,
    STAGES: tl.constexpr, RELOAD: tl.constexpr, SPREAD: tl.constexpr,
):  # fmt: skip
    """Grid (T, num_splits, blocks of BH heads). part_*: float32 [T, num_splits, H, d] and twice
    [T, num_splits, H], read only for tokens of more than SPAN entries. scale: times log2(e).

    ROW: bytes of a row. BLOCK: values of a scale. TOPK: entries in a line of selected, 0: all
    visible ones. PAGE: entries of a page.
    """
    t, split = tl.program_id(0).to(tl.int64), tl.program_id(1)
    entries = 0
    if COMPRESSED:
        entries = tl.load(visible + t).to(tl.int32)
        if TOPK:
            entries = tl.minimum(entries, TOPK)
    begin = split * SPAN
    if (split > 0) & (begin >= entries):
        return
    heads = tl.program_id(2) * BH + tl.arange(0, BH)
    in_heads = heads < num_heads
    angles, line = cos_sin + t * ROPE, out + t * num_heads * WIDTH
    query = _queries(q + t * num_heads * WIDTH, heads, in_heads, angles, eps, WIDTH, ROPE, NORM)
    if RELOAD:
        own_line = line + heads[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
        tl.store(own_line, query, mask=in_heads[:, None])
        tl.debug_barrier()
        query = tl.load(own_line, mask=in_heads[:, None], other=0.0)
    m = tl.load(sink + heads, mask=in_heads, other=0.0) * LOG2E
    total = tl.zeros([BH], tl.float32)
    if split == 0:
        total += 1.0  # the sink's own share
    o = tl.zeros([BH, WIDTH], tl.float32)
    own = tl.where(split == 0, WINDOW, 0)
    for start in tl.range(0, own, BK, num_stages=STAGES):
        at = start + tl.arange(0, BK)
        if WINDOW % BK == 0:
            rows = tl.load(window_rows + t * WINDOW + at)
        else:
            rows = tl.load(window_rows + t * WINDOW + at, mask=at < WINDOW, other=-1)
        rows = rows.to(tl.int32)
        ok = rows >= 0
        keys = _keys(window, rows, ok, WIDTH, ROPE, ROW, BLOCK, SCALE_AT, WINDOW_FP8, PLAIN)
        m, total, o = _step(m, total, o, query, keys, ok, scale, num_heads, SPREAD)
    if COMPRESSED:
        end = tl.minimum(entries, begin + SPAN)
        pages = table + tl.load(sequence + t) * table_width
        for start in tl.range(begin, end, BK, num_stages=STAGES):
            entry = start + tl.arange(0, BK)
            ok = entry < end
            if TOPK:
                entry = tl.load(selected + t * TOPK + entry, mask=ok, other=-1).to(tl.int32)
                ok = entry >= 0
            page = tl.load(pages + entry // PAGE, mask=ok, other=0).to(tl.int32)
            # 1: Triton 3.6 takes this sum for a multiple of PAGE in every place, and would
            # read rows with 16-byte loads that are not aligned.
            rows = tl.multiple_of(page * PAGE + entry % PAGE, 1)
            keys = _keys(compressed, rows, ok, WIDTH, ROPE, ROW, BLOCK, SCALE_AT, FP8, PLAIN)
            m, total, o = _step(m, total, o, query, keys, ok, scale, num_heads, SPREAD)
    if entries > SPAN:
        place = (t * num_splits + split) * num_heads
        tl.store(part_m + place + heads, m, mask=in_heads)
        tl.store(part_l + place + heads, total, mask=in_heads)
        _put(part_o + place * WIDTH, o, heads, in_heads, angles, False, WIDTH, ROPE)
    else:
        _put(line, o * (1.0 / total)[:, None], heads, in_heads, angles, True, WIDTH, ROPE)


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


def attend(
    q: torch.Tensor,
    window: CacheView,
    compressed: CacheView | None,
    sink: torch.Tensor,
    cos_sin: torch.Tensor,
    *,
    window_rows: torch.Tensor,
    pages: Pages | None,
    sequence: torch.Tensor,
    visible: torch.Tensor | None,
    selected: torch.Tensor | None,
    scale: float,
    single: bool,
    eps: float | None,
) -> torch.Tensor:
    """attend; with eps None q is taken as normed and rotated (sparse_attention)."""
    tokens, heads, width = q.shape
    dense = [q, cos_sin, window_rows, *([] if selected is None else [selected])]
    assert all(t.is_contiguous() for t in dense), [t.stride() for t in dense]
    out = torch.empty_like(q)
    if tokens == 0:
        return out
    layout, topk = window.layout, 0 if selected is None else selected.shape[1]
    entries = 0 if pages is None else topk if selected is not None else pages.capacity
    splits = max(1, -(-entries // SPAN))
    step = tokens if splits == 1 else max(1, PARTIAL_BYTES // (splits * heads * width * 4))
    size = min(step, tokens) * splits * heads if splits > 1 else 0
    part_o, part_m, part_l = q.new_empty(size * width + 2 * size, dtype=torch.float32).split(
        [size * width, size, size]
    )
    kind = target_of(q).kind
    tile = NARROW if heads <= 16 or layout.plain else TILES[kind]
    rows = min(HEADS, max(16, pow2(heads)))
    spoken = compressed.dialect if compressed else window.dialect
    for start in range(0, tokens, step):
        part = slice(start, start + step)
        count = len(q[part])
        attend_kernel[(count, splits, -(-heads // rows))](
            q[part],
            window.bytes,
            compressed.bytes if compressed else window.bytes,
            sink,
            cos_sin[part],
            window_rows[part],
            pages.table if pages else window_rows,
            sequence[part],
            visible[part] if visible is not None else sequence,
            selected[part] if selected is not None else sequence,
            out[part],
            part_o,
            part_m,
            part_l,
            scale * LOG2E.value,
            eps or 0.0,
            heads,
            pages.table.stride(0) if pages else 0,
            splits,
            **_geometry(layout),
            WINDOW=window_rows.shape[1],
            WINDOW_FP8=_fp8(window.dialect, kind),
            FP8=_fp8(spoken, kind),
            PAGE=pages.page_rows if pages else 1,
            TOPK=topk,
            COMPRESSED=compressed is not None,
            NORM=eps is not None,
            SPAN=SPAN,
            BH=rows,
            BK=tile.keys,
            STAGES=tile.stages,
            RELOAD=tile.reload,
            SPREAD=tile.spread,
            num_warps=tile.warps,
        )
        if splits > 1:
            assert visible is not None
            attend_merge_kernel[(count, heads)](
                out[part],
                part_o,
                part_m,
                part_l,
                cos_sin[part],
                visible[part],
                heads,
                splits,
                TOPK=topk,
                SPAN=SPAN,
                WIDTH=width,
                ROPE=layout.rope,
                BD=pow2(width),
                num_warps=1,
            )
    return out


def _fp8(dialect: Dialect, kind: str) -> object:
    """attend_kernel's FP8 of a dialect: Triton has no FNUZ type for NVIDIA's GPUs."""
    return None if kind == "cuda" and dialect == FNUZ else fp8_of(dialect)["FP8"]


def _geometry(layout: RowLayout) -> dict[str, int | bool]:
    """What a kernel needs to know of a row, as its constexpr arguments.

    Raises BackendUnavailable for a row that does not fall into the pieces, or whose pieces do not
    hold whole blocks of a scale or lie within one.
    """
    width, rope, block = layout.width, layout.rope, layout.quant_block
    pieces = {4: (width // 2, width // 4), 8: (width // 2, width // 4, width // 8)}
    sizes = pieces.get(width // rope if rope else 0, ())
    blocks = all(size % block == 0 for size in sizes) or block >= layout.nope
    if pow2(width) != width or rope < 16 or width % rope or not sizes or not blocks:
        raise BackendUnavailable(
            f"attend: rows of {layout.nope} + {rope} values with a scale for {block}",
            found="the kernel reads halves, quarters and eighths of a row, whole blocks in each",
            effect="it could not lay its tiles over the row",
            do="bind attend to another backend",
        )
    return {
        "WIDTH": width,
        "ROPE": rope,
        "ROW": layout.row_bytes,
        "BLOCK": block,
        "SCALE_AT": layout.scale_offset,
        "PLAIN": layout.plain,
    }
