"""What a launch's machine code costs by counting: instruction mix, matrix clocks, LDS bank
conflicts, coalescing. Static bounds from exact addresses, never a time: no caches, no latency.

A gfx942 SIMD issues a wave's VALU instruction in 4 clocks (transcendental 16, float64 8), a matrix
instruction in 4 clocks a pass; LDS serves 128 bytes a clock from 32 banks of 4 bytes, global memory
is fetched in segments of 64 bytes. How the hardware groups the lanes of wide LDS accesses is not
published; lanes are taken in order here, so compare variants rather than trust absolutes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from isobath.emulator.bits import Array, i64
from isobath.emulator.mfma import VARIANTS

BANKS, SEGMENT_BYTES, LDS_BYTES_A_CLOCK = 32, 64, 128
SIMDS = 4
_TRANSCENDENTAL = ("v_exp_", "v_log_", "v_rcp_", "v_rsq_", "v_sqrt_", "v_sin_", "v_cos_")


@dataclass(slots=True)
class Traffic:
    """A Watch that counts. lds_clocks, lds_ideal_clocks: with and without bank conflicts; bytes:
    by "load", "store", "atomic"; segments: 64-byte segments touched by each, instruction by
    instruction; accesses: wave instructions of each."""

    lds_clocks: int = 0
    lds_ideal_clocks: int = 0
    lds_bytes: int = 0
    bytes: dict[str, int] = field(default_factory=dict)
    segments: dict[str, int] = field(default_factory=dict)
    accesses: dict[str, int] = field(default_factory=dict)

    @property
    def lds_conflict(self) -> float:
        """LDS clocks over those without conflicts; 1 is best."""
        return self.lds_clocks / self.lds_ideal_clocks if self.lds_ideal_clocks else 1.0

    def coalescing(self, what: str) -> float:
        """Bytes fetched over bytes asked for, in segments; 1 is best."""
        asked = self.bytes.get(what, 0)
        return self.segments.get(what, 0) * SEGMENT_BYTES / asked if asked else 1.0

    def lds(
        self, site: int, offset: Array, width: int, lanes: Array | None, words: list[Array] | None
    ) -> None:
        active = np.ones(offset.shape, bool) if lanes is None else lanes
        together = max(1, min(BANKS, LDS_BYTES_A_CLOCK // max(width, 4)))
        together = 8 if width == 12 else together
        dwords = max(1, width // 4)
        first = (offset >> 2).reshape(-1, together)
        on = active.reshape(-1, together)
        cells = np.where(on[..., None], first[..., None] + np.arange(dwords), -1)
        cells = np.sort(cells.reshape(len(first), -1), axis=1)
        distinct = cells >= 0
        distinct[:, 1:] &= cells[:, 1:] != cells[:, :-1]
        load = np.zeros((len(cells), BANKS), i64)
        group, _ = np.nonzero(distinct)
        np.add.at(load, (group, cells[distinct] % BANKS), 1)
        self.lds_clocks += int(load.max(1).sum())
        self.lds_ideal_clocks += int(on.any(1).sum())
        self.lds_bytes += int(active.sum()) * width

    def memory(self, site: int, address: Array, width: int, lanes: Array | None, what: str) -> None:
        active = np.ones(address.shape, bool) if lanes is None else lanes
        ends = np.concatenate([address, address + (width - 1)], axis=1) // SEGMENT_BYTES
        ends = np.where(np.concatenate([active, active], axis=1), ends, -1)
        ends = np.sort(ends, axis=1)
        distinct = ends >= 0
        distinct[:, 1:] &= ends[:, 1:] != ends[:, :-1]
        for table, count in (
            (self.bytes, int(active.sum()) * width),
            (self.segments, int(distinct.sum())),
            (self.accesses, int(active.any(1).sum())),
        ):
            table[what] = table.get(what, 0) + count


@dataclass(frozen=True, slots=True)
class Clocks:
    """Clocks of one compute unit for a whole launch, each unit as if it were alone.

    matrix, vector, scalar: spread over 4 SIMDs; lds: with conflicts; bound: the largest.
    """

    matrix: float
    vector: float
    scalar: float
    lds: float
    flops: int

    @property
    def bound(self) -> float:
        return max(self.matrix, self.vector, self.scalar, self.lds)

    @property
    def matrix_share(self) -> float:
        """Upper limit of the matrix units' use; 0 without matrix products."""
        return self.matrix / self.bound if self.bound else 0.0


def clocks(mix: Mapping[str, int], traffic: Traffic | None = None) -> Clocks:
    """Clocks of an instruction mix (executions counted once a wave)."""
    matrix = vector = scalar = flops = 0
    for name, count in mix.items():
        if name in VARIANTS:
            matrix += 4 * VARIANTS[name].passes * count
            flops += VARIANTS[name].flops * count
        elif name.startswith(_TRANSCENDENTAL):
            vector += 16 * count
        elif name.startswith("v_"):
            vector += (8 if "_f64" in name else 4) * count
        elif name.startswith("s_") and not name.startswith(("s_waitcnt", "s_nop")):
            scalar += 4 * count
    lds = float(traffic.lds_clocks) if traffic else 0.0
    return Clocks(matrix / SIMDS, vector / SIMDS, scalar / SIMDS, lds, flops)
