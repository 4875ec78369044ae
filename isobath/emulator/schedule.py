"""Which waves run next: lockstep while all agree, else the group with the lowest program counter.

Waves that stand at the same block run together. Every sixteenth step the group that has waited
longest goes first, or a spin lock would never be released. A serial order runs the waves of each
workgroup one after another as far as barriers allow; a race that lockstep hides shows there. It is
made of one machine for each place in a workgroup, so that those that wait cost nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from isobath.emulator.bits import Array, u64
from isobath.emulator.blocks import ALL, LANES_OFF, WAVES_OFF
from isobath.emulator.faults import Deadlock, InstructionLimit
from isobath.emulator.lanes import word_mask
from isobath.emulator.machine import ALL_LANES, Machine
from isobath.emulator.operands import unpack

Order = Literal["lockstep", "forward", "reverse"]
INSTRUCTION_LIMIT = 10**8
_PATIENCE, _TURN = 16, 1 << 14
"""Steps before the group that waited longest runs; steps before a wave that spins lets others."""
_NEVER = 1 << 60


class Schedule:
    """One run of a machine from its entry to its end. whole: the machine has every wave of its
    workgroups, so that it can open their barriers."""

    def __init__(
        self, machine: Machine, limit: int = INSTRUCTION_LIMIT, *, whole: bool = True
    ) -> None:
        self.machine, self.limit, self.whole = machine, limit, whole
        waves = machine.waves
        start = machine.compiled.entries[machine.dispatch.entry]
        self.at = np.full(waves, start)
        self.done = np.zeros(waves, bool)
        self.waiting = np.zeros(waves, bool)
        self.last = np.zeros(waves, np.int64)
        self.tick = self.executed = 0
        self.together: int | None = start
        self.every_wave = np.ones((waves, 1), bool)
        self.mask_key: Array | None = None
        self.masks: tuple[Array, Array] | None = None

    def run(self) -> None:
        """Run every wave to its end. Raises Fault."""
        self.advance()
        if not self.done.all():
            raise deadlock([self])

    def advance(self, steps: int = _NEVER) -> bool:
        """Run until no wave can go on, or for so many steps; whether any was left."""
        with np.errstate(all="ignore"):
            while self.step():
                if self.executed > self.limit:
                    raise InstructionLimit(
                        f"the launch executed more than {self.limit} instructions",
                        found="a loop that does not end, or a wait for a workgroup that never runs",
                    )
                steps -= 1
                if not steps:
                    return True
        return False

    def step(self) -> bool:
        """One block of one group of waves; False when none can go on."""
        if self.together is not None:
            return self._step_together(self.together)
        ready = ~self.done & ~self.waiting
        if not ready.any():
            return False
        block, active = self._choose(ready)
        self._run_divergent(block, active)
        return True

    def _step_together(self, block: int) -> bool:
        machine = self.machine
        info = machine.compiled.blocks[block]
        if (machine.exec == ALL_LANES).all():
            machine.function(block, ALL)()
        else:
            lanes, words = self._lane_masks()
            machine.function(block, LANES_OFF)(lanes, words, self.every_wave)
        self._count(block, machine.waves)
        kind = info.kind
        if kind == "endpgm":
            self.done[:] = True
            return False
        if kind in ("fall", "branch"):
            self.together = info.target
        elif kind == "barrier" and self.whole:
            machine.barriers += 1
            self.together = info.after
        elif kind == "barrier":
            self.at[:], self.waiting[:], self.together = info.after, True, None
        elif kind == "jump":
            self._jump(np.arange(machine.waves))
            self.together = int(self.at[0]) if (self.at == self.at[0]).all() else None
        else:
            taken = self._condition(kind)
            if taken.all():
                self.together = info.target
            elif not taken.any():
                self.together = info.after
            else:
                self.at[:] = np.where(taken, info.target, info.after)
                self.together = None
        return True

    def _lane_masks(self) -> tuple[Array, Array]:
        """EXEC as booleans and as words; kept while EXEC does not change."""
        current = self.machine.exec
        if self.masks is None or self.mask_key is None or (current != self.mask_key).any():
            lanes = unpack(current)
            self.masks = lanes, word_mask(lanes)
            self.mask_key = current.copy()
        return self.masks

    def _choose(self, ready: Array) -> tuple[int, Array]:
        self.tick += 1
        if self.tick % _PATIENCE == 0:
            block = int(self.at[np.where(ready, self.last, _NEVER).argmin()])
        else:
            block = int(self.at[ready].min())
        active = ready & (self.at == block)
        self.last[active] = self.tick
        return block, active

    def _run_divergent(self, block: int, active: Array) -> None:
        machine = self.machine
        if active.all():
            self.together = block
            return
        info = machine.compiled.blocks[block]
        waves = active[:, None]
        lanes = unpack(np.where(waves, machine.exec, u64(0)))
        machine.function(block, WAVES_OFF)(lanes, word_mask(lanes), waves)
        self._count(block, int(active.sum()))
        kind = info.kind
        if kind == "endpgm":
            self.done |= active
            self._open_barriers()
        elif kind in ("fall", "branch"):
            self.at[active] = info.target
        elif kind == "barrier":
            self.at[active] = info.after
            self.waiting |= active
            self._open_barriers()
        elif kind == "jump":
            self._jump(np.flatnonzero(active))
        else:
            goes = np.where(self._condition(kind), info.target, info.after)
            self.at[active] = goes[active]

    def _jump(self, waves: Array) -> None:
        """Send waves to the addresses in their registers."""
        for wave in waves:
            self.at[wave] = self.machine.jump_target(int(wave))

    def _count(self, block: int, waves: int) -> None:
        machine = self.machine
        machine.counts[block] += waves
        self.executed += len(machine.compiled.blocks[block].body) + 1

    def _condition(self, kind: str) -> Array:
        """Which waves take a conditional branch."""
        machine = self.machine
        if kind.startswith("scc"):
            flags = machine.scc[:, 0]
            return flags if kind == "scc1" else ~flags
        mask = (machine.vcc if kind.startswith("vcc") else machine.exec)[:, 0]
        return mask != 0 if kind.endswith("nz") else mask == 0

    def _open_barriers(self) -> None:
        """A barrier opens when every wave of its workgroup waits there or has ended."""
        if not self.whole:
            return
        warps = self.machine.dispatch.num_warps
        done, waiting = self.done.reshape(-1, warps), self.waiting.reshape(-1, warps)
        opens = (done | waiting).all(1) & waiting.any(1)
        waiting[opens] = False
        self.machine.barriers[opens] += 1


def run_in_turn(machines: Sequence[Machine], limit: int = INSTRUCTION_LIMIT) -> None:
    """Run machines with one wave of each workgroup in the order given: each as far as barriers
    allow, or until its wave has spun for long. Raises Fault."""
    turns = [Schedule(machine, limit, whole=False) for machine in machines]
    while True:
        unfinished = [turn.advance(_TURN) for turn in turns]
        done = np.array([turn.done for turn in turns])
        if done.all():
            return
        waiting = np.array([turn.waiting for turn in turns])
        opens = (done | waiting).all(0) & waiting.any(0)
        if not opens.any() and not any(unfinished):
            raise deadlock(turns)
        machines[0].barriers[opens] += 1
        for turn in turns:
            turn.waiting[opens] = False


def deadlock(turns: Sequence[Schedule]) -> Deadlock:
    """What to raise when no wave can go on."""
    stuck = sum(int(turn.waiting.sum()) for turn in turns)
    first = next(turn for turn in turns if turn.waiting.any())
    wave = int(np.flatnonzero(first.waiting)[0])
    before = first.machine.compiled.blocks[first.at[wave]].body[:1]
    where = f", before {before[0]}" if before else ""
    return Deadlock(
        f"{stuck} waves wait at a barrier that cannot open",
        found=f"{first.machine.describe(wave)}{where}",
        effect="a GPU would hang",
    )
