"""The benchmark of structures measures both backends, and its last line is JSON."""

from __future__ import annotations

import json

import pytest

from isobath.bench import structure


def test_every_backend_is_measured_on_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    structure.main(["--repeat", "2"])
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]
    assert [(row["backend"], row["case"]) for row in rows] == [
        (backend, case) for backend in ("xgrammar", "guidance") for case in structure.CASES
    ]
    assert all(0 < row["us"] <= row["us_max"] and row["tokens"] > 20 for row in rows)
