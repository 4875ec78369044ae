"""A program as basic blocks, each a Python function: compiled once, bound to every launch.

A block ends at a branch, a barrier, the end of the program, and wherever EXEC is written, since the
functions come in three versions: all lanes of all waves on; some lanes off; some waves elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import CodeType

from isobath.emulator.code import Instruction, Program
from isobath.emulator.faults import UnsupportedInstruction
from isobath.emulator.image import BASE
from isobath.emulator.isa import NO_EFFECT, TABLES
from isobath.emulator.lower import Emitter, scalar_alu, vector_alu
from isobath.emulator.lower_memory import is_memory, lower_memory
from isobath.emulator.lower_special import SPECIAL
from isobath.emulator.operands import ConstantPool

ALL, LANES_OFF, WAVES_OFF = 0, 1, 2
_ENDS = ("s_branch", "s_endpgm", "s_barrier")
_JUMPS = ("s_setpc_b64", "s_swappc_b64")
_CONDITIONS = ("scc0", "scc1", "vccz", "vccnz", "execz", "execnz")


@dataclass(slots=True)
class Block:
    """Straight-line code. kind: how it ends; target, after: the blocks that follow, but for "jump",
    which goes to the address in a register."""

    body: tuple[Instruction, ...]
    kind: str
    target: int
    after: int
    writes_exec: bool
    codes: list[CodeType | None] = field(default_factory=lambda: [None, None, None])


@dataclass(slots=True)
class Compiled:
    """A program's blocks, the constants their functions name, and where execution starts."""

    program: Program
    blocks: list[Block]
    entries: dict[str, int]
    pool: ConstantPool
    at_address: dict[int, int] = field(default_factory=dict)
    """Address -> block, where the program asks for addresses."""

    def code(self, index: int, version: int) -> CodeType:
        """Code object that defines `block` for one block in one version."""
        block = self.blocks[index]
        found = block.codes[version]
        if found is None:
            text = self.source(index, version)
            found = block.codes[version] = compile(text, f"<block {index}.{version}>", "exec")
        return found

    def source(self, index: int, version: int) -> str:
        """The Python text of a block."""
        lines = ["def block(E=None, K=None, MW=None):"]
        for instruction in self.blocks[index].body:
            for line in lower_instruction(instruction, self.pool, version):
                lines.append("    " + line)
        return "\n".join(lines if len(lines) > 1 else [*lines, "    pass"])


def lower_instruction(
    instruction: Instruction, pool: ConstantPool, version: int = ALL
) -> list[str]:
    """Lines of one instruction. Raises UnsupportedInstruction with its name."""
    name = instruction.name
    if name in NO_EFFECT:
        return []
    e = Emitter(instruction, pool, lanes_off=version != ALL, waves_off=version == WAVES_OFF)
    opcode = TABLES.get(name)
    try:
        if name in SPECIAL:
            SPECIAL[name](e)
        elif opcode and opcode.scalar:
            scalar_alu(e, opcode)
        elif opcode:
            vector_alu(e, opcode)
        elif is_memory(name):
            lower_memory(e)
        else:
            raise e.unsupported("opcode not in the tables")
    except (IndexError, KeyError) as error:
        raise e.unsupported(f"operands of an unknown form ({error!r})") from error
    return e.finish()


def writes_exec(instruction: Instruction) -> bool:
    """Whether the lanes that are on may change."""
    name, operands = instruction.name, instruction.operands
    if "saveexec" in name or "wrexec" in name or name.startswith("v_cmpx"):
        return True
    return bool(operands) and operands[0] in ("exec", "exec_lo", "exec_hi")


def compile_program(program: Program) -> Compiled:
    """Split a program into blocks; the result is kept with the program."""
    found = program.cache.get("compiled")
    if isinstance(found, Compiled):
        return found
    instructions = program.instructions
    leaders = {0, program.start, program.preload_entry, *program.labels.values()}
    for instruction in instructions:
        if _ends_block(instruction) or writes_exec(instruction):
            leaders.add(instruction.index + 1)
    starts = sorted(at for at in leaders if at < len(instructions))
    number = {at: k for k, at in enumerate(starts)}
    blocks = []
    for k, start in enumerate(starts):
        stop = starts[k + 1] if k + 1 < len(starts) else len(instructions)
        blocks.append(_block(program, instructions[start:stop], number, k + 1))
    entries = {"preload": number[program.preload_entry], "legacy": number[program.start]}
    compiled = Compiled(program, blocks, entries, ConstantPool())
    if program.image:
        addresses = program.image.addresses
        compiled.at_address = {BASE + addresses[at]: block for at, block in number.items()}
    program.cache["compiled"] = compiled
    return compiled


def _ends_block(instruction: Instruction) -> bool:
    return instruction.name.startswith(("s_cbranch", *_ENDS)) or instruction.name in _JUMPS


def _block(
    program: Program, body: tuple[Instruction, ...], number: dict[int, int], after: int
) -> Block:
    last = body[-1]
    if not _ends_block(last):
        return Block(body, "fall", after, after, writes_exec(last))
    if last.name in _JUMPS:
        return Block(body, "jump", after, after, False)
    kind, target = last.name.removeprefix("s_"), after
    if kind.startswith("cbranch_"):
        kind = kind.removeprefix("cbranch_")
        if kind not in _CONDITIONS:
            raise UnsupportedInstruction(last.name, str(last))
    if last.operands and kind not in ("barrier", "endpgm"):
        target = number[program.labels[last.operands[0]]]
    before = body[:-1]
    return Block(before, kind, target, after, bool(before) and writes_exec(before[-1]))
