"""What global memory instructions do: addresses, descriptors, loads, stores, atomics.

Called from generated code as `vmem`. `site` is an instruction's index; `active` are the lanes that
are on (None: all), `reach` those of them that touch memory: a lane outside its buffer descriptor's
range loads zero and stores nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np

from isobath.emulator import bits, lanes
from isobath.emulator.bits import Array, i64, u32
from isobath.emulator.faults import UnsupportedInstruction
from isobath.emulator.memory import Memory, Site, full
from isobath.emulator.registers import Registers

MASKED_OFF = 0x80000000
"""Offset that Triton gives lanes whose mask is off: outside every descriptor's range."""
_MASKED_SPAN = 1 << 16


class Watch(Protocol):
    """What checks and counters implement: they see every access before it happens."""

    def lds(
        self, site: int, offset: Array, width: int, lanes: Array | None, words: list[Array] | None
    ) -> None:
        """words: what is written; None for a read."""

    def memory(self, site: int, address: Array, width: int, lanes: Array | None, what: str) -> None:
        """A global access of "load", "store" or "atomic"."""


class GlobalUnit:
    """The path between registers and global memory."""

    def __init__(
        self,
        registers: Registers,
        memory: Memory,
        site: Callable[[int], Site],
        watches: list[Watch],
    ) -> None:
        self.registers, self.memory, self.site = registers, memory, site
        self.waves, self.watches = registers.waves, watches

    def scalar_load(
        self, site: int, first: int, count: int, address: Array, waves: Array | None
    ) -> None:
        address = np.broadcast_to(address & ~3, (self.waves, 1))
        active = None if waves is None else waves
        for segment, offset, mine in self.memory.split(
            self.site(site), address, active, 4 * count, "load"
        ):
            for k, word in enumerate(segment.store.gather(offset, 4 * count)):
                target = self.registers.scalar(first + k)
                np.copyto(target, word, where=True if mine is None else mine)

    def buffer(
        self,
        site: int,
        offset: Array,
        descriptor: int,
        scalar: Array,
        fixed: int,
        width: int,
        active: Array | None,
    ) -> tuple[Array, Array | None]:
        """(addresses, lanes inside the descriptor's range or None when all active ones are)."""
        scalar_at = self.registers.scalar
        low, high = scalar_at(descriptor), scalar_at(descriptor + 1)
        records = scalar_at(descriptor + 2).astype(i64)
        strided = (high >> 16) != 0
        if strided.any() and (active is None or (strided & active).any()):
            text = self.site(site).text
            raise UnsupportedInstruction("buffer", text, "a descriptor with a stride")
        scalar_wide = scalar.astype(i64)
        relative = offset.astype(i64)
        inside = relative <= records - scalar_wide - (fixed + width)
        base = bits.pair(low, high).view(i64) + scalar_wide + fixed
        address = full(relative + base, self.waves)
        if inside.all():
            return address, None
        inside = np.broadcast_to(inside, address.shape)
        strayed = ~inside & ((offset < MASKED_OFF) | (offset >= MASKED_OFF + _MASKED_SPAN))
        if strayed.any() and (active is None or (strayed & active).any()):
            who = strayed if active is None else strayed & active
            raise self.memory.fault(self.site(site), address, who, width, "access")
        return address, inside if active is None else inside & active

    def load(
        self,
        site: int,
        address: Array,
        reach: Array | None,
        width: int,
        form: str,
        file: str,
        first: int,
        active: Array | None,
    ) -> None:
        address = full(address, self.waves)
        who = active if reach is None else reach
        for watch in self.watches:
            watch.memory(site, address, width, who, "load")
        parts = self.memory.split(self.site(site), address, who, width, "load")
        if len(parts) == 1:
            segment, offset, _ = parts[0]
            words = segment.store.gather(offset, width)
        else:
            words = [np.zeros(address.shape, u32) for _ in range(max(1, width // 4))]
            for segment, offset, mine in parts:
                for word, found in zip(words, segment.store.gather(offset, width), strict=True):
                    np.copyto(word, found, where=True if mine is None else mine)
        if reach is not None:
            keep = lanes.word_mask(reach)
            words = [word & keep for word in words]
        self.registers.place(words, form, file, first, active)

    def store(
        self,
        site: int,
        address: Array,
        reach: Array | None,
        width: int,
        file: str,
        first: int,
        high: bool,
        active: Array | None,
    ) -> None:
        address = full(address, self.waves)
        who = active if reach is None else reach
        for watch in self.watches:
            watch.memory(site, address, width, who, "store")
        words = self.registers.taken(file, first, width, high)
        for segment, offset, mine in self.memory.split(
            self.site(site), address, who, width, "store"
        ):
            segment.store.scatter(offset, words, width, mine)

    def atomic(
        self,
        site: int,
        address: Array,
        reach: Array | None,
        operation: str,
        kind: str,
        width: int,
        file: str,
        first: int,
        result: tuple[str, int] | None,
        active: Array | None,
    ) -> None:
        address = full(address, self.waves)
        who = active if reach is None else reach
        for watch in self.watches:
            watch.memory(site, address, width, who, "atomic")
        old = np.zeros((max(1, width // 4), *address.shape), u32)
        compare = (file, first + width // 4) if operation == "cmpswap" else None
        for segment, offset, mine in self.memory.split(
            self.site(site), address, who, width, "atomic"
        ):
            self.registers.update(
                segment.store, offset, mine, operation, kind, width, (file, first), compare, old
            )
        if result is not None:
            self.registers.place(list(old), "", *result, active)
