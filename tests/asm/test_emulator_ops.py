"""Every op's small cases through the gfx942 machine code of its kernels, in FNUZ, against the op's
own reference: bounds on every case, every check on one case an op, everything nightly."""

from __future__ import annotations

import pytest

from isobath.numerics import FNUZ
from isobath.ops.contract import Case, Op
from isobath.ops.table import contract, op_names
from isobath.xcompile.emulate import cases_of, emulate

OPS = [op for op in map(contract, op_names()) if "triton" in op.backends]
EVERY = [(op, case) for op in OPS for case in cases_of(op, None)]


def smallest(op: Op) -> Case:
    """The first case that launches a kernel on more than one row, by the order of the cases."""
    known = [case for case in cases_of(op, None) if case.name not in ("empty", "one")]
    return known[0]


def name(pair: tuple[Op, Case]) -> str:
    return f"{pair[0].name}-{pair[1].name}"


@pytest.mark.parametrize("pair", EVERY, ids=name)
def test_case_agrees_in_machine_code(pair: tuple[Op, Case]) -> None:
    found = emulate(*pair, FNUZ, checks="none")
    assert found.agrees, found.note


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_op_passes_every_check(op: Op) -> None:
    found = emulate(op, smallest(op), FNUZ, checks="all", exact=True)
    assert found.agrees, found.note


@pytest.mark.nightly
@pytest.mark.parametrize("pair", EVERY, ids=name)
def test_case_passes_every_check(pair: tuple[Op, Case]) -> None:
    found = emulate(*pair, FNUZ, checks="all", exact=True)
    assert found.agrees, found.note
