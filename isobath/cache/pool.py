"""CachePool: the buffers in which every sequence's state rests, and the arithmetic of their rows.

A sequence holds one slot and a list of pages. Its slot is a ring of `window` rows in each layer's
window cache and a ring of 8 (ratio 4) or 128 (ratio 128) rows in each compressor's state; its
pages hold compressed entries, one page for 128 tokens in every layer alike: 32 rows of a ratio-4
layer and of its indexer, 1 row of a ratio-128 layer. Slot 0 and page 0 belong to nobody.

    window rows of a layer:  | slot 0 | slot 1 | ... | snapshots | staging: one a batched token |

A step with several tokens of one sequence writes them to staging, attends, and then copies the last
`window` of them into the ring; a single token goes to the ring directly.

A snapshot slot keeps a copy of a slot as it was at a page boundary, all that a continuation needs
besides pages: the window ring and the ratio-4 rings. There no ratio-128 window is half full, so its
ring, the largest, is not kept. Who holds which slot and
page is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from isobath.cache.layout import index_row, kv_row
from isobath.cache.tag import Tag, tag_of
from isobath.cache.view import CacheView, allocate
from isobath.config import ModelConfig
from isobath.numerics.dialect import Dialect

PAGE_TOKENS = 128


def ring_rows(ratio: int) -> int:
    """Rows of a compressor's ring: ratio 4 pools overlapping pairs of windows."""
    return 8 if ratio == 4 else ratio


@dataclass(frozen=True, slots=True)
class CompressorCache:
    """One compressor's buffers. state: float32 [slots * ring, 2, C], k and gate with ape added.
    entries: its compressed rows, PAGE_TOKENS / ratio of them a page."""

    state: torch.Tensor
    entries: CacheView


@dataclass(frozen=True, slots=True)
class LayerCache:
    """All that a layer remembers. compressor: ratios 4 and 128. indexer: ratio 4."""

    ratio: int
    window: CacheView
    compressor: CompressorCache | None
    indexer: CompressorCache | None


@dataclass(frozen=True, slots=True)
class Tags:
    """What the caches of one pool hold, by their use. Their dialects may differ."""

    window: Tag
    entries: Tag
    index: Tag

    def __str__(self) -> str:
        return f"window {self.window}; entries {self.entries}; index {self.index}"

    def expect(self, wanted: Tags, *, reader: str) -> None:
        """Raise LayoutMismatch unless these are the caches that `reader` wants. Dialects are not
        compared: attention decodes each cache by its own."""
        for name in ("window", "entries", "index"):
            mine, other = getattr(self, name), getattr(wanted, name)
            mine.expect(other.in_dialect_of(mine), reader=f"{reader}(pool=): {name} cache")


@dataclass(frozen=True, slots=True)
class CachePool:
    """Buffers for slots - 1 sequences, snapshots (numbered after the slots) and pages - 1 pages.
    staging: tokens of the largest step. tags: what every cache must be; one that is not raises
    DialectMismatch or LayoutMismatch here."""

    layers: tuple[LayerCache, ...]
    window: int
    slots: int
    snapshots: int
    pages: int
    staging: int
    tags: Tags

    def __post_init__(self) -> None:
        for i, layer in enumerate(self.layers):
            where = f"CachePool: layer {i}"
            layer.window.tag.expect(self.tags.window, reader=f"{where} window cache")
            if layer.compressor is not None:
                entries = layer.compressor.entries
                entries.tag.expect(self.tags.entries, reader=f"{where} entries cache")
            if layer.indexer is not None:
                entries = layer.indexer.entries
                entries.tag.expect(self.tags.index, reader=f"{where} index cache")

    @property
    def staging_row(self) -> int:
        """First staging row of every window cache."""
        return (self.slots + self.snapshots) * self.window

    def nbytes(self) -> int:
        """Bytes of all buffers."""
        total = 0
        for layer in self.layers:
            total += layer.window.bytes.numel()
            for compressor in (layer.compressor, layer.indexer):
                if compressor is not None:
                    total += compressor.entries.bytes.numel() + 4 * compressor.state.numel()
        return total


def allocate_pool(
    config: ModelConfig,
    *,
    slots: int,
    snapshots: int = 0,
    pages: int,
    staging: int,
    dialect: Dialect,
    plain: bool,
    device: torch.device,
    revision: str,
) -> CachePool:
    """Allocate every buffer, filled with NaN. plain: fp32 rows (numerics="exact"). revision: of the
    model that will use them."""
    kv = kv_row(config.head_dim, config.qk_rope_head_dim, plain=plain)
    index = index_row(config.index_head_dim, plain=plain)

    def compressor(ratio: int, width: int, is_index: bool) -> CompressorCache:
        channels = (2 if ratio == 4 else 1) * width
        rings = slots + (snapshots if ratio == 4 else 0)
        state = torch.full((rings * ring_rows(ratio), 2, channels), float("nan"), device=device)
        rows = pages * (PAGE_TOKENS // ratio)
        row = index if is_index else kv
        return CompressorCache(state, allocate(rows, row, dialect, device, revision))

    def layer(ratio: int) -> LayerCache:
        rows = (slots + snapshots) * config.sliding_window + staging
        return LayerCache(
            ratio=ratio,
            window=allocate(rows, kv, dialect, device, revision),
            compressor=compressor(ratio, config.head_dim, False) if ratio else None,
            indexer=compressor(ratio, config.index_head_dim, True) if ratio == 4 else None,
        )

    layers = tuple(layer(ratio) for ratio in config.compress_ratios)
    tags = tags_of(config, dialect, plain=plain, revision=revision)
    return CachePool(layers, config.sliding_window, slots, snapshots, pages, staging, tags)


def tags_of(config: ModelConfig, dialect: Dialect, *, plain: bool, revision: str) -> Tags:
    """The tags of a model's caches, all in `dialect`."""
    kv = tag_of(kv_row(config.head_dim, config.qk_rope_head_dim, plain=plain), dialect, revision)
    return Tags(kv, kv, tag_of(index_row(config.index_head_dim, plain=plain), dialect, revision))


def copy_slot(pool: CachePool, source: int, target: int) -> None:
    """Copy what a snapshot keeps from one slot to another, in every layer. Either may be a
    snapshot; the sequence must stand at a page boundary."""
    for layer in pool.layers:
        _copy_ring(layer.window.bytes, pool.window, source, target)
        for compressor, ratio in ((layer.compressor, layer.ratio), (layer.indexer, 4)):
            if compressor is not None and ratio == 4:
                _copy_ring(compressor.state, ring_rows(ratio), source, target)


def _copy_ring(rows: torch.Tensor, size: int, source: int, target: int) -> None:
    rows[target * size : (target + 1) * size] = rows[source * size : (source + 1) * size]


def page_bytes(config: ModelConfig, *, plain: bool) -> int:
    """Bytes that one page takes in all layers together."""
    kv, index = _row_bytes(config, plain=plain)
    ratios = config.compress_ratios
    return sum(PAGE_TOKENS // r * (kv + (index if r == 4 else 0)) for r in ratios if r)


def snapshot_bytes(config: ModelConfig, *, plain: bool) -> int:
    """Bytes that one snapshot takes in all layers together: window rings and ratio-4 rings."""
    kv, _ = _row_bytes(config, plain=plain)
    window = len(config.compress_ratios) * config.sliding_window * kv
    return window + config.compress_ratios.count(4) * _ring_bytes(config, 4)


def slot_bytes(config: ModelConfig, *, plain: bool) -> int:
    """Bytes that one sequence's slot takes: what a snapshot keeps, and the ratio-128 rings."""
    rings = config.compress_ratios.count(128) * _ring_bytes(config, 128)
    return snapshot_bytes(config, plain=plain) + rings


def staging_bytes(config: ModelConfig, *, plain: bool) -> int:
    """Bytes that one token of the largest step takes: a window row a layer."""
    return len(config.compress_ratios) * _row_bytes(config, plain=plain)[0]


def _row_bytes(config: ModelConfig, *, plain: bool) -> tuple[int, int]:
    """(main row, indexer row)."""
    kv = kv_row(config.head_dim, config.qk_rope_head_dim, plain=plain)
    return kv.row_bytes, index_row(config.index_head_dim, plain=plain).row_bytes


def _ring_bytes(config: ModelConfig, ratio: int) -> int:
    """A layer's compressor rings of one slot, the indexer's included: fp32 k and gate."""
    channels = 2 * (config.head_dim + config.index_head_dim) if ratio == 4 else config.head_dim
    return ring_rows(ratio) * 2 * channels * 4
