"""An op's Triton kernels on one of its cases, their gfx942 machine code run by the emulator.

The op's own launcher runs on CPU tensors under the recorder; every launch it makes is compiled as
the JIT would compile it for gfx942 and executed at once, so that what the launcher returns is what
the machine code computed. It is judged against the op's reference by the op's own agreement, as on
a GPU. This is emulation: nothing has been run on an MI300X.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache

import torch

from isobath.emulator import Fault, UnsupportedInstruction, run_program
from isobath.emulator import Launch as Ran
from isobath.emulator.code import parse_text
from isobath.errors import ConfigError
from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Case, Op
from isobath.ops.measure import CPU, Subject, expected, judge
from isobath.xcompile.elf import code_hash
from isobath.xcompile.resources import Resources, resources
from isobath.xcompile.target import MACHINES
from isobath.xcompile.triton_build import compiled
from isobath.xcompile.triton_record import Argument, Launch, recording

GFX942 = MACHINES["gfx942"]


@dataclass(frozen=True, slots=True)
class KernelRun:
    """One launch that was executed. code: hash of its machine code; found: what that takes; ran:
    what was executed and checked."""

    kernel: str
    code: str
    found: Resources
    ran: Ran

    def __str__(self) -> str:
        return str(self.ran)


@dataclass(frozen=True, slots=True)
class Emulated:
    """agrees, error: against the reference, in the unit of the op's agreement. note: the first
    difference or the fault, "" when there is none. runs: every launch that was executed."""

    op: str
    case: str
    dialect: str
    agrees: bool
    error: float
    note: str
    seconds: float
    runs: list[KernelRun] = field(default_factory=list)

    @property
    def instructions(self) -> int:
        """Executed, counted once a wave."""
        return sum(run.ran.outcome.instructions for run in self.runs)


def emulate(
    op: Op,
    case: Case,
    dialect: Dialect,
    *,
    exact: bool = False,
    checks: str | Iterable[str] = "all",
) -> Emulated:
    """Run and judge one case. A fault of a kernel, or an instruction that is not modelled, makes it
    disagree; errors of the launcher are raised."""
    runs: list[KernelRun] = []

    def act(launch: Launch) -> None:
        runs.append(run_launch(launch, exact=exact, checks=checks))

    start = time.perf_counter()
    subject = Subject(op, op.backend("triton"), case, dialect, CPU)
    with torch.no_grad():
        try:
            with recording(GFX942, act):
                got = subject.observe(subject.prepared(subject.build()))
            agrees, error, note = judge(op, got, expected(subject))
        except (Fault, UnsupportedInstruction) as fault:
            agrees, error, note = False, float("inf"), f"{type(fault).__name__}: {fault}"
    seconds = time.perf_counter() - start
    return Emulated(op.name, case.name, dialect.name, agrees, error, note, seconds, runs)


def run_launch(launch: Launch, *, exact: bool, checks: str | Iterable[str]) -> KernelRun:
    """Execute one recorded launch on its tensors, which are changed in place."""
    binary = compiled(launch)
    warps = int(launch.options["num_warps"])
    ran = run_program(
        parse_text(binary.assembly),
        launch.grid,
        [(a.name, argument_value(a)) for a in launch.arguments],
        num_warps=warps,
        lds_bytes=binary.shared_bytes,
        exact=exact,
        checks=checks,
    )
    code, found = _taken(binary.code, binary.assembly, binary.shared_bytes, warps)
    return KernelRun(launch.name, code, found, ran)


@lru_cache(maxsize=256)
def _taken(code: bytes, assembly: str, shared_bytes: int, num_warps: int) -> tuple[str, Resources]:
    """(hash of the machine code, what it takes of a compute unit)."""
    return code_hash(code), resources(
        GFX942, assembly, usage="", shared_bytes=shared_bytes, num_warps=num_warps
    )


def argument_value(argument: Argument) -> object:
    """Numbers as the kernel's signature takes them: a Python float for a float parameter."""
    kind, value = argument.type, argument.value
    if kind.startswith("*"):
        return value
    assert isinstance(value, int | float), (kind, value)
    return float(value) if kind.startswith(("fp", "bf")) else int(value)


def cases_of(op: Op, name: str | None) -> list[Case]:
    """The op's case of that name, or all that fit a CPU. Raises ConfigError for another name."""
    found = [case for case in op.cases() if not case.gpu_only and name in (None, case.name)]
    if not found:
        raise ConfigError(
            f"{op.name} has no case {name!r} for a CPU",
            found=", ".join(case.name for case in op.cases() if not case.gpu_only),
        )
    return found
