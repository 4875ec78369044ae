"""Vector and scalar instructions whose form no table line can say: two results, packed pairs,
conversions into half a register, lane access, MODE and EXEC, matrix products.

Each function takes an Emitter; SPECIAL maps mnemonics to them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from isobath.emulator.isa import TABLES
from isobath.emulator.lower import SATURATED, Emitter, substitute
from isobath.emulator.mfma import VARIANTS, source_lanes
from isobath.emulator.operands import Operand, literal_bits, narrow, source

_SAVEEXEC = {
    "and": "old & mask",
    "or": "old | mask",
    "xor": "old ^ mask",
    "andn1": "old & ~mask",
    "andn2": "~old & mask",
    "orn1": "old | ~mask",
    "orn2": "~old | mask",
    "nand": "~(old & mask)",
    "nor": "~(old | mask)",
    "xnor": "~(old ^ mask)",
}


def saveexec(e: Emitter) -> None:
    """s_<op>_saveexec_b64: the old EXEC to a pair, EXEC = EXEC op source, SCC = EXEC is not zero.

    andn2 is source & ~EXEC and orn2 source | ~EXEC; andn1 and orn1 negate the source.
    """
    formula = _SAVEEXEC[e.instruction.name.split("_")[1]]
    e.emit(f"mask = {e.source(1, 'U')}.copy()", "old = s126U.copy()", f"new = {formula}")
    e.set_scalar(e.register(0), "U", "old")
    e.set_scalar(Operand("s", 126, 2), "U", "new")
    e.emit(f"copyto(scc, new != 0{', where=MW' if e.waves_off else ''})")


def wrexec(e: Emitter) -> None:
    """s_andn1_wrexec_b64, s_andn2_wrexec_b64: as saveexec, but the new EXEC is also stored."""
    formula = _SAVEEXEC[e.instruction.name.split("_")[1]]
    e.emit(f"mask = {e.source(1, 'U')}.copy()", "old = s126U.copy()", f"new = {formula}")
    e.set_scalar(e.register(0), "U", "new")
    e.set_scalar(Operand("s", 126, 2), "U", "new")
    e.emit(f"copyto(scc, new != 0{', where=MW' if e.waves_off else ''})")


def jump(e: Emitter) -> None:
    """s_setpc_b64, s_swappc_b64: schedule.py goes to where machine.jump says; the latter keeps the
    address behind it, its last operand."""
    returns = e.instruction.name == "s_swappc_b64"
    where = ", where=MW" if e.waves_off else ""
    e.emit(f"copyto(machine.jump, {e.source(1 if returns else 0, 'U')}{where})")
    if returns:
        e.set_scalar(e.register(0), "U", e.source(2, "U"))


_MODE = re.compile(r"hwreg\(HW_REG_MODE(?:,\s*(\d+),\s*(\d+))?\)")


def set_mode(e: Emitter) -> None:
    """s_setreg_imm32_b32 of MODE bits."""
    text = e.instruction.operands[0]
    match = _MODE.match(text)
    value = text[match.end() :].strip(" ,") if match else ""
    if not match or not re.fullmatch(r"\d+|0x[0-9a-fA-F]+", value):
        raise e.unsupported("only immediate writes of MODE")
    offset, size = int(match[1] or 0), int(match[2] or 32)
    e.emit(f"machine.set_mode({offset}, {size}, {int(value, 0)}, {e.instruction.index})")


def hardware_register(e: Emitter) -> None:
    """s_getreg_b32 of HW_ID: every wave is on the first compute unit."""
    if not re.match(r"hwreg\((HW_REG_HW_ID|4)\b", e.instruction.operands[1]):
        raise e.unsupported("only HW_ID is known")
    e.set_scalar(e.register(0), "u", e.pool.number(0, "u"))


def clock(e: Emitter) -> None:
    """s_memtime, s_memrealtime: blocks executed so far, which is no time but never falls."""
    e.set_scalar(e.register(0), "U", "machine.clock()")


def first_lane(e: Emitter) -> None:
    e.set(0, "u", f"first_lane({e.source(1, 'u')}, {e.lanes})")


def read_lane(e: Emitter) -> None:
    e.set(0, "u", f"read_lane({e.source(1, 'u')}, {e.source(2, 'u')})")


def write_lane(e: Emitter) -> None:
    target = e.register(0).name
    e.emit(f"write_lane({target}u, {e.source(1, 'u')}, {e.source(2, 'u')}, {e.waves})")


def swap(e: Emitter) -> None:
    """v_swap_b32."""
    first, second = e.register(0), e.register(1)
    e.emit(f"was = {first.name}u.copy()")
    e.set_vector(first, "u", f"{second.name}u")
    e.set_vector(second, "u", "was")


def to_fp8_pair(e: Emitter) -> None:
    """v_cvt_pk_fp8_f32, v_cvt_pk_bf8_f32: two codes into one half, the other half stays."""
    code = "to_fp8" if "_fp8_" in e.instruction.name else "to_bf8"
    high = e.bits("op_sel", 0, 3)[2]
    old = f"{e.register(0).name}u"
    both = " | ".join(
        f"({code}({e.source(k + 1, 'f')}, machine.mode) << {8 * k})" for k in range(2)
    )
    kept = f"({old} & 0xFFFF)" if high else f"({old} & 0xFFFF0000)"
    e.set(0, "u", f"({kept} | (({both}) << {16 if high else 0}))")


def from_fp8_pair(e: Emitter) -> None:
    """v_cvt_pk_f32_fp8, v_cvt_pk_f32_bf8."""
    table = "FP8_VALUES" if e.instruction.name.endswith("fp8") else "BF8_VALUES"
    place = e.take("src0_sel", "WORD_0")
    shift = 16 if place == "WORD_1" or e.bits("op_sel", 0, 1)[0] else 0
    if place not in ("WORD_0", "WORD_1", "DWORD"):
        raise e.unsupported(f"src0_sel:{place}")
    e.emit(f"codes = {e.source(1, 'u')} >> {shift}")
    e.emit(f"first, second = {table}[codes & 255], {table}[(codes >> 8) & 255]")
    target = e.register(0)
    e.set_vector(target.at(0), "f", "first")
    e.set_vector(target.at(1), "f", "second")


def packed_f32(e: Emitter) -> None:
    """v_pk_{add,mul,fma}_f32 on register pairs."""
    formula = {"add": "add({0}, {1})", "mul": "multiply({0}, {1})", "fma": "fma({0}, {1}, {2})"}[
        e.instruction.name.split("_")[2]
    ]
    count = len(e.operands) - 1
    halves = []
    for selected, negated in (("op_sel", "neg_lo"), ("op_sel_hi", "neg_hi")):
        picks = e.bits(selected, int(selected == "op_sel_hi"), count)
        signs = e.bits(negated, 0, count)
        texts = [_pair_member(e, k + 1, picks[k], "f") for k in range(count)]
        texts = [f"(-{t})" if s else t for t, s in zip(texts, signs, strict=True)]
        halves.append(formula.format(*texts))
    target = e.register(0)
    e.emit(f"second = {halves[1]}")
    e.set_vector(target.at(0), "f", halves[0])
    e.set_vector(target.at(1), "f", "second")


def _pair_member(e: Emitter, place: int, high: int, kind: str) -> str:
    operand = e.operands[place]
    if operand.negate or operand.absolute:
        raise e.unsupported("a sign modifier on a packed operand")
    if operand.is_register:
        return f"{operand.at(high).name}{kind}"
    # Both halves of an inline constant are the constant, whatever op_sel_hi says: LLVM leaves
    # op_sel_hi out where only the high result is used, and loads unequal halves into SGPRs.
    return source(operand, kind, e.pool)


def packed_mov(e: Emitter) -> None:
    """v_pk_mov_b32: the low result from source 0, the high one from source 1."""
    low, high = e.bits("op_sel", 0, 2), e.bits("op_sel_hi", 1, 2)
    pick = high[1] if "op_sel_hi" in e.instruction.modifiers else low[1]
    e.emit(f"first = {_pair_member(e, 1, low[0], 'u')}.copy()")
    e.emit(f"second = {_pair_member(e, 2, pick, 'u')}.copy()")
    target = e.register(0)
    e.set_vector(target.at(0), "u", "first")
    e.set_vector(target.at(1), "u", "second")


def packed_16(e: Emitter) -> None:
    """v_pk_* of 16-bit halves: the unpacked opcode's table line on each half."""
    opcode = TABLES[e.instruction.name.replace("v_pk_", "v_")]
    clamped = bool(e.take("clamp"))
    expression = opcode.expression
    if clamped and opcode.destination == "e":
        expression = f"fmin(fmax({expression}, f16(0)), f16(1))"
    elif clamped:
        if opcode.name not in SATURATED:
            raise e.unsupported("clamp on this packed integer")
        expression = SATURATED[opcode.name]
    count, results = len(opcode.sources), []
    for selected, negated in (("op_sel", "neg_lo"), ("op_sel_hi", "neg_hi")):
        picks = e.bits(selected, int(selected == "op_sel_hi"), count)
        signs = e.bits(negated, 0, count)
        texts = {}
        for k, kind in enumerate(opcode.sources):
            text = _half_member(e, k + 1, picks[k], kind)
            if signs[k] and kind != "e":
                raise e.unsupported("a sign modifier on a packed integer")
            texts["abc"[k]] = f"(-{text})" if signs[k] else text
        results.append(substitute(expression, texts))
    e.set(0, "u", f"pack_halves({results[0]}, {results[1]})")


def _half_member(e: Emitter, place: int, high: int, kind: str) -> str:
    operand = e.operands[place]
    if operand.is_register:
        return narrow(f"({operand.name}u >> 16)" if high else f"{operand.name}u", kind)
    if "." in operand.text and kind == "e":  # float16 below nothing; to integers it is a float32
        return source(Operand("literal", text="0"), kind, e.pool) if high else e.source(place, kind)
    word = literal_bits(operand.text, "u") >> (16 if high else 0) & 0xFFFF
    return narrow(e.pool.number(word, "u"), kind)


def mixed_fma(e: Emitter) -> None:
    """v_fma_mix_f32, v_fma_mixlo_f16, v_fma_mixhi_f16: each source float32 or half a register."""
    name = e.instruction.name
    picks, halves = e.bits("op_sel", 0, 3), e.bits("op_sel_hi", 0, 3)
    texts = []
    for k, operand in enumerate(e.operands[1:4]):
        if not halves[k]:
            texts.append(source(operand, "f", e.pool))
            continue
        text = f"{source(operand, 'e', e.pool, bool(picks[k]))}.astype(f32)"
        texts.append(text)
    clamp = e.take("clamp")
    value = f"fma64({', '.join(texts)})"
    value = f"fmin(fmax({value}, 0), 1)" if clamp else value
    if name == "v_fma_mix_f32":
        e.set(0, "f", f"rounded({value})")
        return
    old, bits = f"{e.register(0).name}u", f"bits16({value}.astype(f16))"
    low = f"(({old} & 0xFFFF0000) | {bits})"
    e.set(0, "u", low if "mixlo" in name else f"(({old} & 0xFFFF) | ({bits} << 16))")


def division_scale(e: Emitter) -> None:
    """v_div_scale_f32, v_div_scale_f64: the scaled value, and in VCC whether to scale back."""
    kind = "D" if e.instruction.name.endswith("f64") else "f"
    sources = ", ".join(e.source(k, kind) for k in (2, 3, 4))
    e.emit(f"value, flag = divide_scale({sources})")
    e.set(0, kind, "value")
    e.set_scalar(e.register(1), "m", "flag")


def wide_mad(e: Emitter) -> None:
    """v_mad_u64_u32, v_mad_i64_i32: 64-bit product and sum, the carry of the unsigned one."""
    if e.instruction.name == "v_mad_i64_i32":
        e.emit(f"product = {e.source(2, 'i')}.astype(i64) * {e.source(3, 'i')}.astype(i64)")
        e.emit(f"total = product + {e.source(4, 'I')}")
        e.emit("carry = ((product ^ total) & (total - product ^ total)) < 0")
    else:
        e.emit(f"product = widen({e.source(2, 'u')}) * widen({e.source(3, 'u')})")
        e.emit(f"total = product + {e.source(4, 'U')}", "carry = total < product")
    e.set(0, "U", "total")
    e.set_scalar(e.register(1), "m", "carry")


def carry_add(e: Emitter) -> None:
    """v_{add,sub,subrev}_co_u32 and v_{addc,subb,subbrev}_co_u32."""
    name = e.instruction.name
    a, b = e.source(2, "u"), e.source(3, "u")
    a, b = (b, a) if "rev" in name else (a, b)
    sign = "+" if "add" in name else "-"
    carry = f" {sign} {e.source(4, 'm')}" if len(e.operands) > 4 else ""
    e.emit(f"total = {a}.astype(i64) {sign} {b}.astype(i64){carry}")
    if e.take("clamp"):
        raise e.unsupported("clamp with a carry")
    if e.instruction.encoding:
        raise e.unsupported("a carry with SDWA or DPP")
    e.emit("carry = (total < 0) | (total > 0xFFFFFFFF)")
    e.set(0, "u", "total.astype(u32)")
    e.set_scalar(e.register(1), "m", "carry")


def matrix(e: Emitter) -> None:
    """v_mfma_*: EXEC does not matter."""
    target, a, b = (e.register(k) for k in range(3))
    c = e.operands[3]
    cbsz, abid = (int(e.take(modifier, "0")) for modifier in ("cbsz", "abid"))
    if int(e.take("blgp", "0")):
        raise e.unsupported("blgp of a matrix product")
    if source_lanes(e.instruction.name, cbsz, abid) is None:
        raise e.unsupported("cbsz and abid that this product has no blocks for")
    places = [(o.file, o.index, o.count) for o in (target, a, b)]
    if c.is_register:
        addend = f"({c.file!r}, {c.index}, {c.count})"
    else:
        addend = repr(literal_bits(c.text, "D" if "f64" in e.instruction.name[:9] else "f"))
    arguments = ", ".join(repr(place) for place in places)
    spread = f", ({cbsz}, {abid})" if cbsz else ""
    e.emit(f"machine.matrix('{e.instruction.name}', {arguments}, {addend}, {e.waves}{spread})")


def _unpacked_16() -> list[str]:
    """Vector opcodes from 16-bit halves to a half."""
    halves = set("hne")
    vector = [(n, o) for n, o in TABLES.items() if n.startswith("v_") and o.destination in halves]
    return [n for n, o in vector if set(o.sources) <= halves]


SPECIAL: dict[str, Callable[[Emitter], None]] = {
    "s_setreg_imm32_b32": set_mode,
    "s_getreg_b32": hardware_register,
    "s_memtime": clock,
    "s_memrealtime": clock,
    "s_setpc_b64": jump,
    "s_swappc_b64": jump,
    "v_readfirstlane_b32": first_lane,
    "v_readlane_b32": read_lane,
    "v_writelane_b32": write_lane,
    "v_swap_b32": swap,
    "v_cvt_pk_fp8_f32": to_fp8_pair,
    "v_cvt_pk_bf8_f32": to_fp8_pair,
    "v_cvt_pk_f32_fp8": from_fp8_pair,
    "v_cvt_pk_f32_bf8": from_fp8_pair,
    "v_pk_add_f32": packed_f32,
    "v_pk_mul_f32": packed_f32,
    "v_pk_fma_f32": packed_f32,
    "v_pk_mov_b32": packed_mov,
    "v_fma_mix_f32": mixed_fma,
    "v_fma_mixlo_f16": mixed_fma,
    "v_fma_mixhi_f16": mixed_fma,
    "v_div_scale_f32": division_scale,
    "v_div_scale_f64": division_scale,
    "v_mad_u64_u32": wide_mad,
    "v_mad_i64_i32": wide_mad,
    **{f"v_{op}_co_u32": carry_add for op in ("add", "sub", "subrev", "addc", "subb", "subbrev")},
    **{f"s_{op}_saveexec_b64": saveexec for op in _SAVEEXEC},
    **{f"s_{op}_wrexec_b64": wrexec for op in ("andn1", "andn2")},
    **{name.replace("v_", "v_pk_", 1): packed_16 for name in _unpacked_16()},
    **dict.fromkeys(VARIANTS, matrix),
}
