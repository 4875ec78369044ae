"""The idea the project stands on: what a CPU backend computes does not depend on the dialect.

Each case is built once in OCP and once in FNUZ from the same numbers. The bytes and scales differ;
every observed value must have the same bits, cache rows included, because both dialects quantise to
the same values and a kernel does the same float operations on them in the same order.
"""

from __future__ import annotations

import pytest
import torch

from isobath.numerics.dialect import DIALECTS, FNUZ, OCP, Dialect
from isobath.numerics.fp8 import Fp8Tensor
from isobath.ops.contract import Arguments
from isobath.ops.measure import Observed, Subject
from isobath.ops.placement import tensors
from isobath.ops.table import contract, op_names

CPU = torch.device("cpu")
SCALES = ("scale",)
"""Observed scale bytes differ by one power of two on purpose: FNUZ's bytes mean half of OCP's."""


def subjects() -> list[tuple[str, str, str]]:
    return [
        (name, backend, case.name)
        for name in op_names()
        for backend in contract(name).backends
        if backend == "torch"
        for case in contract(name).cases()
        if not case.gpu_only
    ]


def subject(name: str, backend: str, case_name: str, dialect: Dialect) -> Subject:
    op = contract(name)
    (case,) = (case for case in op.cases() if case.name == case_name)
    return Subject(op, op.backend(backend), case, dialect, CPU)


def observed(one: Subject) -> Observed:
    with torch.no_grad():
        return one.observe(one.prepared(one.build()))


def bits(t: torch.Tensor) -> torch.Tensor:
    """The bytes of t, with every NaN made the same one and -0 made 0: a NaN has no value, and FNUZ
    has no -0 to keep."""
    if t.is_floating_point():
        t = torch.where(t.isnan(), torch.nan, t) + 0.0
    return t.contiguous().reshape(-1).view(torch.uint8)


@pytest.mark.parametrize(("name", "backend", "case"), subjects())
def test_values_have_the_same_bits_in_both_dialects(name: str, backend: str, case: str) -> None:
    ocp = observed(subject(name, backend, case, OCP))
    fnuz = observed(subject(name, backend, case, FNUZ))
    assert ocp.keys() == fnuz.keys()
    for tensor in ocp.keys() - set(SCALES):
        assert ocp[tensor].shape == fnuz[tensor].shape
        assert ocp[tensor].dtype == fnuz[tensor].dtype
        assert torch.equal(bits(ocp[tensor]), bits(fnuz[tensor])), tensor


def fp8_operands(args: Arguments) -> list[Fp8Tensor]:
    return [value for value in args.values() if isinstance(value, Fp8Tensor)]


@pytest.mark.parametrize("name", ["fp8_linear", "grouped_linear", "experts"])
def test_the_dialects_really_differ_in_their_bytes(name: str) -> None:
    """Otherwise the test above compares a thing with itself."""
    built = [subject(name, "torch", "one", d).build() for d in DIALECTS.values()]
    ocp, fnuz = (fp8_operands(args) for args in built)
    assert ocp and len(ocp) == len(fnuz)
    for a, b in zip(ocp, fnuz, strict=True):
        assert (a.dialect, b.dialect) == (OCP, FNUZ)
        assert torch.equal(b.scale.int(), a.scale.int() + 1)
    assert len(tensors(built[0])) == len(tensors(built[1]))
