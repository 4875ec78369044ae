"""Every op, backend and case on the GPU of this machine, in the dialect that it reads.

`make test-gpu` runs this; without a GPU every test here fails, since nothing was shown.
"""

from __future__ import annotations

import pytest

from isobath.errors import BackendUnavailable
from isobath.ops.measure import Subject, measure
from isobath.ops.table import contract, op_names
from isobath.target import detect

pytestmark = pytest.mark.gpu
OURS = "triton"


def subjects() -> list[tuple[str, str, str]]:
    return [
        (name, backend, case.name)
        for name in op_names()
        for backend in contract(name).backends
        if backend != "torch"
        for case in contract(name).cases()
    ]


@pytest.mark.parametrize(("name", "backend", "case_name"), subjects())
def test_backend_keeps_its_contract(name: str, backend: str, case_name: str) -> None:
    """Tolerances are the ops' own. A library that is not installed must say what to do; one that is
    may depend on the batch, for choose() then asks the user."""
    op, target = contract(name), detect("gpu")
    try:
        bound = op.backend(backend)
    except BackendUnavailable as refusal:
        assert backend != OURS, "our own kernels load wherever there is a GPU"
        assert refusal.found and refusal.do
        return
    (case,) = (case for case in op.cases() if case.name == case_name)
    result = measure(Subject(op, bound, case, target.dialect, target.device))
    assert result.agrees, result.note
    assert result.deterministic is True, result.note
    assert result.graph_safe is not False, result.note
    if backend == OURS and "batch_invariant" in op.must:
        assert result.batch_invariant is not False, result.note
