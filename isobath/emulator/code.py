"""Machine code as data: one Instruction a line, their labels, and the kernel's descriptor.

Reads the assembly text that Triton keeps as `amdgcn`, and what llvm-objdump prints for a linked
code object; both give the same instructions. hsaco.py supplies the descriptor of the latter. The
text is trusted to be gfx942; nothing here knows what an instruction does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from isobath.emulator.faults import LaunchError, UnsupportedInstruction

if TYPE_CHECKING:
    from isobath.emulator.image import Image

_FLAGS_NAMES = "offen idxen sc0 sc1 nt glc slc clamp gds lds tfe addr64 row_mirror row_half_mirror"
FLAGS = frozenset(_FLAGS_NAMES.split())
_VERBATIM = ("s_waitcnt", "s_setreg_imm32_b32", "s_setreg_b32", "s_getreg_b32")
_STATEMENT = re.compile(r"^\s*(\S+)\s*(.*)$")
_SECTION = re.compile(r"^\s*\.(text|section|amdgpu_metadata|amdhsa_kernel)\b\s*(\S*)")
_LABEL = re.compile(r"^(?:[0-9a-f]+ )?<?([.\w$]+)>?:")
_DIRECTIVE = re.compile(r"^\s*\.(amdhsa_\w+)\s+(\S+)")
_MODIFIER = re.compile(r"^([a-z]\w*):(.*)$")
_ENCODING = re.compile(r"_(e32|e64|sdwa|dpp|e64_dpp)$")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. name: mnemonic without encoding; encoding: "", "sdwa" or "dpp"."""

    index: int
    line: int
    text: str
    name: str
    encoding: str
    operands: tuple[str, ...]
    modifiers: dict[str, str]

    def __str__(self) -> str:
        return f"#{self.index} (line {self.line}) {self.text}"


@dataclass(frozen=True, slots=True)
class Argument:
    """One slot of the kernarg segment: offset and size in bytes; kind: "hidden_..." for what the
    runtime fills in, such as the grid's size."""

    offset: int
    size: int
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What the loader reads before the first instruction. Sizes in bytes, counts in registers."""

    kernarg_bytes: int = 0
    scratch_bytes: int = 0
    lds_bytes: int = 0
    user_sgprs: int = 0
    preload_sgprs: int = 0
    sgprs_before_kernarg: int = 0
    sgprs_after_kernarg: int = 0
    workgroup_ids: tuple[bool, bool, bool] = (True, False, False)
    vgprs: int = 0
    accum_offset: int = 0
    sgprs: int = 0
    denormals: int = 0xF
    vgpr_spills: int = 0
    sgpr_spills: int = 0
    max_threads: int = 0
    arguments: tuple[Argument, ...] = ()

    @property
    def calls_host(self) -> bool:
        """Whether the code may ask the host for something."""
        return any(slot.kind == "hidden_hostcall_buffer" for slot in self.arguments)


@dataclass(frozen=True, slots=True)
class Program:
    """A kernel: its instructions (functions that it calls may come first), the index each label
    stands for, its descriptor; where all lies, if it asks."""

    name: str
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]
    descriptor: Descriptor
    image: Image | None = None
    cache: dict[object, object] = field(default_factory=dict, compare=False, repr=False)

    @property
    def start(self) -> int:
        """Index of the kernel's first instruction."""
        return self.labels.get(self.name, 0)

    @property
    def functions(self) -> list[int]:
        """Indices at which functions begin: labels with names, not those of branches."""
        return [at for name, at in self.labels.items() if not re.match(r"\.?L", name)]

    @property
    def preload_entry(self) -> int:
        """Index at which firmware that preloads kernel arguments starts (256 bytes in)."""
        if not self.descriptor.preload_sgprs:
            return self.start
        for instruction in self.instructions[self.start :]:
            if instruction.name == "s_branch":
                return self.labels[instruction.operands[0]]
        return self.start


def split(text: str) -> list[str]:
    """Operands and modifiers of an instruction; commas and blanks inside brackets do not split."""
    out: list[str] = []
    current, depth = "", 0
    for char in text:
        depth += (char in "[(") - (char in "])")
        if depth == 0 and char in ", \t":
            if current:
                out.append(current)
            current = ""
        elif char not in " \t" or depth == 0:
            current += char
    return [*out, current] if current else out


def parse_instruction(index: int, line: int, name: str, rest: str) -> Instruction:
    """One instruction from its mnemonic and the text behind it."""
    encoding = _ENCODING.search(name)
    base = name[: encoding.start()] if encoding else name
    kind = encoding[1] if encoding else ""
    operands: list[str] = []
    modifiers: dict[str, str] = {}
    if base in _VERBATIM:
        operands = [rest.strip()]
    else:
        for token in split(rest):
            match = _MODIFIER.match(token)
            if token in FLAGS:
                modifiers[token] = "1"
            elif match and not token.startswith("0x"):
                modifiers[match[1]] = match[2]
            else:
                operands.append(token)
    kind = {"e32": "", "e64": "", "e64_dpp": "dpp"}.get(kind, kind)
    text = f"{name} {rest.strip()}".strip()
    return Instruction(index, line, text, base, kind, tuple(operands), modifiers)


def parse_instructions(text: str) -> tuple[tuple[Instruction, ...], dict[str, int]]:
    """(instructions, label -> index) of assembly or disassembly text.

    Whatever stands in code and is neither a label nor a directive of the compiler is an
    instruction, so that nothing a user wrote into inline assembly is passed over.
    """
    found: list[Instruction] = []
    labels: dict[str, int] = {}
    for number, statement, label in _statements(text):
        if label:
            labels[label] = len(found)
        elif match := _STATEMENT.match(statement):
            found.append(parse_instruction(len(found), number, match[1], match[2]))
    for instruction in found:
        branch = instruction.name.startswith(("s_branch", "s_cbranch"))
        if branch and not labels.keys() & set(instruction.operands):
            raise UnsupportedInstruction(instruction.name, str(instruction), "no such label")
    return tuple(found), labels


def _statements(text: str) -> Iterator[tuple[int, str, str]]:
    """(line, statement, "") or (line, "", label) of every line that is code."""
    assembly = ".amdhsa_kernel" in text
    code, inline = not assembly, False
    for number, raw in enumerate(text.splitlines(), 1):
        inline = (inline or "#ASMSTART" in raw) and "#ASMEND" not in raw
        line = re.split(r";|//", raw, maxsplit=1)[0].rstrip()
        section = _SECTION.match(line) if assembly else None
        if section:
            code = section[1] == "text" or section[2].startswith(".text")
            continue
        label = _LABEL.match(line)
        if label and (code or not assembly):
            yield number, "", label[1]
            line = " " + line[label.end() :]
        directive = line.lstrip().startswith(".") and not inline
        if code and line.strip() and not directive and (assembly or line[0].isspace()):
            yield number, line, ""


@lru_cache(maxsize=256)
def parse_text(text: str) -> Program:
    """A Program from Triton's `amdgcn` assembly, descriptor and argument layout included."""
    from isobath.emulator.image import needs_image, placed

    directives: dict[str, str] = {}
    for line in text.splitlines():
        match = _DIRECTIVE.match(line)
        if match:
            directives.setdefault(match[1], match[2])
    if not directives:
        raise LaunchError(
            "emulator: this text has no .amdhsa_kernel descriptor",
            found=f"{len(text.splitlines())} lines",
            do="pass the whole `amdgcn` text of a compiled kernel, or its hsaco",
        )
    instructions, labels = parse_instructions(text)
    slots = re.findall(
        r"\.offset:\s+(\d+)\s*\n\s+\.size:\s+(\d+)(?:\s*\n\s+\.value_kind:\s+(\w+))?", text
    )
    name = re.search(r"\.amdhsa_kernel\s+(\S+)", text)
    descriptor = _text_descriptor(
        directives, text, [Argument(int(o), int(s), k) for o, s, k in slots]
    )
    image = None
    if needs_image(instructions):
        instructions, image = placed(text, instructions, labels)
    return Program(name[1] if name else "kernel", instructions, labels, descriptor, image)


def _text_descriptor(found: dict[str, str], text: str, slots: list[Argument]) -> Descriptor:
    def number(key: str, default: int = 0) -> int:
        text = found.get(f"amdhsa_{key}", "")
        return int(text, 0) if re.fullmatch(r"\d+|0x[0-9a-f]+", text) else default

    def note(key: str) -> int:
        match = re.search(rf"\.{key}:\s+(\d+)", text)
        return int(match[1]) if match else 0

    before = 4 * number("user_sgpr_private_segment_buffer")
    before += 2 * number("user_sgpr_dispatch_ptr") + 2 * number("user_sgpr_queue_ptr")
    after = 2 * number("user_sgpr_dispatch_id") + number("user_sgpr_private_segment_size")
    ids = [number(f"system_sgpr_workgroup_id_{axis}") == 1 for axis in "xyz"]
    return Descriptor(
        kernarg_bytes=number("kernarg_size"),
        scratch_bytes=number("private_segment_fixed_size") or note("private_segment_fixed_size"),
        lds_bytes=number("group_segment_fixed_size"),
        user_sgprs=number("user_sgpr_count"),
        preload_sgprs=number("user_sgpr_kernarg_preload_length"),
        sgprs_before_kernarg=before,
        sgprs_after_kernarg=after,
        workgroup_ids=(ids[0], ids[1], ids[2]),
        vgprs=note("vgpr_count") or number("next_free_vgpr"),
        accum_offset=number("accum_offset"),
        sgprs=note("sgpr_count") or number("next_free_sgpr"),
        denormals=number("float_denorm_mode_32") | number("float_denorm_mode_16_64", 3) << 2,
        vgpr_spills=note("vgpr_spill_count"),
        sgpr_spills=note("sgpr_spill_count"),
        max_threads=note("max_flat_workgroup_size"),
        arguments=tuple(slots),
    )


def load(path: str | Path) -> Program:
    """A Program from a file: a linked hsaco (ELF), or assembly text."""
    from isobath.emulator.hsaco import parse_elf

    raw = Path(path).read_bytes()
    return parse_elf(raw) if raw[:4] == b"\x7fELF" else parse_text(raw.decode())
