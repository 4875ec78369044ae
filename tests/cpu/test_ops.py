"""Every op, every CPU backend, every case, both dialects: right, and as its contract promises.

The ops, backends and cases are discovered through the op table; an op without cases fails here.
Properties that only a GPU can show (graph safety) must come out as not measured, never as true.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch

from isobath.numerics.dialect import DIALECTS
from isobath.ops.contract import Op
from isobath.ops.measure import Measurement, Subject, measure
from isobath.ops.table import contract, op_names

CPU = torch.device("cpu")
CPU_BACKENDS = ("torch",)


def backends(op: Op) -> list[str]:
    return [name for name in op.backends if name in CPU_BACKENDS]


def subjects() -> list[tuple[str, str, str, str]]:
    return [
        (name, backend, case.name, dialect)
        for name in op_names()
        for backend in backends(contract(name))
        for case in contract(name).cases()
        if not case.gpu_only
        for dialect in DIALECTS
    ]


@cache
def measured(name: str, backend: str, case_name: str, dialect: str) -> Measurement:
    op = contract(name)
    (case,) = (case for case in op.cases() if case.name == case_name)
    return measure(Subject(op, op.backend(backend), case, DIALECTS[dialect], CPU))


@pytest.mark.parametrize("name", op_names())
def test_op_has_cases_for_an_empty_batch_and_a_single_row(name: str) -> None:
    op = contract(name)
    names = [case.name for case in op.cases()]
    assert len(names) == len(set(names)), f"case names repeat: {names}"
    assert len(names) >= 5
    assert backends(op), "an op that no CPU backend computes cannot be tested here"
    for needed in ("empty", "one"):
        assert any(n == needed or n.startswith(needed + "_") for n in names), needed


@pytest.mark.parametrize(("name", "backend", "case", "dialect"), subjects())
def test_backend_keeps_its_contract(name: str, backend: str, case: str, dialect: str) -> None:
    """The tolerance is the op's `agree`, derived beside each contract."""
    result = measured(name, backend, case, dialect)
    assert result.agrees, result.note
    for promised in contract(name).must:
        assert getattr(result, promised) is not False, f"{promised}: {result.note}"
    assert result.deterministic is True
    assert result.graph_safe is None, "nothing on a CPU can show that a graph replays"


@pytest.mark.parametrize("name", op_names())
def test_promised_batch_invariance_is_measured_on_some_case(name: str) -> None:
    op = contract(name)
    if "batch_invariant" in op.must:
        for backend in backends(op):
            cases = [case.name for case in op.cases() if not case.gpu_only]
            seen = [measured(name, backend, case, "ocp").batch_invariant for case in cases]
            assert seen.count(True) >= 3, "too few cases of two rows or more to show anything"


@pytest.mark.parametrize("name", op_names())
def test_format_error_is_reported_and_is_larger_than_the_kernels(name: str) -> None:
    """A case of an op with quantised operands remembers their sources. FP8 rounds by up to 2^-4 of
    a value and MXFP4 by up to 2^-2, far above any kernel's own error and far below 100 %."""
    op = contract(name)
    for case in op.cases():
        for backend in backends(op) if case.unrounded and not case.gpu_only else ():
            result = measured(name, backend, case.name, "ocp")
            assert result.format_error is not None
            if not case.name.endswith("empty"):
                assert result.error < result.format_error < 0.5, case.name
