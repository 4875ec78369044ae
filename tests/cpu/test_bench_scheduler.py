"""The scheduler benchmark measures steady decode and reports what it promises."""

from __future__ import annotations

import json

import pytest

from isobath.bench import scheduler


def test_an_engine_in_decode_advances_every_sequence_by_one_token_a_step() -> None:
    engine = scheduler.in_decode(5, context=130, steps=8)
    before = [s.generated for s in engine.scheduler.running]
    for _ in range(3):
        assert len(engine.step()) == 5
    assert [s.generated for s in engine.scheduler.running] == [n + 3 for n in before]
    assert len(before) == 5 and not engine.scheduler.waiting
    engine.check()


def test_the_last_line_is_one_json_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scheduler, "SEQUENCES", (1, 3))
    scheduler.main(steps=4, context=64)
    out = capsys.readouterr().out
    report = json.loads(out.splitlines()[-1])
    assert set(report["step_us"]) == set(report["per_sequence_us"]) == {"1", "3"}
    assert report["step_us"]["3"]["median"] > 0 and report["within_limit"] is True
    assert "one decode step" in out and "tottime" in out
