"""Static decode metadata says what the host's batch builder says, at addresses that stay."""

from __future__ import annotations

import random
from dataclasses import fields, replace

import pytest
import torch

from isobath.cache.pool import CachePool, allocate_pool
from isobath.engine.metadata import DecodeMetadata, Shape
from isobath.model.batch import Batch, BatchBuilder, Chunk, CompressPlan
from isobath.numerics import OCP
from isobath.ops.placement import tensors
from isobath.ops.table import bind
from isobath.plan import flash_config

CPU = torch.device("cpu")
SLOTS, PAGES, CONTEXT = 12, 200, 3000
CONFIG = replace(flash_config(), num_hidden_layers=3, compress_ratios=(0, 4, 128))


@pytest.fixture(scope="module")
def pool() -> CachePool:
    return allocate_pool(
        CONFIG,
        slots=SLOTS + 1,
        pages=PAGES + 1,
        staging=SLOTS,
        dialect=OCP,
        plain=True,
        device=CPU,
        revision="none",
    )


@pytest.fixture
def metadata(pool: CachePool) -> DecodeMetadata:
    return DecodeMetadata(CONFIG, pool, bind("torch"), CPU, max_lanes=SLOTS, max_context=CONTEXT)


def state(seed: int, count: int, most: int = CONTEXT) -> list[Chunk]:
    """A decode step of `count` sequences; every third stands where entries come due."""
    draw = random.Random(seed)
    slots = draw.sample(range(1, SLOTS + 1), count)
    chunks = []
    for i, slot in enumerate(slots):
        position = draw.randrange(most)
        if i % 3 == 0:
            position = max(0, position // 128 * 128 - 1)
        pages = [draw.randrange(1, PAGES + 1) for _ in range(position // 128 + 1)]
        chunks.append(Chunk([draw.randrange(2, 900)], position, slot, pages))
    return chunks


def step(metadata: DecodeMetadata, chunks: list[Chunk], shape: Shape | None = None) -> Batch:
    shape = shape or metadata.shape_of(chunks)
    metadata.fill(chunks, shape)
    return metadata.compute(shape)


def differing(got: Batch, want: Batch) -> list[str]:
    """Fields that differ. Where pages are is compared by what the tokens' lines of the table say:
    static lines belong to slots."""
    names = [f.name for f in fields(Batch)]
    names = [n for n in names if n not in ("plans", "sequence", "logits_rows", "single")]
    wrong = [n for n in names if not torch.equal(getattr(got, n), getattr(want, n))]
    for ratio, plan in want.plans.items():
        mine = got.plans[ratio]
        rest = [f.name for f in fields(CompressPlan) if f.name not in ("pages", "max_visible")]
        wrong += [n for n in rest if not torch.equal(getattr(mine, n), getattr(plan, n))]
        pages = plan.pages.table[want.sequence]
        width = pages.shape[1]
        used = torch.arange(width) <= (want.positions // 128).unsqueeze(1)
        lines = mine.pages.table[got.sequence][:, :width]
        wrong += ["pages"] if not torch.equal(lines[used], pages[used]) else []
        wrong += ["max_visible"] if mine.max_visible < plan.max_visible else []
    assert got.single and want.single and got.logits_rows is None
    assert want.logits_rows is not None and len(want.logits_rows) == len(want.positions)
    return wrong


@pytest.mark.parametrize("count", [1, 2, 5, SLOTS])
def test_exact_shape_equals_the_host_builder(
    pool: CachePool, metadata: DecodeMetadata, count: int
) -> None:
    builder = BatchBuilder(CONFIG, pool, CPU)
    for seed in range(25):
        chunks = state(seed, count, most=CONTEXT if seed % 2 else 300)
        assert differing(step(metadata, chunks), builder.build(chunks)) == [], seed


def test_bucket_pads_with_lanes_that_read_and_write_nothing(
    pool: CachePool, metadata: DecodeMetadata
) -> None:
    """Real lanes come out as without padding, although the buffers were full of another step."""
    shape = Shape(8, (8, 8), CONTEXT)
    for seed in range(25):
        step(metadata, state(100 + seed, 8), shape)
        chunks = state(seed, 5)
        whole, exact = step(metadata, chunks, shape), BatchBuilder(CONFIG, pool, CPU).build(chunks)
        for name in ("token_ids", "positions", "window_slots", "window_rows", "cos_sin_window"):
            assert torch.equal(getattr(whole, name)[:5], getattr(exact, name)), name
        for name in ("token_ids", "window_slots", "window_rows"):
            assert (getattr(whole, name)[5:] == -1).all(), name
        assert (whole.sequence[5:] == 0).all() and (whole.positions[5:] == 0).all()
        for ratio, plan in exact.plans.items():
            mine = whole.plans[ratio]
            exists = mine.entry_rows >= 0
            for name in ("entry_rows", "pool_rows", "cos_sin"):
                assert torch.equal(getattr(mine, name)[exists], getattr(plan, name)), name
            assert (mine.pool_rows[~exists] == -1).all() and not exists[5:].any()
            assert torch.equal(mine.visible[:5], plan.visible) and (mine.visible[5:] == 0).all()
            for name in ("keep_tokens", "keep_rows"):
                assert torch.equal(getattr(mine, name)[:5], getattr(plan, name)), name
                assert (getattr(mine, name)[5:] == -1).all(), name


def test_addresses_stay_the_same_from_step_to_step(metadata: DecodeMetadata) -> None:
    buffers = metadata.addresses()
    seen: dict[int, set[tuple[int, ...]]] = {}
    for seed in range(12):
        count = 1 + seed % 4
        shape = Shape(count, (count, count), CONTEXT)
        batch = step(metadata, state(seed, count), shape)
        places = tuple(t.data_ptr() for t in tensors(batch) if t.numel())
        assert set(places) <= set(_line_starts(metadata, buffers))
        seen.setdefault(count, set()).add(places)
    assert all(len(places) == 1 for places in seen.values())
    assert metadata.addresses() == buffers


def _line_starts(metadata: DecodeMetadata, buffers: list[int]) -> list[int]:
    """Every buffer's beginning, and that of each line of the block, which is the first of them."""
    return buffers + [buffers[0] + 8 * metadata.max_lanes * i for i in range(6)]


def test_table_follows_sequences_that_grow_leave_and_take_a_slot(
    pool: CachePool, metadata: DecodeMetadata
) -> None:
    """A sequence's list of pages grows in place; a newcomer brings another list. One that was away
    in mixed steps for more than a page comes back with pages the table has not seen."""
    builder = BatchBuilder(CONFIG, pool, CPU)
    pages, others = [7, 8, 9], [21]
    steps = [(380 + i, pages) for i in range(10)]
    for position, owner in [*steps, (900, pages), (5, others), (901, pages), (100, others)]:
        while len(owner) <= position // 128:
            owner.append(30 + len(owner))
        chunks = [Chunk([5], position, 3, owner), Chunk([6], position, 4, list(owner))]
        assert differing(step(metadata, chunks), builder.build(chunks)) == [], position


def test_newcomer_leaves_no_page_of_the_one_before(metadata: DecodeMetadata) -> None:
    step(metadata, [Chunk([5], 2000, 3, list(range(1, 17)))])
    batch = step(metadata, [Chunk([5], 10, 3, [44])], Shape(1, (1, 1), CONTEXT))
    assert batch.plans[4].pages.table[3].tolist() == [44, *[0] * (-(-CONTEXT // 128) - 1)]
