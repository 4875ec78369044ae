"""A batch of workgroups in lockstep: their registers, memory units and bound code.

machine.py composes the state (registers.py, global_unit.py, local_unit.py), sets it as a loader
would, owns MODE, and binds blocks.py's functions to it; schedule.py decides which wave runs next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from isobath.emulator import bits, floats, fp8, lanes, operands, reduction
from isobath.emulator.bits import LANES, Array, u32, u64
from isobath.emulator.blocks import Compiled
from isobath.emulator.faults import UnsupportedInstruction
from isobath.emulator.global_unit import GlobalUnit, Watch
from isobath.emulator.local_unit import LocalUnit
from isobath.emulator.memory import Memory, Segment, Site
from isobath.emulator.mfma import Products, multiply, source_lanes
from isobath.emulator.registers import Registers

ALL_LANES = u64(2**64 - 1)
DENORMALS_ON = 0xF
_UFUNCS_NAMES = (
    "add subtract multiply bitwise_and bitwise_or bitwise_xor bitwise_not left_shift "
    "right_shift minimum maximum fmin fmax sqrt ceil floor trunc rint absolute exp2 log2 ldexp "
    "where copyto clip"
)
_UFUNCS = _UFUNCS_NAMES.split()


def _functions() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for module in (bits, floats, fp8, lanes, operands, reduction):
        names |= {k: v for k, v in vars(module).items() if not k.startswith("__")}
    return names | {name: getattr(np, name) for name in _UFUNCS} | {"ONE": u32(1)}


FUNCTIONS = _functions()
"""What the expressions of the opcode tables may name."""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One launch: grid in workgroups, waves a workgroup, LDS in bytes, the kernarg segment.

    entry: "preload" (256 bytes in, arguments already in SGPRs) or "legacy". exact: bit-exact
    matrix products; products: those of earlier runs of this launch.
    """

    grid: tuple[int, int, int]
    num_warps: int
    lds_bytes: int
    kernarg: Segment
    entry: str = "preload"
    exact: bool = False
    products: Products = field(default_factory=Products)

    @property
    def workgroups(self) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2]


class Machine:
    """`count` workgroups of a dispatch at once, from their start to their end.

    part_of: the machine whose workgroups these are, when this one has but the wave at `place` of
    each; LDS and barriers are then the other's.
    """

    def __init__(
        self,
        compiled: Compiled,
        memory: Memory,
        dispatch: Dispatch,
        count: int,
        *,
        place: int | None = None,
        part_of: Machine | None = None,
    ) -> None:
        self.compiled, self.dispatch = compiled, dispatch
        self.program = compiled.program
        places = np.arange(dispatch.num_warps) if place is None else np.array([place])
        self.workgroups, self.waves = count, count * len(places)
        self.member = np.arange(self.waves) // len(places)
        self.place = np.tile(places, count)
        self.watches: list[Watch] = []
        self.registers = Registers(self.waves, *register_counts(compiled))
        self.vmem = GlobalUnit(self.registers, memory, self.site, self.watches)
        frame = self.program.descriptor.scratch_bytes
        self.local = LocalUnit(
            self.registers, self.member, dispatch.lds_bytes, frame, self.site, self.watches
        )
        self.scc = self.registers.scc
        self.barriers = np.zeros(count, np.int64)
        if part_of:
            self.local.store, self.barriers = part_of.local.store, part_of.barriers
        self.counts = np.zeros(len(compiled.blocks), np.int64)
        self.jump = np.zeros((self.waves, 1), u64)
        self.functions: dict[tuple[int, int], Callable[..., None]] = {}
        self.names = FUNCTIONS | self.registers.names()
        self.names |= {"machine": self, "vmem": self.vmem, "local": self.local}
        self.exec, self.vcc = self.names["s126U"], self.names["s106U"]
        self.names["carry_lanes"] = lambda: operands.unpack(self.vcc)
        self.first_workgroup, self.mode = 0, 0

    def function(self, block: int, version: int) -> Callable[..., None]:
        """The bound Python function of a block."""
        found = self.functions.get((block, version))
        if found is None:
            code = self.compiled.code(block, version)
            self.names |= self.compiled.pool.values
            exec(code, self.names)
            found = self.functions[block, version] = self.names["block"]
        return found

    def reset(self, first_workgroup: int, poison: int) -> None:
        """The state at the first instruction; everything undefined holds `poison`."""
        dispatch, descriptor = self.dispatch, self.program.descriptor
        self.first_workgroup = first_workgroup
        self.registers.fill(poison)
        self.local.fill(poison)
        self.barriers.fill(0)
        if descriptor.denormals != DENORMALS_ON:
            raise UnsupportedInstruction("FLOAT_MODE", f"denormals {descriptor.denormals:#x}")
        self.mode = descriptor.denormals << 4
        at = descriptor.sgprs_before_kernarg
        set_scalar = self.registers.set_scalar
        set_scalar(at, dispatch.kernarg.base & 0xFFFFFFFF)
        set_scalar(at + 1, dispatch.kernarg.base >> 32)
        start = at + 2 + descriptor.sgprs_after_kernarg
        for k in range(descriptor.preload_sgprs if dispatch.entry == "preload" else 0):
            set_scalar(start + k, int(dispatch.kernarg.store.words[k]))
        at = descriptor.user_sgprs
        for axis, wanted in zip(self.workgroup_ids(), descriptor.workgroup_ids, strict=True):
            if wanted:
                set_scalar(at, axis[self.member])
                at += 1
        self.registers.V[0] = (self.place * 64)[:, None] + LANES
        self.exec[:] = ALL_LANES

    def workgroup_ids(self) -> tuple[Array, Array, Array]:
        """(x, y, z) of every workgroup of the batch."""
        x, y, _ = self.dispatch.grid
        number = self.first_workgroup + np.arange(self.workgroups)
        return number % x, number // x % y, number // (x * y)

    def describe(self, wave: int) -> str:
        """A wave's workgroup and place, for a message."""
        ids = ", ".join(str(int(axis[self.member[wave]])) for axis in self.workgroup_ids())
        return f"workgroup ({ids}), wave {self.place[wave]}"

    def jump_target(self, wave: int) -> int:
        """The block at the address that a wave jumps to."""
        address = int(self.jump[wave, 0])
        if address not in self.compiled.at_address:
            where = f"{self.describe(wave)} goes to {address:#x}, which is no beginning of code"
            raise UnsupportedInstruction("s_setpc_b64", "a jump", where)
        return self.compiled.at_address[address]

    def site(self, index: int) -> Site:
        return Site(index, self.program, self.describe)

    def set_mode(self, offset: int, size: int, value: int, site: int) -> None:
        """s_setreg of MODE; rounding and denormals may not change."""
        mask = ((1 << size) - 1) << offset
        new = (self.mode & ~mask) | (value << offset & mask)
        if (new ^ DENORMALS_ON << 4) & 0xFF:
            instruction = self.program.instructions[site]
            raise UnsupportedInstruction(instruction.name, str(instruction), "rounding, denormals")
        self.mode = new

    def clock(self) -> Array:
        """Blocks that the machine's waves have executed."""
        return np.array([[self.counts.sum()]], u64)

    def matrix(
        self,
        name: str,
        target: tuple[str, int, int],
        a: tuple[str, int, int],
        b: tuple[str, int, int],
        c: tuple[str, int, int] | int,
        waves: Array | None,
        spread: tuple[int, int] = (0, 0),
    ) -> None:
        """A matrix product of every wave; c may be a literal's bits; spread: cbsz and abid."""
        group = self.registers.group
        addend = np.array([c & 0xFFFFFFFF, c >> 32], u32) if isinstance(c, int) else group(c)
        out, left, right = group(target), group(a), group(b)
        if spread[0]:
            left = left[:, :, source_lanes(name, *spread)]
        on = slice(None) if waves is None else np.flatnonzero(waves)
        addend = addend if addend.ndim == 1 else addend[:, on]
        if self.dispatch.exact:
            out[:, on] = self.dispatch.products.multiply(name, left[:, on], right[:, on], addend)
        else:
            out[:, on] = multiply(name, left[:, on], right[:, on], addend, exact=False)


def register_counts(compiled: Compiled) -> tuple[int, int]:
    """(VGPRs, AGPRs) that the program names, at least one of each."""
    found = compiled.program.cache.get("registers")
    if isinstance(found, tuple):
        return found[0], found[1]
    most = {"v": 0, "a": 0}
    for instruction in compiled.program.instructions:
        for text in instruction.operands:
            if "v" in text or "a" in text:
                operand = _register(text)
                if operand and operand.file in most:
                    most[operand.file] = max(most[operand.file], operand.index + operand.count - 1)
    compiled.program.cache["registers"] = most["v"] + 1, most["a"] + 1
    return most["v"] + 1, most["a"] + 1


def _register(text: str) -> operands.Operand | None:
    try:
        return operands.parse_operand(text)
    except UnsupportedInstruction:  # a label, hwreg or "off"
        return None
