"""Which backend an op gets follows from the machine, the user and verdicts that still hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from isobath import AsyncLLM
from isobath.errors import BackendUnavailable, ConfigError
from isobath.numerics.dialect import OCP
from isobath.ops.binding import bind_measured, refuse_failed, self_check
from isobath.ops.contract import Backend, keep
from isobath.ops.measure import Subject, measure
from isobath.ops.table import contract, table_names
from isobath.ops.verdicts import Verdict, source_hash, verdict, verdict_file, write
from isobath.target import Target, detect

CPU = detect("cpu")
GPU = Target("a GPU", "sm_90", OCP, 1 << 30, "cuda")


def passing(op: str, backend: str, **facts: Any) -> list[Verdict]:
    """Verdicts of GPU that pass on every case, but for `facts`; made of a real row of this CPU."""
    one = contract(op)
    subject = Subject(one, one.backend("torch"), one.cases()[0], OCP, CPU.device)
    row = verdict(subject, measure(subject), GPU)
    right = {
        "backend": backend,
        "deterministic": True,
        "graph_safe": True,
        "batch_invariant": True,
        "us": 5.0,
        "source": source_hash(op),
    }
    return [replace(row, **(right | facts), case=case.name) for case in one.cases()]


def everything(**facts: dict[str, Any]) -> list[Verdict]:
    """Passing verdicts of every op's triton backend; facts: op -> what differs there."""
    rows = []
    for name in table_names():
        rows += passing(name, "triton", **facts.get(name, {}))
    return rows


def test_a_cpu_takes_its_own_backend_and_nothing_is_measured() -> None:
    table, choices = bind_measured(CPU)
    assert {backend.name for backend in table} == {"torch"}
    assert set(choices) == set(table_names())


def test_a_gpu_takes_what_its_verdicts_choose_and_says_why() -> None:
    table, choices = bind_measured(GPU, everything())
    assert {backend.name for backend in table} == {"triton"}
    assert all("fastest of 1 that pass" in choice.reason for choice in choices.values())


def test_a_faster_library_that_depends_on_the_batch_needs_the_users_word() -> None:
    rows = everything() + passing("linear", "cublas", us=1.0, batch_invariant=False)
    strict = bind_measured(GPU, rows, overrides={})[1]["linear"]
    assert strict.backend == "triton" and "batch_invariant" in strict.rejected["cublas"]
    with pytest.raises(BackendUnavailable, match="cuBLAS"):  # chosen, and refused on this CPU
        bind_measured(GPU, rows, batch_invariant=False)


def test_a_failed_verdict_stops_the_start_and_names_the_case() -> None:
    rows = everything(embed={"agrees": False, "note": "row 3 is zero"})
    with pytest.raises(ConfigError, match="row 3 is zero") as caught:
        bind_measured(GPU, rows)
    assert "isobath doctor --op embed" in str(caught.value)
    table, choices = bind_measured(GPU, rows, overrides={"embed": "reference"})
    assert table.embed.name == "reference" and choices["embed"].reason == "bound by hand"


def test_failed_verdicts_can_be_allowed_and_the_reason_says_so() -> None:
    rows = everything(embed={"agrees": False, "note": "row 3 is off"})
    _, choices = bind_measured(GPU, rows, allow_failed=True)
    assert choices["embed"].backend == "triton"
    assert choices["embed"].reason.startswith("failed verdicts were allowed: ")
    assert "row 3 is off" in choices["embed"].reason
    assert choices["linear"].reason.startswith("fastest of 1")


def on_this_cpu(**facts: Any) -> Verdict:
    """A verdict of this CPU, passing but for `facts`."""
    one = contract("embed")
    subject = Subject(one, one.backend("torch"), one.cases()[0], OCP, CPU.device)
    return replace(verdict(subject, measure(subject), CPU), **facts)


def test_a_cpu_is_refused_where_its_own_backend_was_found_wrong() -> None:
    refuse_failed(CPU, [on_this_cpu()])
    with pytest.raises(ConfigError, match=r"(?s)embed on case .*: wrong.*allow-failed-verdicts"):
        refuse_failed(CPU, [on_this_cpu(agrees=False)])


@pytest.mark.parametrize("stale", [{"source": "0" * 12}, {"torch": "1.0"}, {"backend": "triton"}])
def test_a_failed_verdict_that_no_longer_holds_refuses_nothing(stale: dict[str, str]) -> None:
    refuse_failed(CPU, [on_this_cpu(agrees=False, **stale)])


def test_a_later_round_of_the_doctor_replaces_a_failed_verdict() -> None:
    refuse_failed(CPU, [on_this_cpu(agrees=False), on_this_cpu()])


def test_an_engine_does_not_start_on_a_failed_verdict(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ISOBATH_CACHE", str(tmp_path))
    write(verdict_file(CPU), [on_this_cpu(agrees=False)])
    with pytest.raises(ConfigError, match="1 failed verdicts of the doctor"):
        AsyncLLM()


def test_verdicts_that_no_longer_hold_are_replaced_by_a_check_at_start() -> None:
    """On this CPU the Triton kernel cannot run, so that the check refuses it and says so."""
    rows = [v for v in everything() if v.op != "embed"] + passing("embed", "triton", torch="1.0")
    with pytest.raises(BackendUnavailable, match="embed: no backend for sm_90"):
        bind_measured(GPU, rows)


def test_check_at_start_tells_right_from_wrong() -> None:
    op = contract("embed")
    assert self_check(op, op.backend("torch"), CPU) == ""

    def zeros(token_ids: torch.Tensor, weight: torch.Tensor, *, copies: int) -> torch.Tensor:
        return weight.new_zeros(len(token_ids), copies, weight.shape[1])

    assert "case one" in self_check(op, Backend("embed", "planted", zeros, keep), CPU)

    def raises(*args: Any, **kwargs: Any) -> torch.Tensor:
        raise RuntimeError("out of registers")

    why = self_check(op, Backend("embed", "planted", raises, keep), CPU)
    assert "RuntimeError: out of registers" in why
