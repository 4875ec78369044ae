"""Operands: what a register or literal of an instruction is as a Python expression.

A register becomes the name of a view bound by machine.py: `v5u`, `v5i`, `v5f` (arrays of one row a
wave, 64 lanes), `a5u` (accumulation registers), `s5u` (one column), `s4U` (an even pair). A literal
becomes the name of a constant array in the pool. Type letters are those of the opcode tables.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from isobath.emulator.bits import Array
from isobath.emulator.faults import UnsupportedInstruction

NAMED = {
    "vcc": ("s", 106, 2),
    "vcc_lo": ("s", 106, 1),
    "vcc_hi": ("s", 107, 1),
    "flat_scratch": ("s", 102, 2),
    "flat_scratch_lo": ("s", 102, 1),
    "flat_scratch_hi": ("s", 103, 1),
    "exec": ("s", 126, 2),
    "exec_lo": ("s", 126, 1),
    "exec_hi": ("s", 127, 1),
    "m0": ("s", 124, 1),
}
_REGISTER = re.compile(r"^([vsa])(?:(\d+)|\[(\d+)(?::(\d+))?\])$")
_FLOAT = re.compile(r"^-?\d+\.\d+(e[-+]?\d+)?$")
_WRAPPED = re.compile(r"^(neg|abs|sext)\((.*)\)$")
_INV_TWO_PI = {"h": 0x3118, "f": 0x3E22F983, "D": 0x3FC45F306DC9C882}
_VIEWS = {"u": np.uint32, "i": np.int32, "f": np.float32}
_WIDE_VIEWS = {"U": np.uint64, "I": np.int64, "D": np.float64}
WIDE = frozenset("UID")


@dataclass(frozen=True, slots=True)
class Operand:
    """file: "v", "a", "s", "literal" or "scc"; text: the literal. Modifiers of a source."""

    file: str
    index: int = 0
    count: int = 1
    text: str = ""
    negate: bool = False
    absolute: bool = False
    sign_extend: bool = False

    @property
    def name(self) -> str:
        return f"{self.file}{self.index}"

    @property
    def is_register(self) -> bool:
        return self.file in ("v", "a", "s")

    def at(self, offset: int) -> Operand:
        """The register `offset` places further."""
        return replace(self, index=self.index + offset, count=1)


@lru_cache(maxsize=1 << 14)
def parse_operand(text: str) -> Operand:
    """An Operand from its assembly text, source modifiers included."""
    body, negate, absolute, sign_extend = text, False, False, False
    if re.match(r"^-[vsa|\[]", body):
        negate, body = True, body[1:]
    while match := _WRAPPED.match(body):
        negate |= match[1] == "neg"
        absolute |= match[1] == "abs"
        sign_extend |= match[1] == "sext"
        body = match[2]
        if body.startswith("-"):
            negate, body = True, body[1:]
    if body.startswith("|"):
        absolute, body = True, body.strip("|")
    flags = {"negate": negate, "absolute": absolute, "sign_extend": sign_extend}
    if body in NAMED:
        file, index, count = NAMED[body]
        return Operand(file, index, count, body, **flags)
    match = _REGISTER.match(body)
    if match:
        low = int(match[2] or match[3])
        return Operand(match[1], low, int(match[4] or low) - low + 1, body, **flags)
    if body in ("scc", "src_scc"):
        return Operand("scc", text=body)
    if not (_FLOAT.match(body) or re.match(r"^-?(0x[0-9a-fA-F]+|\d+)$", body)):
        raise UnsupportedInstruction(body, text, "an operand of unknown kind")
    return Operand("literal", text=body, **flags)


def literal_bits(text: str, kind: str) -> int:
    """The bits a literal has in an operand of a type: 16, 32 or 64 of them."""
    is_float = bool(_FLOAT.match(text))
    if is_float and text.lstrip("-").startswith("0.15915494"):
        return _INV_TWO_PI["D" if kind in WIDE else "h" if kind in "ehn" else "f"]
    if is_float and kind in WIDE:
        return int(np.array(float(text), np.float64).view(np.uint64))
    if is_float and kind in "ehn":
        return int(np.array(float(text), np.float16).view(np.uint16))
    if is_float:
        return int(np.array(float(text), np.float32).view(np.uint32))
    value = int(text, 0)
    if kind == "D":  # a 32-bit literal is the high half; an inline integer is itself
        return value << 32 if text.startswith("0x") else value & (2**64 - 1)
    width = 64 if kind in WIDE else 16 if kind in "hne" else 32
    return value & (2**width - 1)


class ConstantPool:
    """Constant arrays by name; every launch of a program binds the same ones."""

    def __init__(self) -> None:
        self.values: dict[str, object] = {}

    def number(self, bits: int, kind: str) -> str:
        """Name of a [1, 1] array with these bits, viewed as the type."""
        wide = kind in WIDE
        name = f"k{bits:x}{kind}"
        if name not in self.values:
            base = np.full((1, 1), bits, np.uint64 if wide else np.uint32)
            self.values[name] = base.view((_WIDE_VIEWS if wide else _VIEWS)[kind])
        return name

    def add(self, prefix: str, value: object) -> str:
        """Name under which the launch will find `value`."""
        name = f"{prefix}{len(self.values)}"
        self.values[name] = value
        return name


def source(operand: Operand, kind: str, pool: ConstantPool, high: bool = False) -> str:
    """Expression of a source of a type. high: the upper half of a 16-bit operand is meant."""
    if operand.file == "scc":
        return "scc"
    if kind == "m":
        return _mask(operand, pool)
    if operand.file == "literal":
        text = _literal(operand, kind, pool)
    elif kind in WIDE:
        text = _pair(operand, kind)
    elif kind in "hne":
        shifted = f"({operand.name}u >> 16)" if high else f"{operand.name}u"
        text = narrow(shifted, kind)
    else:
        text = f"{operand.name}{kind}"
    return _with_signs(text, operand, kind)


def narrow(word: str, kind: str) -> str:
    """The low half of a uint32 expression as a 16-bit type."""
    if kind == "h":
        return f"({word} & 65535)"
    if kind == "n":
        return f"(({word} << 16).view(i32) >> 16)"
    return f"half({word})"


def _with_signs(text: str, operand: Operand, kind: str) -> str:
    if kind in "feD":
        text = f"absolute({text})" if operand.absolute else text
        return f"(-{text})" if operand.negate else text
    sign = {"U": 1 << 63, "I": 1 << 63, "h": 0x8000, "n": 0x8000}.get(kind, 1 << 31)
    if not (operand.absolute or operand.negate):
        return text
    if kind not in "uh":
        raise UnsupportedInstruction(operand.text, operand.text, "a sign modifier on an integer")
    text = f"({text} & {sign - 1})" if operand.absolute else text
    return f"({text} ^ {sign})" if operand.negate else text


def _literal(operand: Operand, kind: str, pool: ConstantPool) -> str:
    bits = literal_bits(operand.text, kind)
    if kind in WIDE or kind in _VIEWS:
        return pool.number(bits, kind)
    if kind == "h":
        return pool.number(bits, "u")
    if kind == "n":
        return pool.number((bits ^ 0x8000) - 0x8000 & 0xFFFFFFFF, "i")
    name = f"k{bits:x}e"
    pool.values.setdefault(name, np.full((1, 1), bits, np.uint16).view(np.float16))
    return name


def _pair(operand: Operand, kind: str) -> str:
    if operand.file == "s" and operand.index % 2 == 0:
        return f"{operand.name}{kind}"
    text = f"pair({operand.name}u, {operand.at(1).name}u)"
    view = {"U": "", "I": ".view(i64)", "D": ".view(f64)"}[kind]
    return text + view


def _mask(operand: Operand, pool: ConstantPool) -> str:
    if operand.is_register:
        return f"unpack({_pair(operand, 'U')})"
    return f"unpack({pool.number(literal_bits(operand.text, 'U'), 'U')})"


def unpack(masks: Array) -> Array:
    """Lane masks as booleans: uint64 [W, 1] -> bool [W, 64]."""
    octets = np.ascontiguousarray(masks).view(np.uint8)
    return np.unpackbits(octets, axis=1, bitorder="little").view(bool)


def pack(lanes: Array) -> Array:
    """Booleans as lane masks: bool [W, 64] -> uint64 [W, 1]."""
    return np.packbits(lanes, axis=1, bitorder="little").view(np.uint64)
