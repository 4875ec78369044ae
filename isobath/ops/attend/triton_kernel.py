"""attend on a GPU: the launcher of its kernels and what it chooses, one program a token.

A token's keys are its window, then its entries in ascending order, in one loop where both caches
speak one dialect. A program takes the window and the first SPAN entries; each further SPAN of them
are another program's, which leaves its sums in float32, and a second kernel adds them up in order.
How many there are follows from the token's own number of entries alone, so neither the batch nor
the table's width changes a bit of a result.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from isobath.cache.layout import RowLayout
from isobath.cache.view import CacheView, Pages
from isobath.errors import BackendUnavailable
from isobath.numerics.dialect import FNUZ, Dialect
from isobath.ops.attend.tl_programs import LOG2E, attend_kernel, attend_merge_kernel
from isobath.ops.tl_common import fp8_of, pow2, target_of


@dataclass(frozen=True, slots=True)
class Tile:
    """keys, entry_keys: of one step of the loop, in the window (and among selected entries) and
    where all visible entries are taken. warps, stages: of the launch."""

    keys: int
    entry_keys: int
    warps: int
    stages: int


TILES = {
    "cuda": Tile(64, 64, 8, 1),
    "hip": Tile(16, 16, 4, 1),
    "cpu": Tile(64, 64, 4, 1),
}
NARROW = Tile(16, 16, 4, 1)
"""For up to 16 heads and for plain rows."""
HEADS = 64
"""Most heads of one program."""
SPAN = 512
"""Compressed entries of one program: all that are ever selected. Part of the order of sums."""
PIECE = 64
"""Most values of a piece of a row."""
PARTIAL_BYTES = 256 << 20
"""Bound on the float32 sums of one launch; more tokens go in several launches."""


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
    kind = target_of(q).kind
    layout = window.layout
    spoken = compressed.dialect if compressed else window.dialect
    heads = q.shape[1]
    tile = NARROW if heads <= 16 or layout.plain else TILES[kind]
    rows = min(HEADS, max(16, pow2(heads)))
    entry_keys = tile.entry_keys if selected is None else tile.keys
    options = {
        **_geometry(layout),
        "WINDOW_FP8": _fp8(window.dialect, kind),
        "FP8": _fp8(spoken, kind),
        "BH": rows,
        "BK": tile.keys,
        "STAGES": tile.stages,
        "EK": entry_keys,
        "ONE": compressed is None or (spoken == window.dialect and entry_keys == tile.keys),
        "num_warps": tile.warps,
    }

    def run(part: Part) -> None:
        count, splits = len(part.q), part.splits
        attend_kernel[(count, splits, -(-heads // rows))](
            part.q,
            window.bytes,
            compressed.bytes if compressed else window.bytes,
            sink,
            part.cos_sin,
            part.window_rows,
            pages.table if pages else window_rows,
            part.sequence,
            part.sequence if part.visible is None else part.visible,
            part.sequence if part.selected is None else part.selected,
            part.out,
            *part.sums,
            scale * LOG2E.value,
            eps or 0.0,
            heads,
            pages.table.stride(0) if pages else 0,
            splits,
            WINDOW=window_rows.shape[1],
            PAGE=pages.page_rows if pages else 1,
            TOPK=0 if selected is None else selected.shape[1],
            COMPRESSED=compressed is not None,
            NORM=eps is not None,
            SPAN=SPAN,
            **options,
        )

    return in_parts(
        q,
        cos_sin,
        window_rows=window_rows,
        pages=pages,
        sequence=sequence,
        visible=visible,
        selected=selected,
        run=run,
    )


@dataclass(frozen=True, slots=True)
class Part:
    """The tokens of one launch. sums: float32 outputs [T, splits, H, d], maxima and totals
    [T, splits, H], for the parts of tokens of more than SPAN entries; empty if splits is 1."""

    q: torch.Tensor
    out: torch.Tensor
    cos_sin: torch.Tensor
    window_rows: torch.Tensor
    sequence: torch.Tensor
    visible: torch.Tensor | None
    selected: torch.Tensor | None
    sums: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
    splits: int


def in_parts(
    q: torch.Tensor,
    cos_sin: torch.Tensor,
    *,
    window_rows: torch.Tensor,
    pages: Pages | None,
    sequence: torch.Tensor,
    visible: torch.Tensor | None,
    selected: torch.Tensor | None,
    run: Callable[[Part], None],
) -> torch.Tensor:
    """attend by `run`, which fills out, or sums, of so many tokens that the sums have room, and the
    merge of those sums."""
    tokens, heads, width = q.shape
    dense = [q, cos_sin, window_rows, *([] if selected is None else [selected])]
    assert all(t.is_contiguous() for t in dense), [t.stride() for t in dense]
    out = torch.empty_like(q)
    if tokens == 0:
        return out
    topk = 0 if selected is None else selected.shape[1]
    entries = 0 if pages is None else topk if selected is not None else pages.capacity
    splits = max(1, -(-entries // SPAN))
    step = tokens if splits == 1 else max(1, PARTIAL_BYTES // (splits * heads * width * 4))
    size = min(step, tokens) * splits * heads if splits > 1 else 0
    part_o, part_m, part_l = q.new_empty(size * width + 2 * size, dtype=torch.float32).split(
        [size * width, size, size]
    )
    for start in range(0, tokens, step):
        part = slice(start, start + step)
        run(
            Part(
                q=q[part],
                out=out[part],
                cos_sin=cos_sin[part],
                window_rows=window_rows[part],
                sequence=sequence[part],
                visible=None if visible is None else visible[part],
                selected=None if selected is None else selected[part],
                sums=(part_o, part_m, part_l),
                splits=splits,
            )
        )
        if splits > 1:
            assert visible is not None
            attend_merge_kernel[(len(q[part]), heads)](
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
                ROPE=cos_sin.shape[1],
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
    nope, rope, block = layout.nope, layout.rope, layout.quant_block
    size = min(PIECE, nope & -nope)
    fits = layout.plain or (layout.row_bytes % 4 == 0 and max(size, block) % min(size, block) == 0)
    if size < 16 or nope > 8 * size or rope < 16 or pow2(rope) != rope or not fits or block < size:
        raise BackendUnavailable(
            f"attend: rows of {nope} + {rope} values with a scale for {block}",
            found=f"the kernel reads up to eight equal pieces of 16 to {PIECE}, each of one scale",
            effect="it could not lay its tiles over the row",
            do="bind attend to another backend",
        )
    return {
        "COUNT": nope // size,
        "SIZE": size,
        "WIDTH": layout.width,
        "ROPE": rope,
        "ROW": layout.row_bytes,
        "BLOCK": block,
        "SCALE_AT": layout.scale_offset,
        "PLAIN": layout.plain,
    }
