"""What a kernel's machine code takes and is made of, read from assembly text.

Registers, spills and scratch stand in amdgcn's own metadata, for NVIDIA in what its tools say.
Instruction counts are static: one an instruction in the text, however often a loop runs it.
Occupancy is what registers and LDS allow, in waves a SIMD (AMD) or warps an SM (NVIDIA).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from isobath.xcompile.target import KIB, Machine

AMD_SIMDS, AMD_REGISTERS, AMD_GRANULE = 4, 512, 8
"""Of a CU; vector registers of a lane, AGPRs included, and the unit in which they are given out."""
SM_REGISTERS, SM_SHARED, SM_BLOCK_SHARED = 65_536, 228 * KIB, 1 * KIB
"""Of an SM of sm_90; the last: shared memory that each block takes beside its own."""
_AMD_LINE = re.compile(r"^\s+((?:s|v|ds|global|buffer|flat|scratch)_\w+)", re.MULTILINE)
_PTX_LINE = re.compile(r"^\s+(?:@!?%p\d+ )?([a-z][\w.:]+)[ ;]", re.MULTILINE)
_CLASSES = {
    "hip": (
        ("mfma", r"v_mfma"),
        ("mfma_fp8", r"v_mfma\w*_(?:fp8|bf8|f8f6f4)"),
        ("vector", r"v_(?!mfma)"),
        ("scalar", r"s_"),
        ("global", r"(?:global|buffer|flat)_"),
        ("lds", r"ds_"),
        ("scratch", r"scratch_"),
        ("barrier", r"s_barrier"),
    ),
    "cuda": (
        ("mfma", r"wgmma\.mma_async|mma\.sync"),
        ("mfma_fp8", r"(?:wgmma\.mma_async|mma\.sync).*\.e[45]m[23]"),
        ("global", r"(?:ld|st|atom|red)\.global|cp\.async\.(?:c|bulk)"),
        ("lds", r"(?:ld|st)\.shared|ldmatrix|stmatrix"),
        ("barrier", r"bar\.sync"),
    ),
}


@dataclass(frozen=True, slots=True)
class Resources:
    """registers: vector registers a lane, AGPRs included. agprs, sgprs, scalar_spills: 0 on NVIDIA.
    vector_spills: registers that did not fit (NVIDIA: words stored). scratch_bytes: of a lane.
    mix: instructions by class; "all" is their number."""

    registers: int
    agprs: int
    sgprs: int
    vector_spills: int
    scalar_spills: int
    scratch_bytes: int
    lds_bytes: int
    occupancy: float
    mix: dict[str, int]


def resources(
    machine: Machine, assembly: str, *, usage: str, shared_bytes: int, num_warps: int
) -> Resources:
    """Read them. usage: what cuobjdump and ptxas say, for NVIDIA."""
    read = _of_amd if machine.kind == "hip" else _of_nvidia
    counts = read(assembly if machine.kind == "hip" else usage)
    return Resources(
        **counts,
        lds_bytes=shared_bytes,
        occupancy=occupancy(machine, counts["registers"], shared_bytes, num_warps),
        mix=instruction_mix(machine.kind, assembly),
    )


def occupancy(machine: Machine, registers: int, shared_bytes: int, num_warps: int) -> float:
    """Waves that run at once: whole workgroups, as registers, LDS and wave slots allow."""
    granted = -(-max(registers, 1) // AMD_GRANULE) * AMD_GRANULE
    if machine.kind == "hip":
        waves = min(machine.wave_slots, AMD_REGISTERS // granted)
        groups = AMD_SIMDS * waves // num_warps
        if shared_bytes:
            groups = min(groups, machine.lds_bytes // shared_bytes)
        return groups * num_warps / AMD_SIMDS
    groups = min(
        machine.wave_slots // num_warps,
        SM_REGISTERS // (granted * machine.wave * num_warps),
        SM_SHARED // (shared_bytes + SM_BLOCK_SHARED),
    )
    return float(groups * num_warps)


def instructions(kind: str, assembly: str) -> list[str]:
    """Mnemonics in the order of the text."""
    return (_AMD_LINE if kind == "hip" else _PTX_LINE).findall(assembly)


def instruction_mix(kind: str, assembly: str) -> dict[str, int]:
    """Number of instructions, in all and by class; classes may overlap."""
    found = Counter(instructions(kind, assembly))
    mix = {"all": sum(found.values())}
    for name, pattern in _CLASSES[kind]:
        mix[name] = sum(n for op, n in found.items() if re.match(pattern, op))
    return mix


def _of_amd(assembly: str) -> dict[str, int]:
    def field(name: str) -> int:
        found = re.search(rf"^\s*(?:- )?\.{name}:\s+(\d+)", assembly, re.MULTILINE)
        assert found, f"no .{name} in the assembly's metadata"
        return int(found[1])

    return {
        "registers": field("vgpr_count"),
        "agprs": field("agpr_count"),
        "sgprs": field("sgpr_count"),
        "vector_spills": field("vgpr_spill_count"),
        "scalar_spills": field("sgpr_spill_count"),
        "scratch_bytes": field("private_segment_fixed_size"),
    }


def _of_nvidia(usage: str) -> dict[str, int]:
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    spills = re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", usage)
    assert found and (spills or not int(found[2])), f"the tools said {usage!r}"
    return {
        "registers": int(found[1]),
        "agprs": 0,
        "sgprs": 0,
        "vector_spills": max(int(spills[1]), int(spills[2])) // 4 if spills else 0,
        "scalar_spills": 0,
        "scratch_bytes": int(found[2]),
    }
