"""The ablations run real decode steps, and a variant that changes the answer is not measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from isobath.bench import ablations
from isobath.bench.ablations import Variant, run
from isobath.engine.llm import BUNDLED
from isobath.model.revision import read_config
from isobath.model.weights import ModelWeights
from isobath.ops.table import OpTable, bind
from isobath.target import Target, detect


def test_every_variant_is_measured_at_every_size_beside_the_baseline() -> None:
    rows = run(detect("cpu"), bind("torch"), read_config(BUNDLED), sequences=(1, 5), samples=2)
    assert [(row.sequences, row.variant) for row in rows] == [
        (count, name) for count in (1, 5) for name in ("baseline", "metadata on the host")
    ]
    assert all(row.us > 0 and row.worst == 0 for row in rows)
    assert all(row.slower_us == 0 for row in rows if row.variant == "baseline")


def test_variant_with_other_logits_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(weights: ModelWeights, ops: OpTable, target: Target) -> dict[str, Variant]:
        chosen = variants(weights, ops, target)
        other = replace(weights, head=weights.head * 2)
        return chosen | {"another head": replace(chosen["baseline"], weights=other)}

    variants = ablations.variants
    monkeypatch.setattr(ablations, "variants", faulty)
    with pytest.raises(AssertionError, match="another head: logits differ"):
        run(detect("cpu"), bind("torch"), read_config(BUNDLED), sequences=(2,))
