"""The benchmark of the marks: judged before it is timed, compared by each unit's own sense."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from isobath.bench import marks
from isobath.bench.marks import Mark, Row, attention_means, run
from isobath.ops.contract import Backend
from isobath.ops.hyper_enter import cases as hyper_enter
from isobath.ops.latent_insert import cases as latent_insert
from isobath.ops.table import contract
from isobath.plan import flash_config
from isobath.target import detect

ROW = Row("marks", "attend", "gluon", "CSA", 100.0, 100.0, "us", None, 0.01, "a GPU", "2.11")
SMALL = [
    Mark("hyper_enter", "small", hyper_enter.make(9, 128), "us", {"": 1e12}),
    Mark("latent_insert", "small", latent_insert.make(5, 128, 64, 16), "of copy", {"": 1e12}),
]


def test_every_mark_has_a_row_a_value_of_its_unit_and_a_verdict() -> None:
    rows = run(detect("cpu"), SMALL)
    assert [(row.op, row.backend, row.reached) for row in rows] == [
        ("hyper_enter", "torch", True),
        ("latent_insert", "torch", False),
    ]
    assert rows[0].value == rows[0].us and 0 < rows[1].value < 1


def test_wrong_backend_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    op = contract("latent_insert")
    right = op.backend("torch")

    def off_by_two(**args: object) -> object:
        latent = right(**args)
        return replace(latent, scale=latent.scale + 1)

    wrong = Backend(op.name, "wrong", off_by_two, right.prepare)
    monkeypatch.setattr(marks, "backends", lambda name, target: [wrong])
    with pytest.raises(AssertionError, match="latent_insert/wrong, small: latent"):
        run(detect("cpu"), SMALL[1:])


def test_us_must_stay_below_its_goal_and_shares_above() -> None:
    assert replace(ROW, goal=100.0).reached and not replace(ROW, goal=99.0).reached
    share = replace(ROW, unit="of copy", value=0.7)
    assert replace(share, goal=0.6).reached and not replace(share, goal=0.8).reached
    assert ROW.reached is None


def test_mean_of_attention_weighs_kinds_as_the_model_does() -> None:
    """2 SWA, 21 CSA and 20 HCA layers of 43."""
    us = {"SWA": 43.0, "CSA": 86.0, "HCA": 129.0}
    rows = [replace(ROW, what=kind, us=value) for kind, value in us.items()]
    (mean,) = attention_means(rows)
    assert mean.us == mean.value == pytest.approx(2 * 1 + 21 * 2 + 20 * 3) and mean.reached
    assert attention_means(rows[:2]) == [], "a mean over some kinds would flatter"


def test_every_mark_is_made_at_the_models_widths() -> None:
    config = flash_config()
    assert {mark.op for mark in marks.marks(config, tokens=2)} == {
        *("attend", "hyper_enter", "latent_insert", "query_norm_rope", "index_logits", "fp8_linear")
    }
    dialect, device = detect("cpu").dialect, torch.device("cpu")
    for mark in marks.marks(config, tokens=2):
        if mark.op == "attend":
            args = mark.make(dialect, device, torch.Generator().manual_seed(1))
            assert args["q"].shape == (2, 64, 512) and args["single"]
            keys = int((args["window_rows"] >= 0).sum())
            assert keys == 2 * 128, "from position 570 on a window is full"
