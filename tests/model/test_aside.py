"""A layer's branches are independent: in either order the same bits, and no byte written by both.

On a GPU they run side by side on two streams, in an order that nobody knows. What a CPU can show
are its two extremes, a branch before everything beside it and a branch after, and who writes what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import torch

from isobath.cache.pool import CachePool, allocate_pool
from isobath.engine.selfcheck import decode_step, fill
from isobath.model.aside import Aside, at_once
from isobath.model.batch import Batch, BatchBuilder, Chunk
from isobath.model.load import load
from isobath.model.v4 import forward
from isobath.numerics import OCP
from isobath.ops.table import bind
from tests.support.checkpoints import random_checkpoint

T = TypeVar("T")
CPU = torch.device("cpu")


class Last:
    """Runs what it is given when a result is asked for, in the order in which it came, as a second
    stream does that is slow."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def __call__(self, work: Callable[[], T]) -> Callable[[], T]:
        results: list[T] = []
        self.waiting.append(lambda: results.append(work()))

        def join() -> T:
            while not results:
                self.waiting.pop(0)()
            return results[0]

        return join


class Model:
    """A random model with every layer kind, and a pool in which every row holds a number."""

    def __init__(self, folder: Path) -> None:
        ops = bind("torch")
        config, weights = load(folder, numerics="native", dialect=OCP, device=CPU, ops=ops)
        self.vocab = config.vocab_size
        self.pool = allocate_pool(
            config,
            slots=9,
            pages=30,
            staging=64,
            dialect=OCP,
            plain=False,
            device=CPU,
            revision=weights.revision,
        )
        self.builder = BatchBuilder(config, self.pool, CPU)
        self.forward = partial(forward, config, weights, ops, self.pool)

    def decode(self, context: int) -> Batch:
        """Seven sequences: entries of either ratio come due, up to 67 tokens none is chosen."""
        return self.builder.build(decode_step(self.pool, 7, context, self.vocab, seed=context))

    def prefill(self) -> Batch:
        return self.builder.build([Chunk(list(range(2, 60)), 90, 1, [3, 4])])

    @torch.inference_mode()
    def after(self, batch: Batch, aside: Aside) -> list[torch.Tensor]:
        """Logits, and every cache, of a step from the same beginning."""
        fill(self.pool, seed=1)
        return [self.forward(batch, aside=aside), *contents(self.pool)]


def contents(pool: CachePool) -> list[torch.Tensor]:
    """A copy of every buffer of a pool, as integers: two that are NaN are equal."""
    return [t.clone() for t in _buffers(pool)]


def _buffers(pool: CachePool) -> Iterator[torch.Tensor]:
    for layer in pool.layers:
        yield layer.window.bytes
        for one in (layer.compressor, layer.indexer):
            if one is not None:
                yield from (one.entries.bytes, one.state.view(torch.int32))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("aside")
    random_checkpoint(path, seed=9)
    return Model(path)


def batches(model: Model) -> dict[str, Batch]:
    return {"short": model.decode(60), "long": model.decode(300), "prefill": model.prefill()}


@pytest.mark.parametrize("kind", ["short", "long", "prefill"])
def test_branch_may_run_before_or_after_all_that_is_beside_it(model: Model, kind: str) -> None:
    batch, last = batches(model)[kind], Last()
    first, then = model.after(batch, at_once), model.after(batch, last)
    assert not last.waiting and first[0].isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(first, then, strict=True))


@pytest.mark.parametrize("kind", ["short", "long"])
def test_branches_write_no_byte_in_common(model: Model, kind: str) -> None:
    """Beside attention's branch the window rows are written, beside the shared expert nothing."""
    both: list[tuple[int, int]] = []
    before: list[torch.Tensor] = []

    class Watch(Last):
        def __call__(self, work: Callable[[], T]) -> Callable[[], T]:
            if not self.waiting:
                before[:] = contents(model.pool)
            join = super().__call__(work)

            def watched() -> T:
                beside = contents(model.pool)
                result = join()
                aside = contents(model.pool)
                here = [a != b for a, b in zip(before, beside, strict=True)]
                there = [a != b for a, b in zip(beside, aside, strict=True)]
                assert not any((a & b).any() for a, b in zip(here, there, strict=True))
                both.append((_count(here), _count(there)))
                return result

            return watched

    model.after(batches(model)[kind], Watch())
    assert any(here and there for here, there in both), "branches that wrote beside each other"


def _count(changed: list[torch.Tensor]) -> int:
    return sum(int(c.sum()) for c in changed)


def test_at_once_has_run_before_it_returns() -> None:
    order: list[str] = []
    later = at_once(lambda: order.append("work"))
    order.append("beside")
    assert later() is None and order == ["work", "beside"]
