"""Loading holds the model once: beyond the finished weights, only what one matrix needs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.autograd.profiler import profile

from isobath.model.load import load
from isobath.model.shards import SINGLE
from isobath.model.weights import ModelWeights
from isobath.numerics import FNUZ
from isobath.ops.table import bind
from tests.support.checkpoints import random_checkpoint

LAYERS = 24


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deep")
    random_checkpoint(folder, compress_ratios=[0, 4] * (LAYERS // 2), n_routed_experts=8)
    return folder


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine tenths of it are one layer's experts, stacked into two tensors."""
    folder = tmp_path_factory.mktemp("shallow")
    random_checkpoint(folder, compress_ratios=[0], n_routed_experts=128)
    return folder


def live_bytes(folder: Path, numerics: str, backend: str) -> tuple[int, int]:
    """(peak, final) bytes of tensors allocated while loading, as torch's allocator reports them.

    The mapping of the weight file is reported as an allocation, too, and subtracted here: its
    pages are the kernel's to drop.
    """
    ops = bind(backend)
    kept: list[ModelWeights] = []
    with profile(profile_memory=True, use_kineto=True) as recorded:
        _, weights = load(
            folder, numerics=numerics, dialect=FNUZ, device=torch.device("cpu"), ops=ops
        )
        kept.append(weights)
    events = recorded.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    mapped = (folder / SINGLE).stat().st_size
    assert [n for _, n in changes].count(mapped) == 1, "the mapping is not among the allocations"
    live, peak = 0, 0
    for _, nbytes in sorted(changes):
        live += nbytes
        peak = max(peak, live)
    return peak - mapped, live


@pytest.mark.parametrize(
    ("numerics", "backend", "spare"),
    [
        # Beside the model there is one source matrix with its masks or its decoded copy.
        ("native", "reference", 0.02),
        ("exact", "reference", 0.02),
        # Repacking holds one layer's experts in both forms, with a copy of one of its two stacks.
        # Originals kept until the end would add their share of the widened model, 0.15.
        ("native", "torch", 2 / LAYERS),
    ],
)
def test_the_model_is_never_in_memory_twice(
    deep: Path, numerics: str, backend: str, spare: float
) -> None:
    peak, final = live_bytes(deep, numerics, backend)
    stored = (deep / SINGLE).stat().st_size
    assert final > stored * 0.9
    assert (numerics, backend) != ("native", "reference") or final < stored * 1.1, "still mapped"
    assert peak <= final * (1 + spare)


@pytest.mark.parametrize("numerics", ["native", "exact"])
def test_stacked_experts_are_never_in_memory_twice(shallow: Path, numerics: str) -> None:
    """Stacking a list of experts would hold w13 twice, 2/3 of the experts, before w2 is there."""
    peak, final = live_bytes(shallow, numerics, "reference")
    assert peak <= final * 1.02
