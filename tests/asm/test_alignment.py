"""A false claim of alignment in sm_90's code is found from the addresses of gfx942's; the engine's
kernels make none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch

from isobath.cache.view import CacheView
from isobath.numerics import DIALECTS, FNUZ, OCP, Dialect
from isobath.ops.contract import Op
from isobath.ops.measure import CPU, Subject
from isobath.ops.table import contract, op_names
from isobath.xcompile.alignment import claims, foreign_to_nvidia, misaligned
from isobath.xcompile.emulate import GFX942, cases_of
from isobath.xcompile.triton_record import Launch, recording
from tests.support import triton_alignment as kernels

ALWAYS = ("embed",)
OPS = [
    pytest.param(op, marks=() if op.name in ALWAYS else pytest.mark.nightly, id=op.name)
    for op in map(contract, op_names())
    if "triton" in op.backends
]


@dataclass(slots=True)
class Judged:
    """Launches of a call. false: claims that do not hold. compared: places that were judged, by
    kernel. foreign: kernels of launches that sm_90 cannot compile."""

    false: list[str] = field(default_factory=list)
    compared: Counter[str] = field(default_factory=Counter)
    foreign: list[str] = field(default_factory=list)


def judged(call: Callable[[], object]) -> Judged:
    found = Judged()

    def act(launch: Launch) -> None:
        if foreign_to_nvidia(launch):
            found.foreign.append(launch.name)
            return
        verdict = misaligned(launch)
        found.false.extend(verdict.false)
        found.compared[launch.name] += verdict.compared

    with torch.no_grad(), recording(GFX942, act):
        call()
    return found


def copied(hint: int, step: int) -> list[str]:
    """Every step-th row of 33 words, said to be multiples of `hint`."""
    data = torch.arange(64 * 33, dtype=torch.int32)
    table, out = torch.arange(0, 16 * step, step), torch.zeros(16 * 32, dtype=torch.int32)
    named = {"WIDTH": 33, "COUNT": 16, "HINT": hint}
    call = lambda: kernels.picked_rows[(1,)](data, table, out, num_warps=1, **named)  # noqa: E731
    found = judged(call)
    assert found.compared["picked_rows"] == 3
    assert torch.equal(out.view(16, 32), data.view(64, 33)[table, :32])
    return found.false


def halved(first: int) -> Judged:
    """The low words of 32 numbers of 8 bytes that begin at word `first`."""
    data, out = torch.arange(65, dtype=torch.int32), torch.zeros(32, dtype=torch.int32)
    found = judged(lambda: kernels.low_halves[(1,)](data, out, first, COUNT=32, num_warps=1))
    assert torch.equal(out, data[first::2][:32])
    return found


def test_a_false_claim_is_found_where_gfx942_is_right() -> None:
    """Other rows than each fourth begin at odd words, and sm_90 would read four words at once."""
    (told, *_) = copied(hint=4, step=3)
    assert "triton_alignment.py" in told and "16 bytes at once on sm_90" in told, told


def test_claims_that_hold_are_not_reported() -> None:
    assert copied(hint=4, step=4) == copied(hint=1, step=3) == []


def test_a_number_of_which_gfx942_reads_the_low_half_is_aligned() -> None:
    found = halved(first=0)
    assert found.compared["low_halves"] == 2 and found.false == []


def test_a_misaligned_number_is_found_by_its_low_half() -> None:
    (told,) = halved(first=1).false
    assert "8 bytes at once on sm_90" in told, told


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)
def test_launches_that_sm_90_cannot_compile_are_known_by_their_types(dialect: Dialect) -> None:
    """gfx942 compiles both dialects, sm_90 OCP alone."""
    op = contract("index_logits")
    (case,) = cases_of(op, "one")
    subject = Subject(op, op.backend("triton"), case, dialect, CPU)
    launches: list[Launch] = []
    with recording(GFX942, launches.append):
        subject.observe(subject.prepared(subject.build()))
    assert [foreign_to_nvidia(launch) for launch in launches] == [dialect == FNUZ]


def test_claims_are_read_from_ptx() -> None:
    """Triton 3.9 gives each line of inline assembly a line of its own."""
    ptx = """
        .loc 1 6 1
        // begin inline asm
        .loc 1 7 20
        mov.u32 %r1, 0x0;
        .loc 1 8 20
        ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd1 + 0 ];
        // end inline asm
        .loc 1 8 4
        st.global.b16 [ %rd2 + 0 ], { %rs1 };
        @%p1 ld.global.L1::evict_last.v2.b64 { %rd4, %rd5 }, [ %rd3 + 0 ];
        .file 1 "/somewhere/kernel.py"
    """
    assert claims(ptx) == {("kernel.py", 7, 20): 16, ("kernel.py", 8, 4): 2}


@pytest.mark.parametrize("op", OPS)
def test_the_engines_kernels_claim_nothing_false(op: Op) -> None:
    """In OCP, which both targets compile; only addresses matter. A launch is left out where a cache
    speaks FNUZ all the same, and every kernel is judged in some other case."""
    compared: Counter[str] = Counter()
    launched: set[str] = set()
    for case in cases_of(op, None):
        subject = Subject(op, op.backend("triton"), case, OCP, CPU)
        args = subject.build()
        mixed = any(isinstance(a, CacheView) and a.dialect == FNUZ for a in args.values())
        found = judged(lambda s=subject, a=args: s.observe(s.prepared(a)))
        assert found.false == [], case.name
        assert mixed or not found.foreign, (case.name, found.foreign)
        compared += found.compared
        launched |= {*found.compared, *found.foreign}
    assert launched and launched == set(compared), launched - set(compared)
