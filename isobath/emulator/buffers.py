"""Arguments of a launch: arrays become memory segments, scalars stay numbers.

NumPy arrays and torch CPU tensors are taken by their address alone, so torch need not be installed.
Arrays that overlap share one segment, as they share memory. A segment spans the elements of its
arrays and no byte more, and its address has the array's alignment. Its host address leads to it as
well, for kernels that find addresses in memory.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from isobath.emulator.bits import Array
from isobath.emulator.faults import LaunchError
from isobath.emulator.image import Image
from isobath.emulator.memory import Memory, Segment


@dataclass(frozen=True, slots=True)
class HostArray:
    """Where an array lies on the host. low, high: its span; writable: whether a store may land."""

    name: str
    address: int
    low: int
    high: int
    dtype: str
    writable: bool
    keep: object

    def octets(self) -> Array:
        """The span's bytes, not copied."""
        size = self.high - self.low
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(self.low))


def is_array(value: object) -> bool:
    """Whether an argument is memory rather than a number."""
    return isinstance(value, np.ndarray) or hasattr(value, "data_ptr")


def host_array(name: str, value: Any) -> HostArray:
    """The HostArray of a NumPy array or a torch CPU tensor."""
    if isinstance(value, np.ndarray):
        address, item = int(value.__array_interface__["data"][0]), value.itemsize
        shape, strides = value.shape, value.strides
        dtype, writable = value.dtype.name, bool(value.flags.writeable)
    else:
        device = getattr(getattr(value, "device", None), "type", "cpu")
        if device != "cpu":
            raise LaunchError(
                f"emulator: argument {name} is on {device}",
                do="pass CPU tensors; the emulator runs in this process",
            )
        address, item = int(value.data_ptr()), int(value.element_size())
        shape = tuple(value.shape)
        strides = tuple(int(s) * item for s in value.stride())
        dtype, writable = str(value.dtype).split(".")[-1], True
    if any(n == 0 for n in shape):
        return HostArray(name, address, address, address, dtype, writable, value)
    steps = [(n - 1) * s for n, s in zip(shape, strides, strict=True)]
    low = address + sum(s for s in steps if s < 0)
    high = address + sum(s for s in steps if s > 0) + item
    return HostArray(name, address, low, high, dtype, writable, value)


class Buffers:
    """The arrays of one launch in emulated memory."""

    def __init__(self, arrays: Sequence[HostArray], image: Image | None = None) -> None:
        self.memory = Memory(image)
        self.parts: list[tuple[HostArray, Segment]] = []
        self.addresses: dict[int, int] = {}
        for group in _overlapping(arrays):
            low, high = min(a.low for a in group), max(a.high for a in group)
            name = " and ".join(dict.fromkeys(a.name for a in group))
            whole = HostArray(name, low, low, high, "", all(a.writable for a in group), group)
            segment = self.memory.add(
                name, whole.octets(), align=low % 4096, writable=whole.writable
            )
            self.parts.append((whole, segment))
            self.memory.host(segment, low)
            spans = [_storage(array) for array in group]
            first, last = min(span[0] for span in spans), max(span[1] for span in spans)
            segment.around = max(0, low - first), max(0, last - high)
            for array in group:
                self.addresses[id(array)] = segment.base + array.address - low

    def address(self, array: HostArray) -> int:
        """Device address of an array's first element."""
        return self.addresses[id(array)]

    def snapshot(self) -> list[Array]:
        """A copy of every segment's bytes."""
        return [segment.store.octets[: segment.size].copy() for _, segment in self.parts]

    def restore(self, snapshot: Sequence[Array]) -> None:
        for (_, segment), octets in zip(self.parts, snapshot, strict=True):
            segment.store.octets[: segment.size] = octets

    def write_back(self) -> None:
        """Copy what the kernel wrote into the caller's arrays."""
        for host, segment in self.parts:
            octets = segment.store.octets[: segment.size]
            if host.writable and segment.size and octets.ctypes.data != host.low:
                host.octets()[:] = octets


def _storage(array: HostArray) -> tuple[int, int]:
    """Where the memory begins and ends that the array is a view of."""
    value: Any = array.keep
    if hasattr(value, "untyped_storage"):
        storage = value.untyped_storage()
        return int(storage.data_ptr()), int(storage.data_ptr()) + int(storage.nbytes())
    while isinstance(getattr(value, "base", None), np.ndarray):
        value = value.base
    whole = host_array(array.name, value) if isinstance(value, np.ndarray) else array
    return whole.low, whole.high


def _overlapping(arrays: Sequence[HostArray]) -> list[list[HostArray]]:
    groups: list[list[HostArray]] = []
    end = 0
    for array in sorted(arrays, key=lambda a: (a.low, a.high)):
        if groups and array.low < end and array.high > array.low:
            groups[-1].append(array)
        else:
            groups.append([array])
        end = max(end, array.high)
    return groups
