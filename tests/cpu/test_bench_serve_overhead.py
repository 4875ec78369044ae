"""The benchmark of the server's own cost counts every token of every stream, on both routes."""

from __future__ import annotations

import json

import pytest

from isobath.bench import serve_overhead


def test_the_last_line_is_one_json_object(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run asserts by itself that each stream had as many chunks as tokens."""
    monkeypatch.setattr(serve_overhead, "STREAMS", (1, 3))
    serve_overhead.main(tokens=8)
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [(row["route"], row["streams"]) for row in report["rows"]] == [
        (route, streams) for route in serve_overhead.ROUTES for streams in (1, 3)
    ]
    assert all(0 < row["median_us"] <= row["p99_us"] for row in report["rows"])
