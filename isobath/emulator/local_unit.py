"""What LDS and scratch instructions do. Called from generated code as `local`.

LDS of every workgroup lies in one storage, workgroup after workgroup; so do the private frames of
all lanes. Offsets are checked against the workgroup's allocation and the lane's frame.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from isobath.emulator.bits import LANES, Array, i64, u32
from isobath.emulator.faults import LdsOutOfBounds, ScratchOutOfBounds
from isobath.emulator.global_unit import Watch
from isobath.emulator.memory import Site, full
from isobath.emulator.registers import Registers
from isobath.emulator.storage import Bytes


class LocalUnit:
    """The path between registers and memory that belongs to a workgroup or a lane.

    member: workgroup (within the batch) of each wave; lds_bytes, frame: bytes of a workgroup's
    LDS and of a lane's private memory.
    """

    def __init__(
        self,
        registers: Registers,
        member: Array,
        lds_bytes: int,
        frame: int,
        site: Callable[[int], Site],
        watches: list[Watch],
    ) -> None:
        self.registers, self.site, self.watches = registers, site, watches
        self.waves, self.lds_bytes = registers.waves, lds_bytes
        self.store = Bytes.filled(max((int(member[-1]) + 1) * lds_bytes, 16), 0)
        self.lds_base = (member * lds_bytes)[:, None].astype(i64)
        self.frame = -(-frame // 16) * 16
        self.frames = Bytes.filled(self.waves * 64 * self.frame, 0)
        lane_number = np.arange(self.waves)[:, None] * 64 + LANES
        self.scratch_base = (lane_number * self.frame).astype(i64)

    def fill(self, poison: int) -> None:
        self.store.octets.fill(poison & 255)
        self.frames.octets.fill(poison & 255)

    def lds_offset(
        self, site: int, address: Array, offset: int, width: int, active: Array | None, what: str
    ) -> Array:
        """Checked offsets into the storage of all workgroups."""
        within = address + u32(offset) if offset else address
        size = self.lds_bytes
        if int(np.maximum.reduce(within, axis=None)) + width > size:
            within = np.broadcast_to(within, (self.waves, 64))
            wrong = within.astype(i64) + width > size
            if active is not None:
                wrong = wrong & active
                within = np.where(active, within, u32(0))
            if wrong.any():
                raise self._lds_fault(site, within, wrong, width, what)
        return full(within.astype(i64) + self.lds_base, self.waves)

    def _lds_fault(
        self, site: int, within: Array, wrong: Array, width: int, what: str
    ) -> LdsOutOfBounds:
        wave, lane = (int(x) for x in np.argwhere(wrong)[0])
        return LdsOutOfBounds(
            f"LDS {what} of {width} bytes outside the allocation",
            found=f"{self.site(site).text}\n    {self.site(site).describe(wave)}, lane {lane}: "
            f"byte {int(within[wave, lane])} of {self.lds_bytes}",
            effect="a GPU would return zero or touch another workgroup's LDS",
            do="check shared-memory offsets and the launch's shared size",
        )

    def read(
        self,
        site: int,
        address: Array,
        offset: int,
        width: int,
        form: str,
        file: str,
        first: int,
        active: Array | None,
    ) -> None:
        where = self.lds_offset(site, address, offset, width, active, "read")
        for watch in self.watches:
            watch.lds(site, where, width, active, None)
        self.registers.place(self.store.gather(where, width), form, file, first, active)

    def write(
        self,
        site: int,
        address: Array,
        offset: int,
        width: int,
        file: str,
        first: int,
        high: bool,
        active: Array | None,
    ) -> None:
        where = self.lds_offset(site, address, offset, width, active, "write")
        words = self.registers.taken(file, first, width, high)
        for watch in self.watches:
            watch.lds(site, where, width, active, words)
        self.store.scatter(where, words, width, active)

    def atomic(
        self,
        site: int,
        address: Array,
        offset: int,
        operation: str,
        kind: str,
        width: int,
        file: str,
        first: int,
        compare: tuple[str, int] | None,
        result: tuple[str, int] | None,
        active: Array | None,
    ) -> None:
        where = self.lds_offset(site, address, offset, width, active, "atomic")
        old = np.zeros((max(1, width // 4), self.waves, 64), u32)
        self.registers.update(
            self.store, where, active, operation, kind, width, (file, first), compare, old
        )
        if result is not None:
            self.registers.place(list(old), "", *result, active)

    def scratch_offset(
        self, site: int, offset: Array | int, width: int, active: Array | None
    ) -> Array:
        within = np.broadcast_to(np.asarray(offset, i64), (self.waves, 64))
        wrong = (within < 0) | (within + width > self.frame)
        if wrong.any():
            if active is not None:
                wrong = wrong & active
                within = np.where(active, within, 0)
            if wrong.any():
                wave, lane = (int(x) for x in np.argwhere(wrong)[0])
                raise ScratchOutOfBounds(
                    f"private access of {width} bytes outside the lane's frame",
                    found=f"{self.site(site).text}\n    {self.site(site).describe(wave)}, "
                    f"lane {lane}: byte {int(within[wave, lane])} of {self.frame}",
                )
        return within + self.scratch_base

    def scratch_read(
        self,
        site: int,
        offset: Array | int,
        width: int,
        form: str,
        file: str,
        first: int,
        active: Array | None,
    ) -> None:
        where = self.scratch_offset(site, offset, width, active)
        self.registers.place(self.frames.gather(where, width), form, file, first, active)

    def scratch_write(
        self,
        site: int,
        offset: Array | int,
        width: int,
        file: str,
        first: int,
        high: bool,
        active: Array | None,
    ) -> None:
        where = self.scratch_offset(site, offset, width, active)
        self.frames.scatter(where, self.registers.taken(file, first, width, high), width, active)
