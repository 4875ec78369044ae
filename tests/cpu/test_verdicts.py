"""Verdict rows survive the disk, and the choice made from them is the one their facts allow."""

from __future__ import annotations

from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from isobath.errors import ConfigError
from isobath.numerics.dialect import DIALECTS, OCP
from isobath.ops.contract import Op
from isobath.ops.measure import Subject, measure
from isobath.ops.table import contract
from isobath.ops.verdicts import (
    Verdict,
    append,
    choose,
    failures,
    of_this_machine,
    read,
    source_hash,
    verdict,
    write,
)
from isobath.target import Target, detect

RMS = replace(contract("rms_norm"), backends=("first", "second"))
CASES = [case.name for case in RMS.cases()]


def detect_triton() -> str | None:
    """The installed triton's version, as rows record it."""
    found = [d.version for d in metadata.distributions(name="triton")]
    return found[0] if found else None


def row(backend: str, case: str, dialect: str = "ocp", **facts: Any) -> Verdict:
    """A passing verdict, but for `facts`."""
    fields: dict[str, Any] = {
        "op": "rms_norm",
        "backend": backend,
        "case": case,
        "dialect": dialect,
        "arch": "cpu",
        "device": "a machine",
        "python": "3.11.0",
        "torch": "2.13.0",
        "triton": None,
        "source": source_hash("rms_norm"),
        "agrees": True,
        "error": 0.0,
        "format_error": None,
        "deterministic": True,
        "graph_safe": None,
        "batch_invariant": None if case in ("empty", "one") else True,
        "us": 10.0,
        "us_p10": 9.0,
        "us_p90": 12.0,
        "note": "",
    }
    return Verdict(**(fields | facts))


def rows(backend: str, case: str = "", **facts: Any) -> list[Verdict]:
    """Passing verdicts on every case and dialect; `facts` on one case, or on all."""
    return [
        row(backend, name, dialect, **(facts if case in ("", name) else {}))
        for dialect in DIALECTS
        for name in CASES
    ]


def test_fastest_passing_backend_is_chosen_and_the_other_explained() -> None:
    choice = choose(rows("first") + rows("second", us=4.0), RMS)
    assert choice.backend == "second"
    assert "fastest of 2" in choice.reason
    assert choice.rejected == {"first": "slower: 10.0 us"}


def test_equally_fast_backends_follow_the_contracts_order() -> None:
    assert choose(rows("second") + rows("first"), RMS).backend == "first"


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"agrees": False, "note": "row 3 is zero"}, "wrong on case ragged fnuz: row 3 is zero"),
        ({"deterministic": False}, "not deterministic on case ragged fnuz"),
        ({"batch_invariant": False}, "not batch_invariant on case ragged fnuz"),
        ({"us": None}, "not timed on case ragged fnuz"),
    ],
)
def test_one_failed_case_rejects_a_faster_backend(facts: dict[str, Any], why: str) -> None:
    choice = choose(rows("first", "ragged", **facts) + rows("second", us=99.0), RMS)
    assert choice.backend == "second"
    assert choice.rejected == {"first": why}


def test_unpromised_property_does_not_reject() -> None:
    op: Op = replace(RMS, must=("deterministic",))
    assert choose(rows("first", batch_invariant=False), op).backend == "first"


def test_batch_dependent_backend_wins_only_where_the_user_does_without_invariance() -> None:
    measured = rows("first") + rows("second", us=1.0, batch_invariant=False)
    assert choose(measured, RMS).backend == "first"
    assert choose(measured, RMS, batch_invariant=False).backend == "second"


def test_graph_safety_is_asked_of_every_backend_promised_or_not() -> None:
    op: Op = replace(RMS, must=("deterministic",))
    measured = rows("first", us=1.0, graph_safe=False) + rows("second", graph_safe=True)
    choice = choose(measured, op)
    assert choice.backend == "second" and "graph_safe" in choice.rejected["first"]


def test_red_verdicts_name_what_they_lack() -> None:
    assert failures(row("first", "tall", graph_safe=True), RMS) == []
    assert failures(row("first", "tall", agrees=False, graph_safe=False), RMS) == ["wrong"]
    assert failures(row("first", "tall", graph_safe=False), RMS) == ["graph_safe"]
    dependent = row("first", "tall", batch_invariant=False)
    assert failures(dependent, RMS) == ["batch_invariant"]
    assert failures(dependent, RMS, batch_invariant=False) == []


def test_verdicts_of_other_versions_or_another_dialect_say_nothing_about_a_gpu() -> None:
    here = row("first", "one", arch="sm_90", torch=torch.__version__, triton=detect_triton())
    gpu = Target("a GPU", "sm_90", OCP, 1 << 30, "cuda")
    others = [replace(here, torch="2.11.0"), replace(here, arch="cpu"), replace(here, triton="0")]
    others.append(replace(here, dialect="fnuz"))
    assert of_this_machine([here, *others], gpu) == [here]


def test_case_without_a_verdict_rejects() -> None:
    partial = [v for v in rows("first", us=1.0) if (v.case, v.dialect) != ("tall", "fnuz")]
    choice = choose(partial + rows("second"), RMS)
    assert choice.rejected["first"] == "no verdict on case tall fnuz"


def test_property_measured_nowhere_for_one_backend_rejects_it() -> None:
    choice = choose(rows("first", us=1.0, batch_invariant=None) + rows("second"), RMS)
    assert choice.backend == "second"
    assert choice.rejected["first"] == "batch_invariant was measured on none of its cases"


def test_promise_that_nothing_here_can_measure_is_named_in_the_reason() -> None:
    op = replace(RMS, must=("deterministic", "graph_safe"))
    assert choose(rows("first"), op).reason.endswith("not measurable here: graph_safe")


def test_verdicts_on_other_source_do_not_count() -> None:
    choice = choose(rows("first", us=1.0, source="0" * 12) + rows("second"), RMS)
    assert choice.backend == "second"
    assert choice.rejected["first"] == "measured on other source only"


def test_later_verdict_replaces_an_earlier_one() -> None:
    assert choose(rows("first", agrees=False) + rows("first"), RMS).backend == "first"
    with pytest.raises(ConfigError):
        choose(rows("first") + rows("first", agrees=False), RMS)


def test_no_passing_backend_is_an_error_that_says_why_of_each() -> None:
    with pytest.raises(ConfigError) as caught:
        choose(rows("first", "tall", agrees=False, note="off by two"), RMS)
    text = str(caught.value)
    assert "first: wrong on case tall fnuz: off by two" in text
    assert "second: never measured" in text
    assert "do:" in text and "effect:" in text


def test_verdicts_of_two_architectures_are_not_mixed() -> None:
    with pytest.raises(ConfigError, match="cpu, gfx942"):
        choose(rows("first") + rows("second", arch="gfx942"), RMS)


def test_verdicts_of_other_ops_are_not_counted() -> None:
    with pytest.raises(ConfigError, match="never measured"):
        choose([replace(v, op="swiglu") for v in rows("first")], RMS)


def test_measured_rows_survive_the_disk(tmp_path: Path) -> None:
    op, target = contract("rms_norm"), detect("cpu")
    path = tmp_path / "new" / "rows.jsonl"
    made = []
    for case in op.cases()[:3]:
        subject = Subject(op, op.backend("torch"), case, OCP, torch.device("cpu"))
        made.append(verdict(subject, measure(subject, timed=True), target))
        append(path, made[-1:])
    assert read(path) == made
    assert made[0].torch == torch.__version__ and made[0].arch == "cpu"
    assert made[0].graph_safe is None
    write(path, made[:1])
    assert read(path) == made[:1]
    assert list(path.parent.iterdir()) == [path], "a temporary file was left behind"


def test_infinite_error_is_written_as_null(tmp_path: Path) -> None:
    op = contract("rms_norm")
    wrong = replace(op.backend("torch"), call=lambda **args: None)
    subject = Subject(op, wrong, op.cases()[1], OCP, torch.device("cpu"))
    made = verdict(subject, measure(subject), detect("cpu"))
    append(tmp_path / "rows.jsonl", [made])
    assert "Infinity" not in (tmp_path / "rows.jsonl").read_text()
    assert read(tmp_path / "rows.jsonl") == [made]
    assert not made.agrees and made.error is None


def test_rows_of_other_kinds_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"bench": "cpu", "tokens_per_s": 80}\n')
    append(path, [row("first", "one")])
    assert read(path) == [row("first", "one")]


@pytest.mark.parametrize("damage", ['{"op": "rms_norm", "case"', '{"op": "a", "case": "b"}', "[1]"])
def test_damaged_row_is_an_error_that_names_its_line(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "rows.jsonl"
    append(path, [row("first", "one")])
    path.write_text(path.read_text() + damage + "\n")
    with pytest.raises(ConfigError, match="line 2"):
        read(path)


def test_source_hash_tells_ops_apart_and_is_stable() -> None:
    assert source_hash("rms_norm") == source_hash("rms_norm")
    assert source_hash("rms_norm") != source_hash("swiglu")
