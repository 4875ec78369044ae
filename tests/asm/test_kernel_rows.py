"""The table of emulated kernels: what a row sums up, that a run over one op leaves the others, that
a fault and a disagreement are seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isobath.errors import ConfigError
from isobath.numerics import FNUZ
from isobath.ops.table import contract, op_names
from isobath.xcompile import run
from isobath.xcompile.emulate import Emulated, cases_of, emulate
from isobath.xcompile.emulate_run import Plan, main
from isobath.xcompile.kernel_rows import CAVEAT, load, render, replace_rows, rows_of, without

EMBED = contract("embed")
OPS = [name for name in op_names() if "triton" in contract(name).backends]
RESULTS = Path(__file__).parents[2] / "results"


def test_a_row_sums_the_cases_of_a_kernel() -> None:
    cases = [case for case in cases_of(EMBED, None) if case.name in ("one", "ends")]
    found = [emulate(EMBED, case, FNUZ, checks="waits,traffic") for case in cases]
    (row,) = rows_of(EMBED, found)
    assert (row["kernel"], row["cases"], row["agrees"]) == ("embed_kernel", 2, True)
    assert row["instructions"] == sum(case.instructions for case in found)
    assert row["checks"] == ("bounds", "waits")
    assert row["vgprs"] > 0 and row["stored"] == 1.0


def test_a_case_without_a_launch_is_seen_when_it_faults() -> None:
    fault = Emulated("embed", "one", "fnuz", False, float("inf"), "OutOfBounds: a load", 0.1)
    (row,) = rows_of(EMBED, [fault])
    assert not row["agrees"] and row["note"] == "one: OutOfBounds: a load"
    assert "**DISAGREES**" in render([row], []) and "OutOfBounds: a load" in render([row], [])
    empty = Emulated("embed", "empty", "fnuz", True, 0.0, "", 0.1)
    assert rows_of(EMBED, [empty]) == []


def test_a_run_over_one_op_leaves_the_rows_of_others(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    old = [
        {"triton": t, "op": op, "kernel": f"{op}_{k}", "age": "old"}
        for t in ("3.6.0", "3.9.0")
        for op in ("a", "b")
        for k in range(2)
    ]
    replace_rows(file, old)
    new = replace_rows(file, [{"triton": "3.6.0", "op": "a", "kernel": "a_0", "age": "new"}])
    assert len(new) == 7 and new == load(file)
    assert [r["kernel"] for r in new if r["op"] == "a" and r["triton"] == "3.6.0"] == ["a_0"]


def test_the_command_writes_rows_and_page(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    page = tmp_path / "gfx942.md"
    assert main(["embed"], None, Plan(report=page)) == 0
    rows = load(page.with_suffix(".jsonl"))
    assert [row["kernel"] for row in rows] == ["embed_kernel"]
    assert rows[0]["checks"] == ["bounds", "lds", "poison", "schedule", "waits"]
    text = page.read_text(encoding="utf-8")
    assert CAVEAT in text and text == render(rows, OPS)
    assert "0 disagree" in capfd.readouterr().out


def test_the_page_names_ops_without_rows() -> None:
    rows = load(RESULTS / "gfx942.jsonl")
    assert without(rows, ["embed", "nothing"]) == ["nothing"]
    assert without([row for row in rows if row["triton"] != "3.6.0"][:1] + rows[:1], []) == []


def test_the_page_in_results_is_made_of_its_rows_and_all_agree() -> None:
    rows = load(RESULTS / "gfx942.jsonl")
    page = (RESULTS / "gfx942.md").read_text(encoding="utf-8")
    assert {row["triton"] for row in rows} == {"3.6.0", "3.9.0"}
    assert all(row["agrees"] for row in rows) and CAVEAT in page
    table = [line for line in page.splitlines() if line.startswith("| ")][1:]
    assert len(table) == len(rows)


def test_a_record_of_one_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="one case"):
        main(["embed"], "one", Plan(record=tmp_path / "x.jsonl"))


def test_executed_cases_are_counted_beside_what_is_compiled(capsys: pytest.CaptureFixture) -> None:
    assert run.main(["gfx942"], ["embed"], as_json=True, flash=False, execute=True) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert rows and all(row["counts"] for row in rows)
    for counts in (row["counts"] for row in rows):
        assert counts["instructions"] > 0 and counts["stored"] == 1.0  # whole rows are copied
        assert counts["matrix_clocks"] == 0 and counts["bound_clocks"] > 0
    assert run.main(["gfx942"], ["embed"], as_json=True, flash=False) == 0
    plain = json.loads(capsys.readouterr().out)["rows"]
    assert [row["specialisation"] for row in plain] == [row["specialisation"] for row in rows]
    assert not any(row["counts"] for row in plain)
