"""Missing s_waitcnt, found without execution: a forward dataflow over the control flow graph.

A load, LDS read or returning atomic makes its destination pending on a counter (vmcnt, lgkmcnt);
s_waitcnt n clears what has at least n younger operations behind it, scalar loads only at zero,
since they return out of order. A use or an overwrite of a pending register, or an LDS write still
pending at a barrier, is reported; an overwrite by a load of the same counter is not, since those
return in order. Registers of a returning atomic that the wave never reads again
are known to be overwritten early by LLVM and are not reported for overwriting.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from isobath.emulator.code import Instruction, Program
from isobath.emulator.faults import MissingWait, UnsupportedInstruction
from isobath.emulator.operands import parse_operand

LDS_WRITE = "LDS write"
_MANY = 64
_TWO_RESULTS = re.compile(r"^v_(div_scale|mad_[iu]64|(add|sub|subrev|addc|subb|subbrev)_co_)")
_NO_OPERANDS = ("s_waitcnt", "s_setreg", "s_getreg", "s_branch", "s_cbranch", "s_nop", "s_setprio",
                "s_endpgm", "s_barrier", "s_sleep")  # fmt: skip
_READS_RESULT = ("v_fmac", "v_writelane", "v_cvt_pk_fp8", "v_cvt_pk_bf8", "v_dot")

Pending = dict[str, tuple[str, int, bool]]
"""Register -> (counter, operations issued since, whether an atomic returns into it)."""


@dataclass(frozen=True, slots=True)
class Report:
    """One finding: an instruction, a register, and what was in flight."""

    instruction: Instruction
    register: str
    counter: str

    def __str__(self) -> str:
        return f"{self.instruction}: {self.register} ({self.counter} not awaited)"


def check_waits(program: Program) -> None:
    """Raises MissingWait with the first finding."""
    found = find_missing_waits(program)
    if found:
        raise MissingWait(
            f"{program.name} uses a register before its load is sure to have arrived",
            found="\n    ".join(str(report) for report in found[:4]),
            effect="a GPU would compute with the register's former content, sometimes",
            do="an s_waitcnt in front of it",
        )


def registers(text: str) -> list[str]:
    """Names of the single registers of an operand."""
    try:
        operand = parse_operand(text)
    except UnsupportedInstruction:
        return []
    if not operand.is_register:
        return []
    return [f"{operand.file}{operand.index + k}" for k in range(operand.count)]


def uses(instruction: Instruction) -> tuple[list[str], list[str]]:
    """(registers read, registers written)."""
    name, operands = instruction.name, instruction.operands
    if not operands or name.startswith(_NO_OPERANDS):
        return [], []
    count = 0 if _writes_nothing(instruction) else 2 if _TWO_RESULTS.match(name) else 1
    written = [r for text in operands[:count] for r in registers(text)]
    read = [r for text in operands[count:] for r in registers(text)]
    if name.startswith(_READS_RESULT):
        read += registers(operands[0])
    return read, written


def _writes_nothing(instruction: Instruction) -> bool:
    name = instruction.name
    if "_store_" in name or name.startswith(("ds_write", "s_cmp", "s_bitcmp", "s_setpc")):
        return True
    if "atomic" in name:
        return "sc0" not in instruction.modifiers
    return name.startswith("ds_") and not _returns(instruction)


def _returns(instruction: Instruction) -> bool:
    """Whether a memory instruction writes a register."""
    name = instruction.name
    if name.startswith("ds_"):
        return name.startswith(("ds_read", "ds_bperm", "ds_perm", "ds_swizzle")) or "_rtn" in name
    return "_load_" in name or ("atomic" in name and "sc0" in instruction.modifiers)


def counter_of(instruction: Instruction) -> str:
    """Which counter an instruction raises: "vmcnt", "lgkmcnt", "smem" (in lgkmcnt too) or none."""
    name = instruction.name
    if name.startswith(("global_", "buffer_", "flat_", "scratch_")):
        return "" if name in ("buffer_wbl2", "buffer_inv") else "vmcnt"
    if name.startswith("ds_"):
        return "lgkmcnt"
    return "smem" if name.startswith(("s_load", "s_buffer_load")) else ""


def find_missing_waits(program: Program) -> list[Report]:
    """Every finding, in program order."""
    instructions = program.instructions
    joins = set(program.labels.values())
    states: dict[int, Pending] = {at: {} for at in (program.preload_entry, *program.functions)}
    states.setdefault(program.start, {})
    work = list(states)
    found: dict[tuple[int, str], Report] = {}
    while work:
        at = work.pop()
        pending = dict(states[at])
        while at < len(instructions):
            instruction = instructions[at]
            _judge(instruction, pending, found)
            pending = _after(instruction, pending)
            following = _successors(program, at, joins)
            if following is not None:
                for target in following:
                    if _merge(states, target, pending):
                        work.append(target)
                break
            at += 1
    return [found[key] for key in sorted(found)]


def _successors(program: Program, at: int, joins: set[int]) -> list[int] | None:
    """Where control goes when it does not simply fall through inside a block."""
    instruction = program.instructions[at]
    if instruction.name.startswith(("s_endpgm", "s_setpc")):
        return []
    if instruction.name == "s_branch":
        return [program.labels[instruction.operands[0]]]
    if instruction.name.startswith("s_cbranch"):
        return [program.labels[instruction.operands[0]], at + 1]
    return [at + 1] if at + 1 in joins else None


def _judge(
    instruction: Instruction, pending: Pending, found: dict[tuple[int, str], Report]
) -> None:
    read, written = uses(instruction)
    if instruction.name == "s_barrier" and LDS_WRITE in pending:
        found[instruction.index, LDS_WRITE] = Report(instruction, LDS_WRITE, "lgkmcnt")
    for register in read + written:
        if register not in pending:
            continue
        counter, _, atomic = pending[register]
        in_order = counter == counter_of(instruction) != "smem"
        if register in read or not (atomic or in_order):
            found[instruction.index, register] = Report(instruction, register, counter)


def _after(instruction: Instruction, pending: Pending) -> Pending:
    """What is in flight behind an instruction."""
    if instruction.name == "s_swappc_b64":  # a function begins by waiting for everything
        return {}
    if instruction.name == "s_waitcnt":
        return _waited(instruction.operands[0], pending)
    counter = counter_of(instruction)
    _, written = uses(instruction)
    if not counter:
        return {r: p for r, p in pending.items() if r not in written} if written else pending
    out = {
        r: (own, min(age + (own == counter), _MANY), atomic)
        for r, (own, age, atomic) in pending.items()
    }
    if _returns(instruction):
        atomic = "atomic" in instruction.name
        out |= {register: (counter, 0, atomic) for register in written}
    if instruction.name.startswith("ds_write"):
        out[LDS_WRITE] = (counter, 0, False)
    return out


def _waited(text: str, pending: Pending) -> Pending:
    limits = {name: int(n) for name, n in re.findall(r"(vmcnt|lgkmcnt)\((\d+)\)", text)}
    if re.fullmatch(r"0x[0-9a-fA-F]+|\d+", text):
        word = int(text, 0)
        limits = {"vmcnt": word & 15 | word >> 10 & 48, "lgkmcnt": word >> 8 & 15}
    out = {}
    for register, (counter, age, atomic) in pending.items():
        limit = limits.get("lgkmcnt" if counter == "smem" else counter)
        arrived = limit is not None and (limit == 0 if counter == "smem" else age >= limit)
        if not arrived:
            out[register] = (counter, age, atomic)
    return out


def _merge(states: dict[int, Pending], target: int, pending: Pending) -> bool:
    """Join a state into a block's entry: the youngest of each. True when it changed."""
    old = states.get(target)
    if old is None:
        states[target] = dict(pending)
        return True
    new = dict(old)
    for register, state in pending.items():
        if register not in new or state[1] < new[register][1]:
            new[register] = state
    states[target] = new
    return new != old
