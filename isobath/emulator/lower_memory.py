"""Memory instructions: which method of the machine is called with which addresses.

Widths are bytes a lane. A form names how a sub-dword value enters its register ("u8", "i16",
"u16_d16_hi", ...); "" means whole words. Address expressions are int64.
"""

from __future__ import annotations

import re

from isobath.emulator.lower import Emitter
from isobath.emulator.operands import Operand, source

_DWORDS = {"dword": 4, "dwordx2": 8, "dwordx3": 12, "dwordx4": 16}
LOADS = {
    **{name: (width, "") for name, width in _DWORDS.items()},
    "ubyte": (1, "u8"),
    "sbyte": (1, "i8"),
    "ushort": (2, "u16"),
    "sshort": (2, "i16"),
    "ubyte_d16": (1, "u8_d16"),
    "ubyte_d16_hi": (1, "u8_d16_hi"),
    "sbyte_d16": (1, "i8_d16"),
    "sbyte_d16_hi": (1, "i8_d16_hi"),
    "short_d16": (2, "u16_d16"),
    "short_d16_hi": (2, "u16_d16_hi"),
}
STORES = {
    **{name: (width, "") for name, width in _DWORDS.items()},
    "byte": (1, ""),
    "short": (2, ""),
    "byte_d16_hi": (1, "hi"),
    "short_d16_hi": (2, "hi"),
}
# instruction's name -> (operation of memory.py, type letter, bytes)
ATOMICS = {
    "swap": ("swap", "u", 4),
    "cmpswap": ("cmpswap", "u", 4),
    "add": ("add", "u", 4),
    "sub": ("sub", "u", 4),
    "smin": ("min", "i", 4),
    "umin": ("min", "u", 4),
    "smax": ("max", "i", 4),
    "umax": ("max", "u", 4),
    "and": ("and", "u", 4),
    "or": ("or", "u", 4),
    "xor": ("xor", "u", 4),
    "inc": ("inc", "u", 4),
    "dec": ("dec", "u", 4),
}
ATOMICS |= {f"{name}_x2": (op, t.upper(), 8) for name, (op, t, _) in ATOMICS.items()}
ATOMICS |= {
    "add_f32": ("add", "f", 4),
    "add_f64": ("add", "D", 8),
    "min_f64": ("fmin", "D", 8),
    "max_f64": ("fmax", "D", 8),
    "pk_add_f16": ("add", "f16", 4),
    "pk_add_bf16": ("add", "bf16", 4),
}
_WIDTHS = {
    "load": {name: width for name, (width, _) in LOADS.items()},
    "store": {name: width for name, (width, _) in STORES.items()},
    "atomic": {name: width for name, (_, _, width) in ATOMICS.items()},
}
_GLOBAL = re.compile(r"^(global|flat|buffer|scratch)_(load|store|atomic)_(\w+)$")
_CACHE_BITS = ("sc0", "sc1", "nt", "glc", "slc")


def is_memory(name: str) -> bool:
    return name.startswith(("s_load_dword", "ds_")) or bool(_GLOBAL.match(name))


def lower_memory(e: Emitter) -> None:
    """Any memory instruction. Cache and scope bits have no meaning in coherent memory."""
    name = e.instruction.name
    if name.startswith("s_load_dword"):
        scalar_load(e)
    elif name.startswith("ds_"):
        lds(e)
    elif name.startswith("scratch_"):
        scratch(e)
    else:
        vector_memory(e)


def scalar_load(e: Emitter) -> None:
    """s_load_dword[xN] sdst, sbase, offset."""
    name = e.instruction.name
    width = int(name.removeprefix("s_load_dword").lstrip("x") or 1)
    base, offset = e.source(1, "I"), e.operands[2]
    fixed = _number(e, "offset")
    if offset.is_register:
        text = f"{offset.name}u.astype(i64) + {fixed}"
    else:
        text = str(_signed(int(offset.text, 0), 21) + fixed)
    target = e.register(0)
    for bit in _CACHE_BITS:
        e.take(bit)
    place = f"{e.instruction.index}, {target.index}, {width}"
    e.emit(f"vmem.scalar_load({place}, {base} + ({text}), {e.waves})")


def _number(e: Emitter, name: str) -> int:
    return int(e.take(name, "0"), 0)


def _signed(value: int, bits: int) -> int:
    """A literal as printed may be the two's complement of a negative offset."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def vector_memory(e: Emitter) -> None:
    """global_*, flat_* and buffer_* loads, stores and atomics."""
    match = _GLOBAL.match(e.instruction.name)
    assert match, e.instruction.name
    space, kind, what = match.groups()
    width = _WIDTHS[kind].get(what)
    if width is None:
        raise e.unsupported("an access of unknown form")
    returns = kind == "load" or (kind == "atomic" and "sc0" in e.modifiers)
    for bit in _CACHE_BITS:
        e.take(bit)
    data, target = _address(e, space, kind, returns, width)
    site = e.instruction.index
    if kind == "load":
        form = LOADS[what][1]
        into = f"'{form}', {target.file!r}, {target.index}, {e.lanes}"
        e.emit(f"vmem.load({site}, address, reach, {width}, {into})")
    elif kind == "store":
        half = STORES[what][1] == "hi"
        e.emit(
            f"vmem.store({site}, address, reach, {width}, {data.file!r}, {data.index}, "
            f"{half}, {e.lanes})"
        )
    else:
        operation, letter, _ = ATOMICS[what]
        result = f"({target.file!r}, {target.index})" if returns else "None"
        e.emit(
            f"vmem.atomic({site}, address, reach, '{operation}', '{letter}', {width}, "
            f"{data.file!r}, {data.index}, {result}, {e.lanes})"
        )


def _address(
    e: Emitter, space: str, kind: str, returns: bool, width: int
) -> tuple[Operand, Operand]:
    """Emit `address` and `reach`; give (data register, destination register)."""
    operands = e.operands
    offset = _number(e, "offset")
    if space == "buffer":
        data, descriptor = operands[0], operands[2]
        if e.take("idxen") or e.take("addr64"):
            raise e.unsupported("an indexed buffer")
        has_offset = bool(e.take("offen"))
        lane_offset = source(operands[1], "u", e.pool) if has_offset else e.pool.number(0, "u")
        scalar = source(operands[3], "u", e.pool)
        e.emit(
            f"address, reach = vmem.buffer({e.instruction.index}, {lane_offset}, "
            f"{descriptor.index}, {scalar}, {offset}, {width}, {e.lanes})"
        )
        return data, data
    has_base = space == "global"
    if kind == "store":
        lane, data, target = operands[0], operands[1], operands[1]
    elif kind == "load":
        lane, data, target = operands[1], operands[0], operands[0]
    elif returns:
        lane, data, target = operands[1], operands[2], operands[0]
    else:
        lane, data, target = operands[0], operands[1], operands[1]
    base = operands[-1] if has_base else Operand("off", text="off")
    plus = f" + {offset}" if offset else ""
    if base.file == "off":
        text = source(lane, "I", e.pool)
    else:
        text = f"{source(base, 'I', e.pool)} + {source(lane, 'u', e.pool)}.astype(i64)"
    e.emit(f"address, reach = {text}{plus}, None")
    return data, target


def scratch(e: Emitter) -> None:
    """scratch_load_*, scratch_store_*: private memory, one frame a lane."""
    match = _GLOBAL.match(e.instruction.name)
    assert match, e.instruction.name
    kind, what = match[2], match[3]
    if kind == "atomic" or what not in (LOADS if kind == "load" else STORES):
        raise e.unsupported("an access of unknown form")
    width = (LOADS if kind == "load" else STORES)[what][0]
    for bit in _CACHE_BITS:
        e.take(bit)
    data, lane = e.operands[:2] if kind == "load" else (e.operands[1], e.operands[0])
    parts = [str(_number(e, "offset"))]
    for operand in (lane, e.operands[2]):
        if operand.is_register:
            parts.append(f"{source(operand, 'i', e.pool)}.astype(i64)")
        elif operand.file == "literal":
            parts.append(str(int(operand.text, 0)))
    offset = " + ".join(parts)
    place = f"{e.instruction.index}, {offset}, {width}"
    if kind == "load":
        into = f"'{LOADS[what][1]}', {data.file!r}, {data.index}, {e.lanes}"
        e.emit(f"local.scratch_read({place}, {into})")
    else:
        half = STORES[what][1] == "hi"
        e.emit(f"local.scratch_write({place}, {data.file!r}, {data.index}, {half}, {e.lanes})")


_DS_ACCESS = re.compile(
    r"^ds_(read|write)(2?)(st64)?_([bui])(8|16|32|64|96|128)(_d16)?(_hi|_d16_hi)?$"
)
_DS_ATOMIC = re.compile(
    r"^ds_(add|sub|rsub|inc|dec|min|max|and|or|xor|wrxchg|cmpst|pk_add)(_rtn)?"
    r"_(u32|i32|b32|f32|u64|i64|b64|f64|f16|bf16)$"
)
_DS_NAMES = {"wrxchg": "swap", "cmpst": "cmpswap"}


def lds(e: Emitter) -> None:
    """Everything of the LDS unit, lane permutes included.

    Address plus offset wraps at 32 bits, so an address may be "negative"; both are uint32.
    """
    name = e.instruction.name
    if name == "ds_nop":
        return
    if name == "ds_swizzle_b32":
        lanes = e.pool.add("swizzle_map", _swizzle(e))
        e.set(0, "u", f"swizzle({e.source(1, 'u')}, {lanes}, {e.lanes})")
    elif name in ("ds_bpermute_b32", "ds_permute_b32"):
        move = "pull" if "bpermute" in name else "push"
        offset = _number(e, "offset")
        e.set(0, "u", f"{move}({e.source(1, 'u')}, {e.source(2, 'u')}, {offset}, {e.lanes})")
    elif match := _DS_ACCESS.match(name):
        _lds_access(e, match)
    elif match := _DS_ATOMIC.match(name):
        _lds_atomic(e, match)
    else:
        raise e.unsupported("an LDS operation of unknown form")


def _swizzle(e: Emitter) -> object:
    from isobath.emulator.lanes import swizzle_map

    return swizzle_map(e.take("offset", "0"))


def _lds_access(e: Emitter, match: re.Match[str]) -> None:
    kind, two, stride64, letter, bits, d16, high = match.groups()
    width = int(bits) // 8
    if two:
        step = width * (64 if stride64 else 1)
        offsets = [_number(e, f"offset{k}") * step for k in range(2)]
    else:
        offsets = [_number(e, "offset")]
    address = e.operands[1 if kind == "read" else 0]
    # The first of two results may overwrite the address.
    e.emit(f"address = {source(address, 'u', e.pool)}{'.copy()' if two else ''}")
    words = max(1, width // 4)
    for k, offset in enumerate(offsets):
        place = f"{e.instruction.index}, address, {offset}, {width}"
        if kind == "read":
            target = e.register(0).at(k * words)
            form = "" if width >= 4 else f"{letter}{bits}{d16 or ''}{high or ''}"
            into = f"'{form}', {target.file!r}, {target.index}, {e.lanes}"
            e.emit(f"local.read({place}, {into})")
        else:
            data = e.operands[1 + k]
            if not data.is_register:
                raise e.unsupported("LDS data that is no register")
            e.emit(f"local.write({place}, {data.file!r}, {data.index}, {bool(high)}, {e.lanes})")


def _lds_atomic(e: Emitter, match: re.Match[str]) -> None:
    operation, returning, kind = match.groups()
    letters = {"u": "u", "i": "i", "b": "u", "f": "f"}
    letter = kind if operation == "pk_add" else letters[kind[0]]
    width = 8 if kind.endswith("64") else 4
    if width == 8:
        letter = "D" if letter == "f" else letter.upper()
    if letter in "fD" and operation in ("min", "max"):
        operation = f"f{operation}"
    operation = "add" if operation == "pk_add" else _DS_NAMES.get(operation, operation)
    operands = e.operands[1:] if returning else e.operands
    address, data = operands[0], operands[1]
    compare = "None"
    if operation == "cmpswap":  # ds_cmpst: first the expected value, then the new one
        expected, data = operands[1], operands[2]
        compare = f"({expected.file!r}, {expected.index})"
    result = f"({e.operands[0].file!r}, {e.operands[0].index})" if returning else "None"
    e.emit(
        f"local.atomic({e.instruction.index}, {source(address, 'u', e.pool)}, "
        f"{_number(e, 'offset')}, '{operation}', '{letter}', {width}, {data.file!r}, "
        f"{data.index}, {compare}, {result}, {e.lanes})"
    )
