"""A linked code object (hsaco): ELF sections, the metadata note, the kernel descriptor.

The instructions come from llvm-objdump; everything else is read here. Only what a launch needs is
decoded: layouts are those of the AMDGPU back-end's published code object format, versions 4 and 5.
"""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isobath.emulator.code import Argument, Descriptor, Program, parse_instructions
from isobath.emulator.faults import LaunchError
from isobath.emulator.image import Image, needs_image, told

OBJDUMPS = ("llvm-objdump-22", "llvm-objdump-19", "llvm-objdump")
_SIZED = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
_COUNTED = {0xDC: 2, 0xDD: 4, 0xDE: 2, 0xDF: 4}
_UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
_SIGNED = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_SINGLE = {0xC0: None, 0xC2: False, 0xC3: True}


def unpack(data: bytes, at: int = 0) -> tuple[Any, int]:
    """(value, next position) of the MessagePack object at `at`."""
    tag = data[at]

    def number(width: int, signed: bool = False) -> int:
        return int.from_bytes(data[at + 1 : at + 1 + width], "big", signed=signed)

    if tag < 0x80 or tag >= 0x100 - 32:  # small integers, the negative ones at the top
        return (tag if tag < 0x80 else tag - 256), at + 1
    if tag in _SINGLE:
        return _SINGLE[tag], at + 1
    if tag in _UNSIGNED:
        return number(_UNSIGNED[tag]), at + 1 + _UNSIGNED[tag]
    if tag in _SIGNED:
        return number(_SIGNED[tag], signed=True), at + 1 + _SIGNED[tag]
    if 0xA0 <= tag < 0xC0 or tag in _SIZED:
        width = _SIZED.get(tag, 0)
        start, size = at + 1 + width, number(width) if width else tag & 31
        raw = data[start : start + size]
        return (raw if tag in (0xC4, 0xC5, 0xC6) else raw.decode()), start + size
    width = _COUNTED.get(tag, 0)
    count, position = (number(width) if width else tag & 15), at + 1 + width
    items = []
    is_map = tag < 0x90 or tag in (0xDE, 0xDF)
    for _ in range(count * (2 if is_map else 1)):
        value, position = unpack(data, position)
        items.append(value)
    if is_map:
        return dict(zip(items[::2], items[1::2], strict=True)), position
    return items, position


def parse_elf(raw: bytes) -> Program:
    """The Program of the only kernel of a code object."""
    note, find, constants = _sections(raw)
    kernel = note["amdhsa.kernels"][0]
    at = find(kernel[".symbol"])
    lds, scratch, kernarg = struct.unpack_from("<III", raw, at)
    rsrc3, rsrc1, rsrc2, properties, preload = struct.unpack_from("<IIIHH", raw, at + 44)
    bit = [properties >> k & 1 for k in range(7)]
    descriptor = Descriptor(
        kernarg_bytes=kernarg,
        scratch_bytes=scratch,
        lds_bytes=lds,
        user_sgprs=rsrc2 >> 1 & 31,
        preload_sgprs=preload & 127,
        sgprs_before_kernarg=4 * bit[0] + 2 * bit[1] + 2 * bit[2],
        sgprs_after_kernarg=2 * bit[4] + bit[6],
        workgroup_ids=(bool(rsrc2 >> 7 & 1), bool(rsrc2 >> 8 & 1), bool(rsrc2 >> 9 & 1)),
        vgprs=kernel[".vgpr_count"],
        accum_offset=((rsrc3 & 63) + 1) * 4,
        sgprs=kernel[".sgpr_count"],
        denormals=rsrc1 >> 16 & 15,
        vgpr_spills=kernel.get(".vgpr_spill_count", 0),
        sgpr_spills=kernel.get(".sgpr_spill_count", 0),
        max_threads=kernel.get(".max_flat_workgroup_size", 0),
        arguments=tuple(
            Argument(a[".offset"], a[".size"], a.get(".value_kind", ""))
            for a in kernel.get(".args", [])
        ),
    )
    text = disassemble(raw)
    instructions, labels = parse_instructions(text)
    image = None
    if needs_image(instructions):
        addresses = tuple(int(x, 16) for x in re.findall(r"// ([0-9A-F]{12}):", text))
        assert len(addresses) == len(instructions), "llvm-objdump gives every address"
        start, data = constants
        image = Image(addresses, start, data)
        instructions = told(instructions, image)
    return Program(kernel[".name"], instructions, labels, descriptor, image)


def _sections(raw: bytes) -> tuple[dict[str, Any], Callable[[str], int], tuple[int, bytes]]:
    """(metadata note, symbol name -> file offset, address and bytes of the constants)."""
    (table,) = struct.unpack_from("<Q", raw, 40)
    size, count, names = struct.unpack_from("<HHH", raw, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", raw, table + i * size) for i in range(count)]

    def text(offset: int) -> str:
        return raw[offset : raw.index(0, offset)].decode()

    by_name = {text(headers[names][4] + h[0]): h for h in headers}
    start = by_name[".note"][4]
    name_size, note_size, _ = struct.unpack_from("<III", raw, start)
    body = start + 12 + (name_size + 3 & ~3)
    note, _ = unpack(raw[body : body + note_size])

    def find(symbol: str) -> int:
        symbols, strings = by_name[".symtab"], by_name[".strtab"]
        for at in range(symbols[4], symbols[4] + symbols[5], 24):
            name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", raw, at)
            if text(strings[4] + name) == symbol:
                return int(headers[section][4] + value - headers[section][3])
        raise LaunchError(f"emulator: the code object has no symbol {symbol}")

    _, _, _, address, offset, length, *_ = by_name[".rodata"]
    return note, find, (address, raw[offset : offset + length])


def disassemble(raw: bytes) -> str:
    """llvm-objdump's text of a gfx942 code object, branch targets as labels."""
    tool = next((path for name in OBJDUMPS if (path := shutil.which(name))), None)
    if tool is None:
        raise LaunchError(
            "emulator: a linked hsaco needs llvm-objdump",
            found=f"none of {', '.join(OBJDUMPS)} on the path",
            do="install llvm-19 or llvm-22 (make setup-asm), or pass the `amdgcn` text instead",
        )
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / "kernel.hsaco"
        binary.write_bytes(raw)
        options = ["-d", "--mcpu=gfx942", "--symbolize-operands", "--no-show-raw-insn"]
        command = [tool, *options, "--no-leading-addr", str(binary)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LaunchError(
            "emulator: llvm-objdump refused the code object", found=done.stderr.strip()[:300]
        )
    return done.stdout
