"""What the start-up check of captured graphs needs: caches that hold numbers, and decode steps.

A pool is full of NaN until something is written, and NaN compares with nothing. So before the check
every row that a sequence may own gets random values, and afterwards NaN again. Slot 0 and page 0
keep their NaN, but for the null row that some kernels write padding to: a row of theirs that is
read is loud. A decode step that is run twice
writes the same rows and reads the same rows both times: what it overwrites is outside its windows.
"""

from __future__ import annotations

import torch

from isobath.cache.pool import PAGE_TOKENS, CachePool, CompressorCache, ring_rows
from isobath.cache.view import CacheView, poison, write_rows
from isobath.model.batch import Chunk

_TILE = 4096
"""Rows that are drawn and quantised; the rest are copies of them."""
_FAR = 16_384
"""Positions of all lanes but the first are below this: each page of a longer one is drawn, too."""


def fill(pool: CachePool, seed: int) -> None:
    """Give every row of a slot, snapshot, page or staging row but those of slot 0 and page 0 normal
    values."""
    generator = torch.Generator().manual_seed(seed)
    for layer in pool.layers:
        _fill_rows(layer.window, pool.window, generator)
        for one, ratio in ((layer.compressor, layer.ratio), (layer.indexer, 4)):
            if one is not None:
                _fill_rows(one.entries, PAGE_TOKENS // ratio, generator)
                _fill_state(one, ring_rows(ratio), generator)


def empty(pool: CachePool) -> None:
    """Make every row unwritten."""
    for layer in pool.layers:
        poison(layer.window)
        for one in (layer.compressor, layer.indexer):
            if one is not None:
                poison(one.entries)
                one.state.fill_(torch.nan)


def decode_step(pool: CachePool, lanes: int, context: int, vocab: int, *, seed: int) -> list[Chunk]:
    """A decode step of up to `lanes` sequences at random positions below `context`, the first of
    them at its end, others where entries come due. Pages that are read are shared, the one that is
    written is the lane's own, so there are no more lanes than pages."""
    generator = torch.Generator().manual_seed(seed)

    def draw(low: int, high: int, count: int) -> list[int]:
        return torch.randint(low, high, (count,), generator=generator).tolist()

    count = min(lanes, pool.pages - 1, pool.slots - 1)
    slots = (torch.randperm(pool.slots - 1, generator=generator)[:count] + 1).tolist()
    own = (torch.randperm(pool.pages - 1, generator=generator)[:count] + 1).tolist()
    positions, tokens = draw(0, min(context, _FAR), count), draw(0, vocab, count)
    chunks = []
    for lane, position in enumerate(positions):
        if lane == 0:
            position = context - 1
        elif lane % 3 == 0:  # the last token of a page completes an entry of either ratio
            position = max(position // PAGE_TOKENS * PAGE_TOKENS - 1, 0)
        pages = draw(1, pool.pages, position // PAGE_TOKENS)
        chunks.append(Chunk([tokens[lane]], position, slots[lane], [*pages, own[lane]]))
    return chunks


def other_step() -> list[Chunk]:
    """The first token of a sequence in slot 0 and page 0, which no sequence owns: it writes nothing
    that a step of decode_step() reads."""
    return [Chunk([0], 0, 0, [0])]


def _fill_rows(cache: CacheView, first: int, generator: torch.Generator) -> None:
    """Rows from `first` on; the tile is quantised on the CPU as a reference would."""
    rows = cache.bytes[first:]
    tile = torch.empty(min(_TILE, len(rows)), cache.layout.row_bytes, dtype=torch.uint8)
    view = CacheView(tile, cache.layout, cache.dialect)
    values = torch.randn(len(tile), cache.layout.width, generator=generator)
    write_rows(view, torch.arange(len(tile)), values)
    _repeat(rows, tile)


def _fill_state(one: CompressorCache, first: int, generator: torch.Generator) -> None:
    rows = one.state[first:]
    _repeat(rows, torch.randn(min(_TILE, len(rows)), *rows.shape[1:], generator=generator))


def _repeat(rows: torch.Tensor, tile: torch.Tensor) -> None:
    tile = tile.to(rows.device)
    for part in rows.split(max(1, len(tile))):
        part.copy_(tile[: len(part)])
