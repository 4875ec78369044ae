"""The gfx942 machine code of every Triton kernel, run by the emulator where there is no GPU.

Compiled as the JIT would for an MI300X and executed on a CPU in FNUZ, on the first small cases of
each op: this is emulation, and says nothing about time. Needs the packages of isobath[asm]; all
cases, and what each kernel uses of registers and LDS, are for `isobath emulate` and `xcompile`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from isobath.doctor.whole import Finding
from isobath.numerics.dialect import FNUZ
from isobath.ops.contract import Case, Op
from isobath.ops.table import contract, op_names

CASES = 2
"""Of each op: one token, and several where the second case has them."""


def has_tools() -> bool:
    """Whether kernels can be compiled here."""
    return find_spec("triton") is not None


def ops() -> list[Op]:
    """Those with Triton kernels."""
    return [op for op in map(contract, op_names()) if "triton" in op.backends]


def check_gfx942(which: Sequence[Op], advance: Callable[[str, int], None]) -> list[Finding]:
    """A finding an op; one step each."""
    from isobath.xcompile.emulate import emulate  # imports triton

    findings = []
    for op in which:
        wrong, error = "", 0.0
        chosen = _cases(op)
        for case in chosen:
            try:
                found = emulate(op, case, FNUZ)
            except Exception as raised:  # a launcher may raise anything, and that is its verdict
                wrong = wrong or f"case {case.name}: {type(raised).__name__}: {raised}"
                continue
            error = max(error, found.error)
            if not found.agrees:
                wrong = wrong or f"case {case.name}: {found.note}"
        right = f"{', '.join(case.name for case in chosen)} agree, worst error {error:.2g}"
        again = f"isobath emulate --op {op.name}"
        findings.append(Finding(f"gfx942 emulated: {op.name}", not wrong, wrong or right, again))
        advance(f"gfx942 {op.name}", 1)
    return findings


def _cases(op: Op) -> list[Case]:
    small = [c for c in op.cases() if c.small and not c.gpu_only and "empty" not in c.name]
    return small[:CASES]
