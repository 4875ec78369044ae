"""Which waves run next: lockstep while all agree, else the group with the lowest program counter.

Waves that stand at the same block run together. Every sixteenth step the group that has waited
longest goes first, or a spin lock would never be released. A serial order runs the waves of each
workgroup one after another as far as barriers allow; a race that lockstep hides shows there.
"""

from __future__ import annotations

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
_PATIENCE = 16
_NEVER = 1 << 60


class Schedule:
    """One run of a machine from its entry to its end."""

    def __init__(self, machine: Machine, order: Order, limit: int = INSTRUCTION_LIMIT) -> None:
        self.machine, self.order, self.limit = machine, order, limit
        waves, warps = machine.waves, machine.dispatch.num_warps
        start = machine.compiled.entries[machine.dispatch.entry]
        self.at = np.full(waves, start)
        self.done = np.zeros(waves, bool)
        self.waiting = np.zeros(waves, bool)
        self.place = np.arange(waves) % warps
        self.turns = range(warps) if order == "forward" else range(warps - 1, -1, -1)
        self.last = np.zeros(waves, np.int64)
        self.tick = self.executed = 0
        self.together: int | None = start if order == "lockstep" else None
        self.every_wave = np.ones((waves, 1), bool)
        self.mask_key: Array | None = None
        self.masks: tuple[Array, Array] | None = None

    def run(self) -> None:
        """Run every wave to its end. Raises Fault."""
        with np.errstate(all="ignore"):
            while self.step():
                if self.executed > self.limit:
                    raise InstructionLimit(
                        f"the launch executed more than {self.limit} instructions",
                        found="a loop that does not end, or a wait for a workgroup that never runs",
                    )

    def step(self) -> bool:
        """One block of one group of waves; False when all have ended."""
        if self.together is not None:
            return self._step_together(self.together)
        ready = ~self.done & ~self.waiting
        if not ready.any():
            if self.done.all():
                return False
            raise self._deadlock()
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
        elif kind == "barrier":
            machine.barriers += 1
            self.together = info.after
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
        if self.order != "lockstep":
            turn = next(k for k in self.turns if (ready & (self.place == k)).any())
            ready = ready & (self.place == turn)
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
        if self.order == "lockstep" and active.all():
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
        else:
            goes = np.where(self._condition(kind), info.target, info.after)
            self.at[active] = goes[active]

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
        warps = self.machine.dispatch.num_warps
        done, waiting = self.done.reshape(-1, warps), self.waiting.reshape(-1, warps)
        opens = (done | waiting).all(1) & waiting.any(1)
        waiting[opens] = False
        self.machine.barriers[opens] += 1

    def _deadlock(self) -> Deadlock:
        stuck = np.flatnonzero(self.waiting)
        wave = int(stuck[0])
        compiled = self.machine.compiled
        before = compiled.blocks[self.at[wave]].body[:1]
        where = f", before {before[0]}" if before else ""
        return Deadlock(
            f"{len(stuck)} waves wait at a barrier that cannot open",
            found=f"{self.machine.describe(wave)}{where}",
            effect="a GPU would hang",
        )
