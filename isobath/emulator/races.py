"""LDS races and reads of unwritten LDS, found while a launch runs in lockstep.

Happens-before is the barrier: two waves of a workgroup that touch one granule between two barriers
race when one of them changes it. A granule is the smallest LDS width of the kernel. For each the
sets of waves that wrote and read it in the present epoch are kept as bits. A write that leaves the
content as it was is idempotent (redundant layouts store one value from several waves) and only
joins the writers. Of one wave's lanes that write a granule together the last counts. Atomics are
ordered by themselves and not watched.

Triton hands the result of a scalar atomic to the other lanes through LDS, and where the atomic is
masked off nobody writes it; the value is then not used. So in code with atomics a read of unwritten
LDS is kept, and checks.py raises it where another content of LDS changes the result or a fault
follows.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from isobath.emulator.bits import Array, i32, u8, u32
from isobath.emulator.faults import LdsRace, UninitialisedLds

if TYPE_CHECKING:
    from isobath.emulator.machine import Machine


class RaceWatch:
    """A Watch of one machine (a batch of workgroups). patient: the first read of unwritten LDS is
    kept in `unwritten` instead of raised."""

    def __init__(self, machine: Machine, *, patient: bool = False) -> None:
        self.machine, self.patient = machine, patient
        self.unwritten: UninitialisedLds | None = None
        self.granule = _granule(machine)
        size = len(machine.local.store.octets) // self.granule
        self.writers, self.readers = np.zeros(size, u32), np.zeros(size, u32)
        self.write_epoch, self.read_epoch = np.full(size, -1, i32), np.full(size, -1, i32)
        self.last_write = np.full(size, -1, i32)
        self.bit = (u32(1) << machine.place.astype(u32))[:, None]

    def memory(self, site: int, address: Array, width: int, lanes: Array | None, what: str) -> None:
        """Global memory has no epochs."""

    def lds(
        self, site: int, offset: Array, width: int, lanes: Array | None, words: list[Array] | None
    ) -> None:
        shape = offset.shape
        epoch = self.machine.barriers[self.machine.member].astype(i32)[:, None]
        at = np.arange(offset.size) if lanes is None else np.flatnonzero(lanes)
        if not len(at):
            return
        bit = np.broadcast_to(self.bit, shape).ravel()[at]
        now = np.broadcast_to(epoch, shape).ravel()[at]
        count = max(1, width // self.granule)
        cells = (offset.ravel()[at] // self.granule)[:, None] + np.arange(count)
        cells, bit, now = cells.ravel(), np.repeat(bit, count), np.repeat(now, count)
        writers = np.where(self.write_epoch[cells] == now, self.writers[cells], u32(0))
        readers = np.where(self.read_epoch[cells] == now, self.readers[cells], u32(0))
        waves = np.repeat(at // 64, count)
        if words is None:
            self._read(site, cells, bit, now, writers, readers, waves)
        else:
            values = _octets(words, width)[at].reshape(len(cells), -1)
            self._write(site, cells, bit, now, writers, readers, waves, values)

    def _read(
        self,
        site: int,
        cells: Array,
        bit: Array,
        now: Array,
        writers: Array,
        readers: Array,
        waves: Array,
    ) -> None:
        unwritten = self.last_write[cells] < 0
        if unwritten.any():
            fault = self._uninitialised(site, cells, waves, unwritten)
            if not self.patient:
                raise fault
            self.unwritten = self.unwritten or fault
        foreign = writers & ~bit
        if foreign.any():
            raise self._race(site, cells, waves, foreign, "reads", "wrote")
        self.readers[cells], self.read_epoch[cells] = readers, now
        np.bitwise_or.at(self.readers, cells, bit)

    def _write(
        self,
        site: int,
        cells: Array,
        bit: Array,
        now: Array,
        writers: Array,
        readers: Array,
        waves: Array,
        values: Array,
    ) -> None:
        order = np.argsort(cells, kind="stable")  # within a cell by wave, then by lane
        last = _last_of_each_wave(cells[order], waves[order])
        if last is not None:
            kept = order[last]
            cells, bit, now, waves = cells[kept], bit[kept], now[kept], waves[kept]
            writers, readers, values = writers[kept], readers[kept], values[kept]
            order = np.arange(len(kept))
        content = self.machine.local.store.octets.reshape(-1, self.granule)
        changes = (content[cells] != values).any(1)
        foreign = np.where(changes, (writers | readers) & ~bit, u32(0))
        if foreign.any():
            kind = "wrote" if (np.where(foreign, writers & ~bit, 0)).any() else "read"
            raise self._race(site, cells, waves, foreign, "changes", kind)
        same = cells[order][1:] == cells[order][:-1]
        differ = (values[order][1:] != values[order][:-1]).any(1)
        across = same & differ & (bit[order][1:] != bit[order][:-1])
        if across.any():
            clash = np.zeros(len(cells), u32)
            clash[order[1:][across]] = bit[order[:-1][across]]
            raise self._race(site, cells, waves, clash, "writes", "writes at the same time")
        self.writers[cells] = np.where(changes, u32(0), writers)
        self.write_epoch[cells] = now
        np.bitwise_or.at(self.writers, cells, bit)
        self.last_write[cells] = site

    def _race(
        self, site: int, cells: Array, waves: Array, foreign: Array, does: str, did: str
    ) -> LdsRace:
        k = int(np.argmax(foreign != 0))
        cell, wave = int(cells[k]), int(waves[k])
        other = int(foreign[k]).bit_length() - 1
        instructions = self.machine.program.instructions
        last = int(self.last_write[cell])
        writer = f"\n    last written by {instructions[last]}" if last >= 0 else ""
        return LdsRace(
            f"two waves meet in LDS byte {self._byte(cell)} without a barrier between them",
            found=f"{instructions[site]}\n    {self.machine.describe(wave)} {does} what wave "
            f"{other} {did} since the last barrier{writer}",
            effect="the result depends on which wave is faster",
            do="a barrier (tl.debug_barrier in Triton, s_barrier in code) between the two accesses",
        )

    def _uninitialised(
        self, site: int, cells: Array, waves: Array, unwritten: Array
    ) -> UninitialisedLds:
        k = int(np.argmax(unwritten))
        instruction = self.machine.program.instructions[site]
        return UninitialisedLds(
            f"LDS byte {self._byte(int(cells[k]))} is read but was never written",
            found=f"{instruction}\n    {self.machine.describe(int(waves[k]))}; "
            f"{int(unwritten.sum())} granules in all",
            effect="the value is what another workgroup left there",
        )

    def _byte(self, cell: int) -> int:
        size = self.machine.dispatch.lds_bytes
        return cell * self.granule % size if size else 0


def _last_of_each_wave(cells: Array, waves: Array) -> Array | None:
    """Of writes sorted by cell and wave, bool: the last of each wave to each cell; None: all are.

    Lanes that hold one value twice may differ in its last bit: LLVM contracts a product into the
    exchange of a reduction, and the two sides of the exchange then round differently.
    """
    same = (cells[1:] == cells[:-1]) & (waves[1:] == waves[:-1])
    return np.append(~same, True) if same.any() else None


def _granule(machine: Machine) -> int:
    widths = {4}
    for instruction in machine.program.instructions:
        match = re.match(r"ds_(?:read|write).*_[bui](8|16)(_|$)", instruction.name)
        if match:
            widths.add(int(match[1]) // 8)
    return min(widths)


def _octets(words: list[Array], width: int) -> Array:
    """Words of each lane -> its bytes, [lanes, width]."""
    together = np.stack([np.ascontiguousarray(w).ravel() for w in words], -1)
    return together.view(u8).reshape(len(together), -1)[:, :width]
