"""The targets that kernels are compiled for, and what their machines can hold.

Pure values: triton is told about a target in triton_record.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from isobath.errors import ConfigError
from isobath.numerics.dialect import Dialect
from isobath.target import dialect_of_arch

KIB = 1024


@dataclass(frozen=True, slots=True)
class Machine:
    """arch: as isobath/target.py calls it. kind, code: as Triton calls the backend ("hip" or
    "cuda") and the architecture. wave: threads of a wave or warp. compute_units: CUs or SMs of the
    product, on which launchers base their tiles. lds_bytes: shared memory that a workgroup can
    have. wave_slots: waves that a SIMD (AMD) or SM (NVIDIA) holds at most."""

    arch: str
    kind: str
    code: str | int
    wave: int
    compute_units: int
    lds_bytes: int
    wave_slots: int

    @property
    def dialect(self) -> Dialect:
        """The one its matrix units read."""
        return dialect_of_arch(self.arch)


# MI300X: 304 CUs with 64 KiB LDS; MI355X: 256 CUs with 160 KiB (CDNA3 and CDNA4 ISA guides); a SIMD
# of either has 8 wave slots. H200: 132 SMs, 227 KiB a block, 64 warps (CUDA C programming guide).
MACHINES = {
    machine.arch: machine
    for machine in (
        Machine("gfx942", "hip", "gfx942", 64, 304, 64 * KIB, 8),
        Machine("gfx950", "hip", "gfx950", 64, 256, 160 * KIB, 8),
        Machine("sm_90", "cuda", 90, 32, 132, 227 * KIB, 64),
    )
}


def machine_of(arch: str) -> Machine:
    """The row of MACHINES for `arch`. Raises ConfigError for another one."""
    if arch not in MACHINES:
        raise ConfigError(f"no compile target {arch!r}", found="known: " + ", ".join(MACHINES))
    return MACHINES[arch]
