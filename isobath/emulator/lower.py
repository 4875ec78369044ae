"""One instruction becomes a few lines of Python over NumPy arrays: operands, modifiers, results.

An Emitter holds what is known about one instruction while its lines are written. Every modifier
must be taken by someone: what is left raises UnsupportedInstruction, so that nothing is ignored by
accident. The lines run inside a function of blocks.py whose arguments are E (bool [W, 64], the
lanes that are on), K (the same as uint32 masks) and MW (bool [W, 1], the waves that execute).
"""

from __future__ import annotations

import re
from functools import lru_cache

from isobath.emulator.code import Instruction
from isobath.emulator.faults import UnsupportedInstruction
from isobath.emulator.isa import Opcode
from isobath.emulator.lanes import dpp_map
from isobath.emulator.opcodes_vector import KEEPS_HALF
from isobath.emulator.operands import WIDE, ConstantPool, Operand, narrow, parse_operand, source

SATURATED = {
    "v_add_u32": "clip(a.astype(i64) + b.astype(i64), 0, 0xFFFFFFFF).astype(u32)",
    "v_sub_u32": "where(b > a, u32(0), a - b)",
    "v_subrev_u32": "where(a > b, u32(0), b - a)",
    "v_add_i32": "clip(a.astype(i64) + b.astype(i64), -0x80000000, 0x7FFFFFFF).astype(i32)",
    "v_sub_i32": "clip(a.astype(i64) - b.astype(i64), -0x80000000, 0x7FFFFFFF).astype(i32)",
    "v_add_u16": "minimum(a + b, 0xFFFF)",
    "v_sub_u16": "where(b > a, u32(0), a - b)",
    "v_add_i16": "clip(a + b, -0x8000, 0x7FFF)",
    "v_sub_i16": "clip(a - b, -0x8000, 0x7FFF)",
    "v_mad_u32_u24": "clip((a & 0xFFFFFF).astype(i64) * (b & 0xFFFFFF).astype(i64) "
    "+ c.astype(i64), 0, 0xFFFFFFFF).astype(u32)",
}
"""What `clamp` means on integers, per opcode."""

_FLOATS = {"f": "f32", "e": "f16", "D": "f64"}
_VERBATIM = ("s_setreg", "s_getreg", "s_waitcnt")
_LETTERS = re.compile(r"\b([abcd])\b")
_MASKED_SHIFT = re.compile(r"^([abc]) & (31|63|15)$|(?<!\w)\(([abc]) & (31|63|15)\)")


class Emitter:
    """Lines for one instruction. lanes_off, waves_off: whether some may be masked out."""

    def __init__(
        self, instruction: Instruction, pool: ConstantPool, *, lanes_off: bool, waves_off: bool
    ) -> None:
        self.instruction = instruction
        self.pool = pool
        self.lanes_off, self.waves_off = lanes_off, waves_off
        self.modifiers = dict(instruction.modifiers)
        verbatim = instruction.name.startswith(_VERBATIM)
        self.operands = [
            Operand("off", text=text) if verbatim or text == "off" else parse_operand(text)
            for text in instruction.operands
        ]
        self.lines: list[str] = []

    @property
    def lanes(self) -> str:
        """Expression of the active lanes, or None when all are."""
        return "E" if self.lanes_off else "None"

    @property
    def waves(self) -> str:
        return "MW" if self.waves_off else "None"

    def unsupported(self, why: str) -> UnsupportedInstruction:
        return UnsupportedInstruction(self.instruction.name, str(self.instruction), why)

    def take(self, name: str, default: str = "") -> str:
        """A modifier's value; it counts as understood."""
        return self.modifiers.pop(name, default)

    def bits(self, name: str, default: int, count: int) -> list[int]:
        """A modifier such as op_sel:[0,1] as a list, filled up to `count` with the default."""
        text = self.take(name)
        values = [int(x) for x in text.strip("[]").split(",")] if text else []
        return values + [default] * (count - len(values))

    def finish(self) -> list[str]:
        """The lines, once no modifier is left over."""
        if self.modifiers:
            raise self.unsupported("modifier " + ", ".join(sorted(self.modifiers)))
        return self.lines

    def emit(self, *lines: str) -> None:
        self.lines.extend(lines)

    def source(self, place: int, kind: str, high: bool = False) -> str:
        return source(self.operands[place], kind, self.pool, high)

    def register(self, place: int) -> Operand:
        operand = self.operands[place]
        if not operand.is_register:
            raise self.unsupported(f"operand {place} is no register")
        return operand

    def set_scalar(self, target: Operand, kind: str, value: str) -> None:
        """Write an SGPR, an even SGPR pair, or a lane mask."""
        where = ", where=MW" if self.waves_off else ""
        if kind == "m":
            value = f"pack({value} & E)" if self.lanes_off else f"pack(all_lanes({value}))"
            kind = "U"
        if kind in WIDE and target.index % 2:
            raise self.unsupported("a 64-bit result in an odd SGPR")
        name = f"{target.name}{kind if kind in 'uifUID' else 'u'}"
        self.emit(f"copyto({name}, {value}, casting='unsafe'{where})")

    def set_vector(self, target: Operand, kind: str, value: str, written: str = "") -> None:
        """Write a VGPR or AGPR (a pair for 64-bit kinds). written: a further bool lane mask."""
        if kind in WIDE:
            self.emit(f"low, high = split64({value})")
            self.set_vector(target.at(0), "u", "low", written)
            self.set_vector(target.at(1), "u", "high", written)
            return
        if written:
            mask = f"{written} & E" if self.lanes_off else f"{written}"
            self.emit(f"blend_{kind}({target.name}u, {value}, word_mask({mask}))")
        elif self.lanes_off:
            self.emit(f"blend_{kind}({target.name}u, {value}, K)")
        else:
            self.emit(f"copyto({target.name}{kind}, {value}, casting='unsafe')")

    def set(self, place: int, kind: str, value: str) -> None:
        """Write the destination at an operand's place, whatever file it is of."""
        target = self.register(place)
        if target.file == "s":
            self.set_scalar(target, kind, value)
        else:
            self.set_vector(target, kind, value)


def fold_constant_shift(expression: str, operands: dict[str, Operand]) -> str:
    """`(a & 31)` is `a` where a is a literal below 32: one NumPy call less."""

    def fold(match: re.Match[str]) -> str:
        letter, limit = match[1] or match[3], int(match[2] or match[4])
        operand = operands.get(letter)
        is_number = operand is not None and operand.file == "literal" and operand.text.isdigit()
        return letter if operand and is_number and int(operand.text) <= limit else match[0]

    return _MASKED_SHIFT.sub(fold, expression) if " & " in expression else expression


def scalar_alu(e: Emitter, opcode: Opcode) -> None:
    """A table-driven SALU instruction."""
    writes = opcode.destination != "-"
    operands = e.operands[1:] if writes else e.operands
    kinds = opcode.sources.replace("d", "")
    if opcode.name.startswith(("s_cmpk_", "s_movk", "s_addk", "s_mulk", "s_cmovk")):
        operands = [*operands[:-1], _short_immediate(operands[-1], signed=kinds[-1] == "i")]
    names = dict(zip("abc", operands, strict=False))
    texts = {k: source(o, t, e.pool) for (k, o), t in zip(names.items(), kinds, strict=True)}
    where = ", where=MW" if e.waves_off else ""
    if not writes:
        e.emit(f"copyto(scc, {substitute(opcode.carry, texts)}{where})")
        return
    target = e.register(0)
    texts["d"] = source(target, opcode.destination, e.pool)
    expression = fold_constant_shift(opcode.expression, names)
    if not opcode.carry:
        e.set_scalar(target, opcode.destination, substitute(expression, texts))
        return
    e.emit(f"r = {substitute(expression, texts)}")
    e.emit(f"carry = {substitute(opcode.carry, texts)}")
    e.set_scalar(target, opcode.destination, "r")
    e.emit(f"copyto(scc, carry{where})")


def _short_immediate(operand: Operand, *, signed: bool) -> Operand:
    value = int(operand.text, 0) & 0xFFFF
    if signed and value & 0x8000:
        value -= 0x10000
    return Operand("literal", text=str(value))


def substitute(expression: str, texts: dict[str, str]) -> str:
    """The expression with operands in place of their letters."""
    parts = list(_pieces(expression))
    parts[1::2] = [texts.get(letter, letter) for letter in parts[1::2]]
    return "".join(parts)


@lru_cache(maxsize=1 << 12)
def _pieces(expression: str) -> tuple[str, ...]:
    """Text and letters in turn."""
    return tuple(_LETTERS.split(expression))


def vector_alu(e: Emitter, opcode: Opcode) -> None:
    """A table-driven VALU instruction in any encoding."""
    texts, written = _sources(e, opcode)
    target, kind = e.register(0), opcode.destination
    if "d" in opcode.sources:
        old = kind if kind not in "hne" else "u"
        texts["d"] = source(target, old, e.pool)
    expression = opcode.expression
    if e.take("clamp"):
        expression = _clamped(e, opcode)
    elif not e.modifiers and not written and _in_place(e, opcode, texts):
        return
    if e.instruction.encoding != "sdwa":
        names = dict(zip("abc", e.operands[1:], strict=False))
        expression = fold_constant_shift(expression, names)
    value = substitute(expression, texts)
    for key, factor in (("mul", e.take("mul")), ("div", e.take("div"))):
        if factor and kind not in "feD":
            raise e.unsupported("an output modifier on an integer")
        if factor:
            value = f"(({value}) * {_FLOATS[kind]}({factor if key == 'mul' else 0.5}))"
    _store_result(e, opcode, target, value, written)


def _clamped(e: Emitter, opcode: Opcode) -> str:
    if opcode.destination in "feD":
        kind = _FLOATS[opcode.destination]
        return f"fmin(fmax({opcode.expression}, {kind}(0)), {kind}(1))"
    if opcode.name not in SATURATED:
        raise e.unsupported("clamp on this integer opcode")
    return SATURATED[opcode.name]


def _in_place(e: Emitter, opcode: Opcode, texts: dict[str, str]) -> bool:
    """Write the outermost ufunc straight into the destination, when nothing is masked."""
    target = e.register(0)
    if not opcode.ufunc or e.lanes_off or target.file == "s" or e.instruction.encoding == "sdwa":
        return False
    names = dict(zip("abc", e.operands[1:], strict=False))
    parts = [substitute(fold_constant_shift(part, names), texts) for part in opcode.parts]
    e.emit(f"{opcode.ufunc}({', '.join(parts)}, out={target.name}{opcode.destination})")
    return True


def _sources(e: Emitter, opcode: Opcode) -> tuple[dict[str, str], str]:
    """(letter -> expression, extra lane mask of a DPP write)."""
    kinds = opcode.sources.replace("d", "")
    operands = e.operands[1:]
    if kinds.endswith("m") and len(operands) == len(kinds) - 1:
        operands = [*operands, parse_operand("vcc")]
    if len(operands) < len(kinds):
        raise e.unsupported(f"{len(operands)} sources, expected {len(kinds)}")
    halves = [0] * 4
    if "op_sel" in e.modifiers and set(opcode.sources + opcode.destination) & set("hne"):
        halves = e.bits("op_sel", 0, 4)
        e.modifiers["op_sel"] = str(halves[len(kinds)])
    written = ""
    texts: dict[str, str] = {}
    for place, (operand, kind) in enumerate(zip(operands, kinds, strict=False)):
        letter = "abc"[place]
        if e.instruction.encoding == "dpp" and place == 0:
            texts[letter], written = _dpp_source(e, operand, kind)
        elif e.instruction.encoding == "sdwa" and place < 2 and kind != "m":
            texts[letter] = _sdwa_source(e, operand, kind, e.take(f"src{place}_sel", "DWORD"))
        else:
            texts[letter] = source(operand, kind, e.pool, bool(halves[place]))
    return texts, written


def _dpp_source(e: Emitter, operand: Operand, kind: str) -> tuple[str, str]:
    if kind in WIDE or kind == "m":
        raise e.unsupported("DPP of a 64-bit operand")
    lanes = dpp_map(e.modifiers, str(e.instruction))
    name = e.pool.add("dpp_map", lanes)
    e.emit(f"moved, written = dpp({operand.name}u, {name}, {e.lanes})")
    views = {"u": "moved", "i": "moved.view(i32)", "f": "moved.view(f32)"}
    text = views.get(kind) or narrow("moved", kind)
    if kind in "fe":
        text = f"absolute({text})" if operand.absolute else text
        text = f"(-{text})" if operand.negate else text
    elif operand.absolute or operand.negate:
        raise e.unsupported("a sign modifier on a moved integer")
    return text, "" if lanes.writes_all and not e.lanes_off else "written"


def _sdwa_source(e: Emitter, operand: Operand, kind: str, place: str) -> str:
    if place == "DWORD" and not operand.sign_extend:
        return source(operand, kind, e.pool)
    if not operand.is_register or kind in WIDE:
        raise e.unsupported("SDWA of this operand")
    text = f"sub_dword({operand.name}u, '{place}', {operand.sign_extend})"
    if kind in "hne":
        text = narrow(text, kind)
    elif kind in "if":
        text = f"{text}.view({'i32' if kind == 'i' else 'f32'})"
    if kind in "fe":
        text = f"absolute({text})" if operand.absolute else text
        return f"(-{text})" if operand.negate else text
    if operand.absolute or operand.negate:
        raise e.unsupported("a sign modifier on a selected integer")
    return text


def _store_result(e: Emitter, opcode: Opcode, target: Operand, value: str, written: str) -> None:
    kind = opcode.destination
    if kind == "m":
        if written:
            raise e.unsupported("a comparison with DPP")
        e.set_scalar(target, "m", f"({value})")
        return
    half_place = e.take("op_sel") if kind in "hne" else ""
    if kind in "hne":
        value, kind = f"bits16({value})", "u"
        if half_place == "1":
            value = f"(({target.name}u & 0xFFFF) | ({value} << 16))"
        elif opcode.name in KEEPS_HALF:
            value = f"(({target.name}u & 0xFFFF0000) | {value})"
    elif e.modifiers.get("op_sel") == "0":
        e.take("op_sel")
    if e.instruction.encoding == "sdwa":
        place, unused = e.take("dst_sel", "DWORD"), e.take("dst_unused", "UNUSED_PAD")
        if place != "DWORD":
            view = {"u": "", "i": ".view(u32)", "f": ".view(u32)"}[kind]
            value = f"into_sub_dword({target.name}u, ({value}){view}, '{place}', '{unused}')"
            kind = "u"
    if target.file == "s":
        e.set_scalar(target, kind, value)
    else:
        e.set_vector(target, kind, value, written)
