"""A false claim of alignment in sm_90's code is found from the addresses of gfx942's; the engine's
kernels make none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from isobath.numerics import OCP
from isobath.ops.contract import Op
from isobath.ops.measure import CPU, Subject
from isobath.ops.table import contract, op_names
from isobath.xcompile.alignment import claims, misaligned
from isobath.xcompile.emulate import GFX942, cases_of
from isobath.xcompile.triton_record import Launch, recording
from tests.support import triton_alignment as kernels

ALWAYS = ("embed",)
OPS = [
    pytest.param(op, marks=() if op.name in ALWAYS else pytest.mark.nightly, id=op.name)
    for op in map(contract, op_names())
    if "triton" in op.backends
]


def findings(call: Callable[[], object]) -> list[str]:
    """What is wrong in the launches that `call` makes."""
    found: list[str] = []

    def act(launch: Launch) -> None:
        found.extend(misaligned(launch))

    with torch.no_grad(), recording(GFX942, act):
        call()
    return found


def copied(hint: int, step: int) -> list[str]:
    """Every step-th row of 33 words, said to be multiples of `hint`."""
    data = torch.arange(64 * 33, dtype=torch.int32)
    table, out = torch.arange(0, 16 * step, step), torch.zeros(16 * 32, dtype=torch.int32)
    named = {"WIDTH": 33, "COUNT": 16, "HINT": hint}
    call = lambda: kernels.picked_rows[(1,)](data, table, out, num_warps=1, **named)  # noqa: E731
    found = findings(call)
    assert torch.equal(out.view(16, 32), data.view(64, 33)[table, :32])
    return found


def test_a_false_claim_is_found_where_gfx942_is_right() -> None:
    """Other rows than each fourth begin at odd words, and sm_90 would read four words at once."""
    (told, *_) = copied(hint=4, step=3)
    assert "triton_alignment.py" in told and "16 bytes at once on sm_90" in told, told


def test_claims_that_hold_are_not_reported() -> None:
    assert copied(hint=4, step=4) == copied(hint=1, step=3) == []


def test_claims_are_read_from_ptx() -> None:
    ptx = """
        .loc 1 7 20
        ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
        .loc 1 8 4
        st.global.b16 [ %rd2 + 0 ], { %rs1 };
        @%p1 ld.global.L1::evict_last.v2.b64 { %rd4, %rd5 }, [ %rd3 + 0 ];
        .file 1 "/somewhere/kernel.py"
    """
    assert claims(ptx) == {("kernel.py", 7, 20): 16, ("kernel.py", 8, 4): 2}


@pytest.mark.parametrize("op", OPS)
def test_the_engines_kernels_claim_nothing_false(op: Op) -> None:
    """In OCP, which both targets compile; only addresses matter."""
    for case in cases_of(op, None):
        subject = Subject(op, op.backend("triton"), case, OCP, CPU)
        call = lambda s=subject: s.observe(s.prepared(s.build()))  # noqa: E731
        assert findings(call) == [], case.name
