"""Opcodes against LLVM's constant folding: AMD's intrinsics on constants, folded by opt, and on
variables, compiled by llc and emulated, give the same bits (a NaN's payload apart).

Needs opt and llc (make setup-asm).
"""

from __future__ import annotations

import numpy as np
import pytest

from isobath.emulator import run_program
from isobath.emulator.code import parse_text
from tests.support import llvm_folding as folding
from tests.support import llvm_programs as llvm

ALWAYS = {"amdgcn.perm", "fma.f64", "amdgcn.class.f16", "fshr.i32", "sadd.sat.i16"}
SPLIT = [
    pytest.param(one, marks=() if one.name in ALWAYS else pytest.mark.nightly)
    for one in folding.TABLE
]
NOT_A_NUMBER = {"half": (0x7FFF, 0x7C00), "float": (0x7FFFFFFF, 0x7F800000),
                "double": (2**63 - 1, 0x7FF << 52)}  # fmt: skip


def is_nan(kind: str, bits: int) -> bool:
    mask, infinity = NOT_A_NUMBER.get(kind, (0, 1))
    return bits & mask > infinity


def same(one: folding.Intrinsic, got: int, want: int) -> bool:
    """Equal bits, or both NaN; of a median the sign of zero is not modelled."""
    if got == want or (is_nan(one.result, got) and is_nan(one.result, want)):
        return True
    sign = 1 << folding.result_bits(one) - 1
    return "fmed3" in one.name and (got | sign) == (want | sign) == sign


@pytest.mark.parametrize("one", SPLIT, ids=lambda one: one.name)
def test_intrinsic_is_what_llvm_folds_it_to(one: folding.Intrinsic) -> None:
    opt, llc = llvm.tool(folding.OPT), llvm.tool(llvm.LLC)
    assert opt and llc, "make setup-asm installs LLVM 19"
    arguments = folding.draw(one, np.random.default_rng(len(one.name)))
    want = folding.folded(one, arguments, opt)
    known = [k for k, bits in enumerate(want) if bits is not None]
    if "fmed3" in one.name:  # of a NaN in the last place LLVM 19 takes the larger, AMD the smaller
        known = [k for k in known if not is_nan(one.result, arguments[2][k])]
    assert len(known) > 0.9 * folding.CASES, f"opt folds {len(known)} of {folding.CASES}"
    words = {16: np.uint16, 32: np.uint32, 64: np.uint64}
    given = [
        (f"a{k}", np.array(bits, words[folding.BITS[kind]]))
        for k, (bits, kind) in enumerate(zip(arguments, one.types, strict=True))
    ]
    out = np.zeros(folding.CASES, words[folding.result_bits(one)])
    code = parse_text(folding.kernel(one, llc))
    run_program(code, (1, 1, 1), [*given, ("out", out)], num_warps=4, lds_bytes=0)
    wrong = [
        (k, hex(int(out[k])), hex(want[k] or 0), [hex(a[k]) for a in arguments])
        for k in known
        if not same(one, int(out[k]), want[k] or 0)
    ]
    assert not wrong, wrong[:5]
