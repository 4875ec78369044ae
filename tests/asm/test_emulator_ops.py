"""Every op's small cases through the gfx942 machine code of its kernels, in FNUZ, against the op's
own reference: bounds on every case that takes seconds, every check on one case an op, every check
on everything nightly."""

from __future__ import annotations

import pytest

from isobath.numerics import FNUZ
from isobath.ops.contract import Case, Op
from isobath.ops.table import contract, op_names
from isobath.xcompile.emulate import cases_of, emulate

OPS = [op for op in map(contract, op_names()) if "triton" in op.backends]
EVERY = [(op, case) for op in OPS for case in cases_of(op, None)]
LONG = {
    "attend": "prefill prefill_selected nan_window_prefill other_dialect_mixed spare_pages_mixed "
    "mixed mixed_padded mixed_selected plain_mixed window_only_prefill many_entries",
    "sparse_attention": "prefill prefill_selected nan_window_prefill other_dialect_mixed mixed "
    "mixed_padded mixed_selected plain_mixed window_only_prefill other_dialect real_heads plain "
    "decode_selected decode_selected_padded decode_padded prefill_residue_1 prefill_residue_3",
    "hyper_enter": "flash_tall",
    "hyper_mix": "flash",
    "moe": "tall wide",
}
"""Left to the night: half of the time that all cases take. What is special about each is left in a
shorter case (prefill_residue_1 to 3, real_prefill, mixed_ratio_128, nan_entry_prefill, spare_pages,
decode_padded, flash), for sparse_attention in the case of that name of attend, its kernel."""
SHORT = [(op, case) for op, case in EVERY if case.name not in LONG.get(op.name, "").split()]


def smallest(op: Op) -> Case:
    """The first case that launches a kernel on more than one row, by the order of the cases."""
    known = [case for case in cases_of(op, None) if case.name not in ("empty", "one")]
    return known[0]


def name(pair: tuple[Op, Case]) -> str:
    return f"{pair[0].name}-{pair[1].name}"


def test_the_long_cases_exist() -> None:
    for op, names in LONG.items():
        assert set(names.split()) <= {case.name for case in cases_of(contract(op), None)}, op


@pytest.mark.parametrize("pair", SHORT, ids=name)
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
