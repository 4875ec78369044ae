"""Which runs a launch needs to be believed, and what each of them compares.

The first run is in lockstep and gives the result. "schedule" repeats it with the waves of each
workgroup one after another, forward and in reverse; "poison" repeats it with another content of
everything uninitialised; both must leave the same bytes, and share a run where they can. "lds"
watches the first run for races and reads of unwritten LDS (races.py); "waits" is static (waits.py).
Kernels with global atomics may legally depend on the order of waves, so their bytes are not
compared between schedules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isobath.emulator.bits import Array
from isobath.emulator.blocks import compile_program
from isobath.emulator.buffers import Buffers
from isobath.emulator.code import Program
from isobath.emulator.execute import execute, uses_atomics
from isobath.emulator.faults import Fault, PoisonDifference, ScheduleDifference
from isobath.emulator.global_unit import Watch
from isobath.emulator.machine import Dispatch, Machine
from isobath.emulator.perf import Traffic
from isobath.emulator.races import RaceWatch
from isobath.emulator.schedule import INSTRUCTION_LIMIT, Order
from isobath.emulator.waits import check_waits

OTHER_POISON = 0x7FC12345
"""As float32 a NaN, as an index far away: unlike POISON in every byte."""


@dataclass(frozen=True, slots=True)
class Checked:
    """instructions: executed, counted once a wave; mix: the same by opcode; passed: checks;
    traffic: of LDS and memory, None unless it was asked for."""

    instructions: int
    mix: dict[str, int]
    passed: tuple[str, ...]
    traffic: Traffic | None = None


def run_checked(
    program: Program,
    buffers: Buffers,
    dispatch: Dispatch,
    checks: tuple[str, ...],
    limit: int = INSTRUCTION_LIMIT,
    seen: Watch | None = None,
) -> Checked:
    """Run a launch with the checks asked for; the buffers hold the first run's result. seen: is
    shown every access of that run."""
    traffic = Traffic() if "traffic" in checks else None
    if "waits" in checks:
        check_waits(program)
    again = "schedule" in checks or "poison" in checks
    before = buffers.snapshot() if again else []
    watches: list[RaceWatch] = []
    patient = "poison" in checks and uses_atomics(program)

    def watched(machine: Machine) -> RaceWatch:
        watches.append(RaceWatch(machine, patient=patient))
        return watches[-1]

    watch = watched if "lds" in checks else None
    shown = [one for one in (traffic, seen) if one]
    try:
        counts = execute(program, buffers.memory, dispatch, watch=watch, shown=shown, limit=limit)
        if again:
            result = buffers.snapshot()
            _repeat(program, buffers, dispatch, checks, before, result)
            buffers.restore(result)
    except Fault as fault:  # a read of unwritten LDS came first
        raise next((w.unwritten for w in watches if w.unwritten), fault) from None
    compiled = compile_program(program)
    mix: dict[str, int] = {}
    for block, count in zip(compiled.blocks, counts, strict=True):
        if count:
            for instruction in block.body:
                mix[instruction.name] = mix.get(instruction.name, 0) + int(count)
    passed = tuple(check for check in checks if check != "traffic")
    return Checked(sum(mix.values()), mix, passed, traffic)


def _repeat(
    program: Program,
    buffers: Buffers,
    dispatch: Dispatch,
    checks: tuple[str, ...],
    before: list[Array],
    result: list[Array],
) -> None:
    turns = "schedule" in checks and dispatch.num_warps > 1
    fixed = not uses_atomics(program)
    both = turns and fixed and "poison" in checks
    if both:
        # Neither may change anything; which of them did is asked only where something did change.
        buffers.restore(before)
        execute(program, buffers.memory, dispatch, order="forward", poison=OTHER_POISON)
        both = _same(buffers, result)
    if "poison" in checks and not both:
        buffers.restore(before)
        execute(program, buffers.memory, dispatch, poison=OTHER_POISON)
        _compare(buffers, result, PoisonDifference, "uninitialised registers or LDS")
    orders: tuple[Order, ...] = ("reverse",) if both else ("forward", "reverse")
    for order in orders if turns else ():
        buffers.restore(before)
        execute(program, buffers.memory, dispatch, order=order)
        if fixed:
            _compare(buffers, result, ScheduleDifference, f"the {order} order of waves")


def _same(buffers: Buffers, result: list[Array]) -> bool:
    parts = zip(buffers.parts, result, strict=True)
    return all(np.array_equal(s.store.octets[: s.size], old) for (_, s), old in parts)


def _compare(buffers: Buffers, result: list[Array], kind: type[Fault], cause: str) -> None:
    for (host, segment), expected in zip(buffers.parts, result, strict=True):
        now = segment.store.octets[: segment.size]
        wrong = np.flatnonzero(now != expected)
        if len(wrong):
            at = int(wrong[0])
            raise kind(
                f"the result depends on {cause}",
                found=f"buffer {host.name}: {len(wrong)} bytes differ, the first at {at} "
                f"({int(expected[at]):#04x}, then {int(now[at]):#04x})",
                effect="the kernel gives another answer on another day",
                do="look for a missing barrier, or for a value that is used but never set",
            )
