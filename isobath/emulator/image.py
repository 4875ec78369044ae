"""Where a code object's instructions and constants lie: what s_getpc_b64 gives, what a call jumps
to, and the tables that library functions read.

A linked hsaco has addresses of its own. Assembly text has none, so its instructions are taken to be
8 bytes apart and the constants that it names to follow them; `name@rel32` operands, which always
stand behind an s_getpc_b64, become numbers accordingly. All addresses count from the beginning of
memory.py's first segment, BASE.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from isobath.emulator.code import Instruction
from isobath.emulator.faults import UnsupportedInstruction

BASE = 0x1000_0000_0000
STEP = 8
_RELATIVE = re.compile(r"^(.+)@rel32@(lo|hi)([+-]\d+)?$")
_DATA = re.compile(r"^\s+\.(long|quad|short|byte|zero|p2align)\s+(\S+)")
_FORMS = {"byte": "B", "short": "H", "long": "I", "quad": "Q"}


@dataclass(frozen=True, slots=True)
class Image:
    """addresses: of each instruction; start: the address of `data`, the constants. In bytes."""

    addresses: tuple[int, ...]
    start: int = 0
    data: bytes = b""

    def behind(self, index: int) -> int:
        """The address of the instruction after the one of that index."""
        if index + 1 < len(self.addresses):
            return self.addresses[index + 1]
        return self.addresses[-1] + STEP


def needs_image(instructions: Sequence[Instruction]) -> bool:
    """Whether a program asks where it lies."""
    return any(instruction.name == "s_getpc_b64" for instruction in instructions)


def placed(
    text: str, instructions: tuple[Instruction, ...], labels: Mapping[str, int]
) -> tuple[tuple[Instruction, ...], Image]:
    """(instructions with numbers in place of addresses, where they lie) of assembly text."""
    start = -(-STEP * (len(instructions) + 1) // 64) * 64
    data, offsets = bytearray(), dict[str, int]()

    def target(symbol: str, user: Instruction) -> int:
        if re.search(rf"^\s+\.type\s+{re.escape(symbol)},@function", text, re.MULTILINE):
            return STEP * labels[symbol]
        if symbol not in offsets:
            data.extend(bytes(-len(data) % 16))
            offsets[symbol] = len(data)
            data.extend(constants(text, symbol, user))
        return start + offsets[symbol]

    found, last = list[Instruction](), -1
    for instruction in instructions:
        last = instruction.index if instruction.name == "s_getpc_b64" else last
        operands = list(instruction.operands)
        for k, operand in enumerate(operands):
            match = _RELATIVE.match(operand)
            if not match:
                continue
            # The literal is 4 bytes behind what s_getpc_b64 gave, then 12.
            half, place = match[2], instruction.index - last
            if (half, place) not in (("lo", 1), ("hi", 2)):
                raise UnsupportedInstruction(instruction.name, str(instruction), "an address")
            distance = target(match[1], instruction) + int(match[3] or 0)
            distance -= STEP * (last + 1) + (4 if half == "lo" else 12)
            operands[k] = f"0x{(distance if half == 'lo' else distance >> 32) & 0xFFFFFFFF:x}"
        found.append(replace(instruction, operands=tuple(operands)))
    image = Image(tuple(STEP * k for k in range(len(instructions))), start, bytes(data))
    return told(found, image), image


def told(instructions: Sequence[Instruction], image: Image) -> tuple[Instruction, ...]:
    """Instructions that give the next one's address hold it as a further operand."""
    return tuple(
        replace(one, operands=(*one.operands, f"0x{BASE + image.behind(one.index):x}"))
        if one.name in ("s_getpc_b64", "s_swappc_b64", "s_call_b64")
        else one
        for one in instructions
    )


def constants(text: str, symbol: str, user: Instruction) -> bytes:
    """The bytes behind a label of the data sections."""
    lines = text.splitlines()
    begin = next((k for k, line in enumerate(lines) if line.startswith(f"{symbol}:")), None)
    if begin is None:
        raise UnsupportedInstruction(user.name, str(user), f"{symbol} is not in this text")
    out = bytearray()
    for line in lines[begin + 1 :]:
        match = _DATA.match(line)
        if match and match[1] == "zero":
            out += bytes(int(match[2], 0))
        elif match and match[1] in _FORMS:
            form = _FORMS[match[1]]
            value = int(match[2], 0) & ((1 << 8 * struct.calcsize(form)) - 1)
            out += struct.pack("<" + form, value)
        elif match or line.strip().startswith(";"):
            continue
        else:
            break
    if not out:
        raise UnsupportedInstruction(user.name, str(user), f"{symbol} has no constants")
    return bytes(out)
