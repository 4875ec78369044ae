"""Registers of many waves, and moving words between them and memory.

Register n is one array [W, 64] uint32; SGPRs lie in even pairs so that a pair is also one uint64.
The views by which generated code names them (`v5u`, `a0f`, `s4U`) are made here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from isobath.emulator import lanes
from isobath.emulator.bits import Array, i32, i64, u32, u64
from isobath.emulator.storage import Bytes

f32, f64 = np.float32, np.float64
_TYPES: dict[str, Any] = {"i": i32, "f": f32, "U": u64, "I": i64, "D": f64}


class Registers:
    """VGPRs V, accumulation registers A, SGPRs S and SCC of `waves` waves."""

    def __init__(self, waves: int, vector: int, accumulation: int) -> None:
        self.waves = waves
        self.V = np.empty((vector, waves, 64), u32)
        self.A = np.empty((accumulation, waves, 64), u32)
        self.S = np.empty((64, waves, 2), u32)
        self.scc = np.zeros((waves, 1), bool)
        self.files = {"v": self.V, "a": self.A}

    def fill(self, poison: int) -> None:
        """Nothing is defined: every register holds `poison`."""
        for array in (self.V, self.A, self.S):
            array.fill(poison)
        self.scc.fill(False)

    def scalar(self, n: int) -> Array:
        """SGPR n of every wave, [W, 1]."""
        return self.S[n // 2, :, n % 2 : n % 2 + 1]

    def set_scalar(self, n: int, value: Array | int) -> None:
        self.S[n // 2, :, n % 2] = value

    def names(self) -> dict[str, Any]:
        """The views that generated code names."""
        names: dict[str, Any] = {"scc": self.scc}
        for letter, file in self.files.items():
            for n, row in enumerate(file):
                names[f"{letter}{n}u"] = row
                names[f"{letter}{n}i"], names[f"{letter}{n}f"] = row.view(i32), row.view(f32)
        for n in range(128):
            column = self.scalar(n)
            names[f"s{n}u"] = column
            names[f"s{n}i"], names[f"s{n}f"] = column.view(i32), column.view(f32)
            if n % 2 == 0:
                pair = self.S[n // 2].view(u64)
                names[f"s{n}U"], names[f"s{n}I"] = pair, pair.view(i64)
                names[f"s{n}D"] = pair.view(f64)
        return names

    def group(self, place: tuple[str, int, int]) -> Array:
        """(file, first, count) -> [count, W, 64]."""
        file, first, count = place
        return self.files[file][first : first + count]

    def place(
        self, words: list[Array], form: str, file: str, first: int, active: Array | None
    ) -> None:
        """Words into registers, sub-dword forms extended or merged."""
        rows = self.files[file]
        if form:
            words = [_extended(words[0], form, rows[first])]
        if active is None:
            for k, word in enumerate(words):
                rows[first + k][...] = word
            return
        keep = lanes.word_mask(active)
        for k, word in enumerate(words):
            lanes.blend(rows[first + k], word, keep)

    def taken(self, file: str, first: int, width: int, high: bool) -> list[Array]:
        """The words a store takes from its registers."""
        rows = self.files[file]
        if high:
            return [rows[first] >> 16]
        return [rows[first + k] for k in range(max(1, width // 4))]

    def flat(self, file: str, first: int, width: int, at: Array, kind: str) -> Array:
        """Values of a type in the flat lanes `at`."""
        rows = self.files[file]
        words = [rows[first + k].reshape(-1)[at] for k in range(max(1, width // 4))]
        together = np.ascontiguousarray(np.stack(words, -1))
        return together.view(_TYPES.get(kind, u32))[:, 0]

    def update(
        self,
        store: Bytes,
        offset: Array,
        mine: Array | None,
        operation: str,
        kind: str,
        width: int,
        data: tuple[str, int],
        compare: tuple[str, int] | None,
        old: Array,
    ) -> None:
        """Atomic on the lanes of one storage; `old` receives the former values."""
        at = np.arange(offset.size) if mine is None else np.flatnonzero(mine)
        value = self.flat(*data, width, at, kind)
        expected = self.flat(*compare, width, at, kind) if compare else None
        before = store.atomic(offset.ravel()[at], operation, kind, value, expected)
        raw = np.ascontiguousarray(before).view(u32).reshape(len(at), -1)
        for k in range(old.shape[0]):
            old[k].reshape(-1)[at] = raw[:, k]


def _extended(word: Array, form: str, old: Array) -> Array:
    """A sub-dword value as its register holds it."""
    size = 8 if form[1] == "8" else 16
    if form[0] == "i":
        word = (word.view(i32) << (32 - size) >> (32 - size)).view(u32)
    if "d16" not in form:
        return word
    if form.endswith("hi"):
        return (old & 0xFFFF) | (word << 16)
    return (old & u32(0xFFFF0000)) | (word & 0xFFFF)
