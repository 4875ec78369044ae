"""A decode step reads nothing back and has no shape that depends on a value, in any layer kind.

The region is what a graph captures: from the static block to the best token, the metadata's device
work included. Only the block is copied before. Prefill is known to read the lengths of its runs,
which shows that the watch sees the whole forward pass.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from isobath.cache.pool import allocate_pool
from isobath.engine.metadata import DecodeMetadata, Shape
from isobath.engine.selfcheck import fill
from isobath.errors import CaptureUnsafe
from isobath.model.batch import Batch, BatchBuilder, Chunk
from isobath.model.load import load
from isobath.model.v4 import forward
from isobath.numerics import OCP
from isobath.ops.capture import capture_safe
from isobath.ops.table import bind
from tests.support.checkpoints import random_checkpoint

CPU = torch.device("cpu")
MOST = 16
POSITIONS = {
    "no_entry_due": [5, 130, 260],
    "ratio_4_entry_due": [3, 131, 259],
    "both_entries_due": [127, 255, 255],
    "some_due": [0, 3, 4, 127, 128, 255, 258],
}
"""index_topk is 16: from position 67 on the indexer chooses."""


class Model:
    """A random model with every layer kind, and a pool for MOST sequences of three pages."""

    def __init__(self, folder: Path, numerics: str) -> None:
        self.ops = bind("torch")
        self.config, self.weights = load(
            folder, numerics=numerics, dialect=OCP, device=CPU, ops=self.ops
        )
        self.pool = allocate_pool(
            self.config,
            slots=MOST + 1,
            pages=3 * MOST + 1,
            staging=64,
            dialect=OCP,
            plain=numerics == "exact",
            device=CPU,
            revision=self.weights.revision,
        )
        self.builder = BatchBuilder(self.config, self.pool, CPU)
        self.metadata = DecodeMetadata(
            self.config, self.pool, self.ops, CPU, max_lanes=MOST, max_context=3 * 128
        )

    def fill(self, positions: list[int], shape: Shape | None) -> Shape:
        pages = [[3 * s + 1, 3 * s + 2, 3 * s + 3] for s in range(MOST)]
        chunks = [Chunk([7 + s], p, s + 1, pages[s]) for s, p in enumerate(positions)]
        shape = shape or self.metadata.shape_of(chunks)
        self.metadata.fill(chunks, shape)
        return shape

    @torch.inference_mode()
    def captured(self, shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.step(self.metadata.compute(shape))
        return logits, logits.argmax(-1)

    def prefill(self, tokens: int) -> Batch:
        return self.builder.build([Chunk(list(range(2, 2 + tokens)), 0, 1, [1])])

    @torch.inference_mode()
    def step(self, batch: Batch) -> torch.Tensor:
        return forward(self.config, self.weights, self.ops, self.pool, batch)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("capture")
    random_checkpoint(path, seed=9)
    return path


@pytest.fixture(scope="module", params=["native", "exact"])
def model(folder: Path, request: pytest.FixtureRequest) -> Model:
    return Model(folder, request.param)


@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
@pytest.mark.parametrize("tokens", [1, 4, 16])
def test_decode_runs_under_the_watch(model: Model, positions: list[int], tokens: int) -> None:
    """Every layer kind is there; a first run builds the tables that ops keep."""
    kinds = {(w.ratio, w.ffn.table is None) for w in model.weights.layers}
    assert kinds >= {(0, False), (4, True), (128, True)}
    places = [positions[i % len(positions)] for i in range(tokens)]
    for shape in (None, Shape(MOST, (MOST, MOST), 3 * 128)):
        shape = model.fill(places, shape)
        model.captured(shape)
        with capture_safe():
            logits, best = model.captured(shape)
        assert logits.shape == (shape.lanes, model.config.vocab_size)
        assert len(best) == shape.lanes


@pytest.mark.parametrize("positions", POSITIONS.values(), ids=POSITIONS)
@pytest.mark.parametrize("tokens", [1, 3, 13])
def test_padding_changes_no_bit_of_a_real_lane(
    model: Model, positions: list[int], tokens: int
) -> None:
    """Run again in a bucket full of padding, a step writes the same rows, reads the same rows and
    gives the same logits; positions up to which nothing was prefilled hold NaN, so caches are first
    filled."""
    places = [positions[i % len(positions)] for i in range(tokens)]
    fill(model.pool, seed=3)
    exact, best = model.captured(model.fill(places, None))
    assert exact.isfinite().all()
    for shape in (Shape(MOST, (MOST, MOST), 3 * 128), Shape(tokens, (tokens, tokens), 300)):
        padded, padded_best = model.captured(model.fill(places, shape))
        assert torch.equal(padded[:tokens], exact)
        assert torch.equal(padded_best[:tokens], best)


def test_prefill_is_seen_to_read_its_runs(model: Model) -> None:
    batch = model.prefill(20)
    model.step(batch)
    with pytest.raises(CaptureUnsafe) as caught, capture_safe("prefill"):
        model.step(batch)
    assert caught.value.asked == (
        "prefill: aten.unique_consecutive.default may not run in a captured step"
    )
    assert caught.value.found.startswith("called by isobath.ops.sparse_attention.torch_kernel.")
