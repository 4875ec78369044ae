"""Bytes that lanes gather from and scatter to: one class for buffers, LDS and scratch.

Offsets are int64 [W, 64] within the storage and are trusted: whoever calls has checked them.
Values travel as lists of uint32 [W, 64] words, a sub-dword value in the low bits of one word.
When two lanes write one place the later one (by wave, then lane) wins.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from isobath.emulator.bits import Array, i32, i64, u8, u16, u32, u64

f16, f32, f64 = np.float16, np.float32, np.float64
_TYPES: dict[str, Any] = {"u": u32, "i": i32, "f": f32, "U": u64, "I": i64, "D": f64}


class Bytes:
    """A byte array with views of every width; its size is rounded up to 16."""

    def __init__(self, octets: Array) -> None:
        self.octets = octets
        self.words = octets.view(u32)
        self.by_width: dict[int, Array] = {2: octets.view(u16), 4: self.words, 8: octets.view(u64)}
        self.quads = octets.view(np.complex128)

    @classmethod
    def filled(cls, size: int, octet: int) -> Bytes:
        return cls(np.full(-(-size // 16) * 16, octet, u8))

    def gather(self, offset: Array, width: int) -> list[Array]:
        """The words at each lane's offset."""
        low_bits = int(np.bitwise_or.reduce(offset, axis=None))
        if width == 1:
            return [self.octets.take(offset, mode="clip").astype(u32)]
        if width == 2 and not low_bits & 1:
            return [self.by_width[2].take(offset >> 1, mode="clip").astype(u32)]
        if width == 16 and not low_bits & 15:
            found = self.quads.take(offset >> 4, mode="clip").view(u32)
            parts = found.reshape(*offset.shape, 4)
            return [parts[..., k] for k in range(4)]
        if width == 8 and not low_bits & 7:
            found = self.by_width[8].take(offset >> 3, mode="clip").view(u32)
            return [found[..., 0::2], found[..., 1::2]]
        if width >= 4 and not low_bits & 3:
            at = offset >> 2
            return [self.words.take(at + k if k else at, mode="clip") for k in range(width // 4)]
        return self._gather_bytes(offset, width)

    def _gather_bytes(self, offset: Array, width: int) -> list[Array]:
        words = []
        for start in range(0, width, 4):
            word = np.zeros(offset.shape, u32)
            for k in range(min(4, width - start)):
                octet = self.octets.take(offset + (start + k), mode="clip").astype(u32)
                word |= octet << (8 * k)
            words.append(word)
        return words

    def scatter(self, offset: Array, words: list[Array], width: int, lanes: Array | None) -> None:
        """Store each lane's words."""
        if lanes is not None:
            at = np.flatnonzero(lanes)
            offset = offset.ravel().take(at)
            words = [word.ravel().take(at) for word in words]
        low_bits = int(np.bitwise_or.reduce(offset, axis=None)) if offset.size else 0
        if width == 1:
            self.octets[offset] = words[0].astype(u8)
        elif width == 2 and not low_bits & 1:
            self.by_width[2][offset >> 1] = words[0].astype(u16)
        elif width == 16 and not low_bits & 15:
            together = np.stack(words, -1).view(np.complex128)[..., 0]
            self.quads[offset >> 4] = together
        elif width >= 4 and not low_bits & 3:
            at = offset >> 2
            for k, word in enumerate(words):
                self.words[at + k if k else at] = word
        else:
            for k in range(width):
                self.octets[offset + k] = (words[k // 4] >> (8 * (k % 4))).astype(u8)

    def atomic(
        self, offset: Array, operation: str, kind: str, value: Array, compare: Array | None
    ) -> Array:
        """Read-modify-write in order of the flat offsets; the old values.

        offset, value, compare: one dimension. Lanes that meet in one place go one after another.
        """
        packed = kind in ("f16", "bf16")
        view = self.octets.view(u32 if packed else _TYPES[kind])
        width = view.itemsize
        assert not (offset % width).any(), "an unaligned atomic"
        at = offset // width
        apply = _OPERATIONS[operation] if not packed else _PACKED[kind]
        old = np.empty(value.shape, value.dtype)
        for turn in _turns(at):
            place = at[turn]
            old[turn] = view[place]
            if operation == "cmpswap":
                assert compare is not None
                new = np.where(old[turn] == compare[turn], value[turn], old[turn])
            else:
                new = apply(old[turn], value[turn])
            view[place] = new
        return old


def _turns(at: Array) -> list[Array]:
    """Index arrays in which no place occurs twice; the first holds each place's first lane."""
    order = np.argsort(at, kind="stable")
    ordered = at[order]
    starts = np.ones(len(at), bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    first = np.maximum.accumulate(np.where(starts, np.arange(len(at)), 0))
    rank = np.arange(len(at)) - first
    by_rank = np.argsort(rank, kind="stable")
    bounds = np.searchsorted(rank[by_rank], np.arange(int(rank.max(initial=-1)) + 2))
    return [order[by_rank[low:high]] for low, high in pairwise(bounds)]


def _halves(change: Callable[[Array], Array], back: Callable[[Array], Array]) -> Callable[..., Any]:
    def add(old: Array, value: Array) -> Array:
        low = back(change(old & 0xFFFF) + change(value & 0xFFFF))
        high = back(change(old >> 16) + change(value >> 16))
        return low | (high << 16)

    return add


def _bf16_bits(x: Array) -> Array:
    word = x.astype(f32).view(u32)
    even = (word + 0x7FFF + ((word >> 16) & 1)) >> 16
    return np.where(np.isnan(x), (word >> 16) | 0x40, even).astype(u32)


_PACKED = {
    "f16": _halves(lambda word: word.astype(u16).view(f16), lambda x: x.view(u16).astype(u32)),
    "bf16": _halves(lambda word: (word << 16).view(f32), _bf16_bits),
}
_OPERATIONS: dict[str, Callable[..., Any]] = {
    "swap": lambda old, value: value,
    "cmpswap": lambda old, value: value,
    "add": lambda old, value: old + value,
    "sub": lambda old, value: old - value,
    "rsub": lambda old, value: value - old,
    "min": np.minimum,
    "max": np.maximum,
    "fmin": np.fmin,
    "fmax": np.fmax,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "inc": lambda old, value: np.where(old >= value, old.dtype.type(0), old + old.dtype.type(1)),
    "dec": lambda old, value: np.where((old == 0) | (old > value), value, old - old.dtype.type(1)),
}
