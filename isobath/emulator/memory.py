"""Global memory: one segment an argument, far from its neighbours, every access checked.

Segments lie 64 GiB apart, each at an address with the alignment that the caller's array had, so a
wrong index or an offset that wrapped at 32 bits cannot land in another buffer. The segment keeps
its own bytes; launch.py copies arguments in and out. Memory is sequentially consistent.

A segment also answers at the address that the caller's array has on the host, since kernels load
such addresses from tables (`t.data_ptr()` in a tensor of int64); one end to the other, no further.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from isobath.emulator.bits import Array, i64, u8
from isobath.emulator.code import Program
from isobath.emulator.faults import Fault, HostCall, OutOfBounds
from isobath.emulator.image import BASE, Image
from isobath.emulator.storage import Bytes

SPACING = 1 << 36
_PADDING = 16
_NULL_PAGE = 1 << 16
IN_PLACE = 1 << 28
"""From this many bytes on a segment works on the caller's own array; pages stay untouched."""


@dataclass(slots=True)
class Segment:
    """name: as in fault messages; base: device address; size in bytes; store: its bytes.

    valid: bool a byte where only part of the segment belongs to an argument; None when all does.
    around: bytes in front of it and behind it of the caller's array that it is a part of.
    """

    name: str
    base: int
    size: int
    store: Bytes
    writable: bool = True
    valid: Array | None = None
    around: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Site:
    """Where an access stands: an instruction of a program, and who each wave is."""

    index: int
    program: Program
    describe: Callable[[int], str]

    @property
    def text(self) -> str:
        return str(self.program.instructions[self.index])


class Memory:
    """The segments of one launch."""

    def __init__(self, image: Image | None = None) -> None:
        """image: of the code object, whose constants lie where the code looks for them."""
        self.segments: list[Segment] = []
        self.hosted: list[Segment] = []
        if image:
            self.add("the code's constants", np.frombuffer(image.data, u8), writable=False)
            self.segments[0].base = BASE + image.start

    def add(self, name: str, octets: Array, *, align: int = 0, writable: bool = True) -> Segment:
        """A segment of `octets` (uint8, flat), at `align` mod 4096; a copy unless large."""
        size = len(octets)
        if size >= IN_PLACE and size % 16 == 0 and align % 16 == 0:
            store = Bytes(octets)
        else:
            padded = np.zeros(-(-size // 16) * 16 + _PADDING, u8)
            padded[:size] = octets
            store = Bytes(padded)
        base = BASE + len(self.segments) * SPACING + SPACING // 2 + align
        segment = Segment(name, base, size, store, writable)
        self.segments.append(segment)
        return segment

    def host(self, segment: Segment, base: int) -> None:
        """Let a segment's bytes be reached at `base` on the host, too."""
        twin = Segment(segment.name, base, segment.size, segment.store, segment.writable)
        self.hosted.append(twin)

    def find(self, address: int) -> Segment | None:
        """The segment in whose 64 GiB, or at whose host address, the address lies."""
        number = (address - BASE) // SPACING
        if 0 <= number < len(self.segments):
            return self.segments[number]
        return next((s for s in self.hosted if s.base <= address < s.base + s.size), None)

    def locate(
        self, address: Array, lanes: Array | None, width: int, store: bool
    ) -> tuple[Segment, Array] | None:
        """(segment, offsets) when every active lane is inside one segment, else None."""
        low = int(np.minimum.reduce(address, axis=None))
        high = int(np.maximum.reduce(address, axis=None))
        segment = self.find(low)
        if segment and low >= segment.base and high + width <= segment.base + segment.size:
            offset = address - segment.base
        elif lanes is None:
            return None
        else:
            some = np.argmax(lanes)
            inside = np.where(lanes, address, address.ravel()[some])
            low, high = int(inside.min()), int(inside.max())
            segment = self.find(low)
            if not segment or low < segment.base or high + width > segment.base + segment.size:
                return None
            offset = inside - segment.base
        if (store and not segment.writable) or segment.valid is not None:
            return None
        return segment, offset

    def split(
        self, site: Site, address: Array, lanes: Array | None, width: int, what: str
    ) -> list[tuple[Segment, Array, Array | None]]:
        """(segment, offsets, lanes) of every segment touched. Raises OutOfBounds."""
        if lanes is not None and not lanes.any():
            return []
        store = what != "load"
        found = self.locate(address, lanes, width, store)
        if found:
            return [(*found, lanes)]
        active = np.ones(address.shape, bool) if lanes is None else lanes
        number = (address - BASE) // SPACING
        parts: list[tuple[Segment, Array, Array | None]] = []
        outside = active & ((number < 0) | (number >= len(self.segments)))
        for k in np.unique(number[active & ~outside]):
            segment = self.segments[int(k)]
            mine = active & (number == k)
            offset = address - segment.base
            wrong = mine & ((offset < 0) | (offset + width > segment.size))
            if width == 4 and wrong.any() and changes_halves(site.program):
                wrong &= (offset < 0) | (offset >= segment.size) | (address % 4 != 0)
            if store and not segment.writable:
                wrong = mine
            if segment.valid is not None:
                first = np.clip(offset, 0, segment.size - 1)
                last = np.clip(offset + width - 1, 0, segment.size - 1)
                wrong |= mine & ~(segment.valid[first] & segment.valid[last])
            outside |= wrong
            parts.append((segment, np.where(mine, offset, 0), mine))
        for segment in self.hosted if outside.any() else ():
            offset = address - segment.base
            mine = outside & (offset >= 0) & (offset + width <= segment.size)
            if mine.any() and (segment.writable or not store):
                outside = outside & ~mine
                parts.append((segment, np.where(mine, offset, 0), mine))
        if outside.any():
            raise self.fault(site, address, outside, width, what)
        return parts

    def fault(self, site: Site, address: Array, outside: Array, width: int, what: str) -> Fault:
        """What to raise for the lanes of `outside`."""
        wave, lane = (int(x) for x in np.argwhere(outside)[0])
        at = int(address[wave, lane])
        who = f"{site.describe(wave)}, lane {lane} ({int(outside.sum())} lanes in all)"
        if at < _NULL_PAGE and site.program.descriptor.calls_host:
            return HostCall(
                "the kernel calls the host, and there is none",
                found=f"{site.text}\n    {who}: an assert that failed, or device_print",
                effect="a GPU would print, and stop if it was an assert",
                do="look at the assert's condition in this lane; leave device_print out",
            )
        return OutOfBounds(
            f"{what} of {width} bytes outside every buffer",
            found=f"{site.text}\n    {who}: address {at:#x}, {self.nearest(at, width)}",
            effect="a GPU would return or destroy another tensor's bytes, or fault",
            do="check the index, the mask and the 32-bit arithmetic in front of this access",
        )

    def nearest(self, address: int, width: int) -> str:
        """Where an address lies with respect to the closest segment, in words."""
        if address < _NULL_PAGE:
            return "a null pointer"
        visible = [s for s in self.segments if s.name != "kernel arguments"] or self.segments

        def distance(s: Segment) -> int:
            return max(s.base - address, address + width - s.base - s.size)

        segment = min(visible, key=distance)
        offset = address - segment.base
        name = f"buffer {segment.name} ({segment.size} bytes)"
        past = offset + width - segment.size
        part = -offset <= segment.around[0] and past <= segment.around[1]
        known = "; part of a larger array, which reachable= can name" if part else ""
        if offset < 0:
            return f"{-offset} bytes before {name}{known}"
        if past > 0:
            return f"byte {offset} of {name}, {past} past its end{known}"
        if not segment.writable:
            return f"byte {offset} of {name}, which is read only"
        return f"byte {offset} of {name}, between its elements"


def changes_halves(program: Program) -> bool:
    """Whether atomics of the code may stand for narrower ones: LLVM changes two bytes by a
    compare-and-swap, or a packed addition, of the aligned word around them, and leaves the rest of
    the word as it was, also at the end of a buffer."""
    found = program.cache.get("changes halves")
    if not isinstance(found, bool):
        names = (instruction.name for instruction in program.instructions)
        found = any(name.endswith("_atomic_cmpswap") or "_atomic_pk_" in name for name in names)
        program.cache["changes halves"] = found
    return found


def full(address: Array, waves: int) -> Array:
    """An address of every lane, also where it was the same for all."""
    if address.shape == (waves, 64) and address.dtype == i64:
        return address
    return np.ascontiguousarray(np.broadcast_to(address, (waves, 64)), dtype=i64)
