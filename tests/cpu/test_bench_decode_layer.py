"""The layer benchmark runs a real decode step: every kind, finite values, rows that add up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from isobath.bench.decode_layer import KINDS, LAYERS, Row, decode_step, run, summary
from isobath.engine.llm import BUNDLED
from isobath.model.dummy import dummy_model
from isobath.model.revision import read_config
from isobath.numerics.dialect import OCP
from isobath.ops.table import bind
from isobath.target import detect


def test_every_kind_of_layer_is_measured_at_every_size() -> None:
    rows = run(detect("cpu"), bind("torch"), read_config(BUNDLED), sequences=(1, 3), tables=())
    assert [(row.kind, row.sequences) for row in rows] == [
        (kind, count) for kind in KINDS.values() for count in (1, 3)
    ]
    assert all(row.launches is None for row in rows), "a CPU launches nothing"
    assert all(row.vllm_us is None for row in rows), "figures of another machine are no baseline"


def test_step_has_one_token_a_sequence_within_the_contexts_in_rows_that_are_written() -> None:
    config = read_config(BUNDLED)
    config = replace(config, num_hidden_layers=LAYERS, compress_ratios=(4,) * LAYERS)
    _, weights = dummy_model(config, dialect=OCP, device=torch.device("cpu"), ops=bind("torch"))
    pool, compute = decode_step(config, weights, bind("torch"), 5, (570, 580), torch.device("cpu"))
    batch = compute()
    assert batch.single and len(batch.token_ids) == 5
    assert int(batch.positions.min()) >= 570 and int(batch.positions.max()) <= 580
    assert len(pool.layers) == LAYERS
    slots = batch.window_slots // pool.window
    assert sorted(slots.tolist()) == [1, 2, 3, 4, 5], "each sequence has a ring of its own"


def test_mean_weighs_kinds_as_the_model_does() -> None:
    """2 SWA, 21 CSA and 20 HCA layers of 43."""
    us = {"SWA": 43.0, "CSA": 86.0, "HCA": 129.0}
    rows = [
        Row("decode_layer", kind, 8, (570, 850), us[kind], 0.0, None, 0.0, 379.0, "a GPU", "2.11")
        for kind in us
    ]
    found = summary(rows)
    assert found["mean_us"]["8"] == pytest.approx(2 * 1 + 21 * 2 + 20 * 3)
    assert found["vllm_ratio"]["8"] == pytest.approx(379 / 104)
    assert summary(rows[:2])["mean_us"] == {}, "a mean over some of the kinds would flatter"
