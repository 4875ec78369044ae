"""Where every cached byte lies: nothing overlaps, nothing is outside, and a token costs what the
plan says.

Addresses are computed here from row numbers and offsets, as a reader would, over the buffers that
a real pool allocates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch

from isobath.cache.layout import RowLayout, index_row, kv_row
from isobath.cache.pool import (
    PAGE_TOKENS,
    CachePool,
    CompressorCache,
    allocate_pool,
    page_bytes,
    ring_rows,
)
from isobath.cache.view import Pages
from isobath.config import ModelConfig
from isobath.model.batch import BatchBuilder, Chunk
from isobath.numerics import OCP
from isobath.plan import flash_config, kv_bytes

CPU = torch.device("cpu")
FLASH_PAGE_BYTES = 492_832
"""21 ratio-4 layers of 32 * (584 + 132) bytes and 20 ratio-128 layers of 584."""
LAYOUTS = {
    "kv": kv_row(512, 64),
    "index": index_row(128),
    "small kv": kv_row(64, 16),
    "small index": index_row(32),
    "plain kv": kv_row(512, 64, plain=True),
    "plain index": index_row(128, plain=True),
}


def small_config() -> ModelConfig:
    """Every layer kind at a small width, with the published window."""
    return replace(
        flash_config(),
        num_hidden_layers=3,
        compress_ratios=(0, 4, 128),
        head_dim=64,
        qk_rope_head_dim=16,
        index_head_dim=32,
    )


def pool_of(config: ModelConfig, **counts: int) -> CachePool:
    counts = {"slots": 3, "snapshots": 2, "pages": 3, "staging": 5} | counts
    return allocate_pool(config, **counts, dialect=OCP, plain=False, device=CPU, revision="")


def fields(layout: RowLayout) -> list[tuple[int, int]]:
    """(first byte, bytes) of every value, rope value and scale of a row."""
    if layout.plain:
        return [(4 * i, 4) for i in range(layout.width)]
    values = [(i, 1) for i in range(layout.nope)]
    rope = [(layout.rope_offset + 2 * i, 2) for i in range(layout.rope)]
    size = layout.scale_bytes
    scales = [(layout.scale_offset + size * i, size) for i in range(layout.num_scales)]
    return values + rope + scales


def test_rows_of_v4_flash_have_the_published_offsets() -> None:
    kv, index = LAYOUTS["kv"], LAYOUTS["index"]
    assert (kv.rope_offset, kv.scale_offset, kv.num_scales, kv.row_bytes) == (448, 576, 7, 584)
    assert (index.scale_offset, index.num_scales, index.row_bytes) == (128, 1, 132)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_fields_of_a_row_do_not_overlap_and_lie_inside(layout: RowLayout) -> None:
    taken = np.zeros(layout.row_bytes, dtype=np.int64)
    for first, size in fields(layout):
        assert first % size == 0, "a wider value would be read unaligned"
        taken[first : first + size] += 1
    assert taken.max() == 1
    padding = int((taken == 0).sum())
    assert padding < 4 and not taken[layout.row_bytes - padding :].any()


def rings(pool: CachePool) -> Iterator[tuple[int, CompressorCache]]:
    for layer in pool.layers:
        for ratio, compressor in ((layer.ratio, layer.compressor), (4, layer.indexer)):
            if compressor is not None:
                yield ratio, compressor


def row_numbers(pool: CachePool) -> Iterator[tuple[str, int, int, list[int]]]:
    """(name, rows of the buffer, row bytes, every row that anyone ever names)."""
    for layer in pool.layers:
        window, size = layer.window, pool.window
        owners = pool.slots + pool.snapshots
        rows = [owner * size + p % size for owner in range(owners) for p in range(size)]
        rows += [pool.staging_row + t for t in range(pool.staging)]
        yield "window", len(window.bytes), window.layout.row_bytes, rows
    for ratio, compressor in rings(pool):
        ring, channels = ring_rows(ratio), compressor.state.shape[2]
        owners = pool.slots + (pool.snapshots if ratio == 4 else 0)
        rows = [owner * ring + p % ring for owner in range(owners) for p in range(ring)]
        yield f"ring {ratio}", len(compressor.state), 2 * channels * 4, rows
        per_page = PAGE_TOKENS // ratio
        every = [page * per_page + j for page in range(pool.pages) for j in range(per_page)]
        entries = compressor.entries
        yield f"entries {ratio}", len(entries.bytes), entries.layout.row_bytes, every


def test_rows_of_slots_snapshots_staging_pages_and_rings_fill_their_buffers_once() -> None:
    seen = []
    for name, rows, row_bytes, named in row_numbers(pool_of(small_config())):
        taken = np.zeros(rows * row_bytes, dtype=np.int64)
        for row in named:
            assert 0 <= row < rows, (name, row)
            taken[row * row_bytes : (row + 1) * row_bytes] += 1
        assert (taken == 1).all(), name
        seen.append(name)
    assert seen == ["window"] * 3 + ["ring 4", "entries 4"] * 2 + ["ring 128", "entries 128"]


def test_buffers_are_memory_of_their_own() -> None:
    pool = pool_of(small_config())
    buffers = [layer.window.bytes for layer in pool.layers]
    for _, compressor in rings(pool):
        buffers += [compressor.state, compressor.entries.bytes]
    spans = sorted((b.data_ptr(), b.data_ptr() + b.nbytes) for b in buffers)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
    assert sum(b.nbytes for b in buffers) == pool.nbytes()


def test_the_batch_names_rows_of_their_owner_alone() -> None:
    """Two sequences, prefill then decode: no row of one is a row of the other, none of anyone's
    slot 0 or page 0 is written."""
    pool = pool_of(small_config(), pages=6, staging=400)
    builder = BatchBuilder(small_config(), pool, CPU)
    ids = list(range(2, 160))
    batch = builder.build([Chunk(ids, 0, 1, [1, 2]), Chunk(ids, 128, 2, [3, 4, 5])])
    owner = batch.sequence
    window = pool.window
    slots = batch.commit_to // window
    assert slots.unique().tolist() == [1, 2]
    assert (batch.window_slots >= pool.staging_row).all()
    assert (batch.window_slots < pool.staging_row + pool.staging).all()
    ring = batch.window_rows[batch.window_rows >= 0]
    assert (ring < pool.staging_row + pool.staging).all()
    assert len(batch.window_slots.unique()) == len(owner)
    for ratio, plan in batch.plans.items():
        pages = plan.entry_rows // (PAGE_TOKENS // ratio)
        assert len(plan.entry_rows.unique()) == len(plan.entry_rows)
        assert set(pages.tolist()) <= {1, 2, 4, 5} and 0 not in pages
        assert (plan.keep_rows // ring_rows(ratio)).unique().tolist() == [1, 2]
        assert len(plan.keep_rows.unique()) == len(plan.keep_rows)


# ---- 64 bits


def test_entry_rows_beyond_32_bits_are_exact() -> None:
    """A table that names page 2^31 and more; only numbers, no memory."""
    page = 2**31 + 7
    pages = Pages(torch.tensor([[1, page]]), page_rows=32)
    rows = pages.rows(torch.tensor([0, 0]), torch.tensor([31, 32 + 5]))
    assert rows.dtype == torch.int64
    assert rows.tolist() == [32 + 31, page * 32 + 5]


def test_batch_row_numbers_beyond_32_bits_are_exact() -> None:
    """A slot and pages so large that row and row * row_bytes pass 2^31 and 2^32."""
    pool = replace(pool_of(small_config()), slots=2**33, staging=64)
    slot, page = 2**32 + 3, 2**32 + 9
    chunk = Chunk(list(range(8)), 124, slot, [1, page])
    batch = BatchBuilder(small_config(), pool, CPU).build([chunk])
    base = (2**33 + pool.snapshots) * pool.window
    assert batch.window_slots.tolist() == [base + i for i in range(8)]
    assert batch.commit_to.tolist() == [slot * 128 + p % 128 for p in range(124, 132)]
    plan = batch.plans[4]
    assert plan.entry_rows.tolist() == [1 * 32 + 31, page * 32]
    assert plan.keep_rows.tolist() == [slot * 8 + p % 8 for p in range(124, 132)]
    assert {t.dtype for t in (batch.window_slots, plan.entry_rows, plan.keep_rows)} == {torch.int64}
    row_bytes = LAYOUTS["kv"].row_bytes
    assert int(plan.entry_rows[1]) * row_bytes == page * 32 * row_bytes > 2**31


# ---- bytes a token


def test_a_page_of_v4_flash_costs_the_planned_bytes_a_token() -> None:
    config = flash_config()
    bytes_ = page_bytes(config, plain=False)
    assert bytes_ == FLASH_PAGE_BYTES
    assert Fraction(bytes_, PAGE_TOKENS) == Fraction("3850.25")
    far = 100 * PAGE_TOKENS  # beyond window and rings, where only entries grow
    assert kv_bytes(config, far + PAGE_TOKENS) - kv_bytes(config, far) == bytes_


def test_allocated_pages_of_v4_flash_cost_the_planned_bytes_a_token() -> None:
    """Two pools that differ in eight pages, all 43 layers, one slot: about 30 MB each."""
    config = flash_config()
    small, large = (
        pool_of(config, slots=1, snapshots=0, staging=1, pages=pages) for pages in (1, 9)
    )
    assert len(large.layers) == 43
    grown = large.nbytes() - small.nbytes()
    assert Fraction(grown, 8 * PAGE_TOKENS) == Fraction("3850.25")
    held = sum(c.entries.bytes.untyped_storage().nbytes() for _, c in rings(large))
    held -= sum(c.entries.bytes.untyped_storage().nbytes() for _, c in rings(small))
    assert held == grown
