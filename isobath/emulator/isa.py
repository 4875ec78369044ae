"""The opcode tables, parsed: what lower.py turns into NumPy calls.

An Opcode whose outermost operation is a NumPy ufunc keeps it apart (`ufunc`, `parts`), so that the
result can be written in place. Comparisons are generated here. The tables are data: tests change
one line's meaning and check that the suite notices.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

from isobath.emulator import opcodes_scalar, opcodes_vector

_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.BitAnd: "bitwise_and",
    ast.BitOr: "bitwise_or",
    ast.BitXor: "bitwise_xor",
    ast.LShift: "left_shift",
    ast.RShift: "right_shift",
}
_CALLED_NAMES = "minimum maximum fmax fmin sqrt ceil floor trunc rint absolute"
_CALLED = frozenset(_CALLED_NAMES.split())
_IN_PLACE = frozenset("uif")

COMPARISONS = {
    "f": "a != a",
    "lt": "a < b",
    "le": "a <= b",
    "gt": "a > b",
    "ge": "a >= b",
    "eq": "a == b",
    "ne": "a != b",
    "lg": "(a < b) | (a > b)",
    "o": "(a == a) & (b == b)",
    "u": "(a != a) | (b != b)",
    "neq": "~(a == b)",
    "nlt": "~(a < b)",
    "nle": "~(a <= b)",
    "ngt": "~(a > b)",
    "nge": "~(a >= b)",
    "nlg": "~((a < b) | (a > b))",
}
INTEGER_COMPARISONS = ("lt", "le", "gt", "ge", "eq", "ne")
FLOAT_COMPARISONS = tuple(name for name in COMPARISONS if name not in ("f", "ne"))
INTEGER_TYPES = {"u32": "u", "i32": "i", "u64": "U", "i64": "I", "u16": "h", "i16": "n"}
FLOAT_TYPES = {"f32": "f", "f64": "D", "f16": "e"}


@dataclass(frozen=True, slots=True)
class Opcode:
    """One table line. scalar: SALU; destination and sources: type letters; carry: new SCC."""

    name: str
    scalar: bool
    destination: str
    sources: str
    expression: str
    carry: str = ""
    ufunc: str = ""
    parts: tuple[str, ...] = ()


def parse_line(line: str, scalar: bool) -> Opcode:
    """An Opcode from its table line."""
    body, _, carry = line.partition(" ; ")
    name, destination, sources, expression = body.split(None, 3)
    ufunc = ""
    parts: tuple[str, ...] = ()
    if destination in _IN_PLACE and expression != "-":
        ufunc, parts = _outermost(expression)
    expression = expression.strip()
    return Opcode(name, scalar, destination, sources, expression, carry.strip(), ufunc, parts)


def _outermost(expression: str) -> tuple[str, tuple[str, ...]]:
    node = ast.parse(expression, mode="eval").body
    if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
        return _BINARY[type(node.op)], (ast.unparse(node.left), ast.unparse(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Invert):
        return "bitwise_not", (ast.unparse(node.operand),)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLED:
        return node.func.id, tuple(ast.unparse(part) for part in node.args)
    return "", ()


def build_tables() -> dict[str, Opcode]:
    """Every table-driven opcode by name."""
    tables: dict[str, Opcode] = {}
    vector = opcodes_vector
    for text, scalar in (
        (opcodes_scalar.SCALAR, True),
        (vector.INTEGER, False),
        (vector.FLOAT32, False),
        (vector.FLOAT16, False),
        (vector.FLOAT64, False),
    ):
        for line in text.strip().splitlines():
            opcode = parse_line(line, scalar)
            assert opcode.name not in tables, opcode.name
            tables[opcode.name] = opcode
    for suffixes, names in (
        (INTEGER_TYPES, INTEGER_COMPARISONS),
        (FLOAT_TYPES, FLOAT_COMPARISONS),
    ):
        for suffix, kind in suffixes.items():
            for name in names:
                opcode = Opcode(f"v_cmp_{name}_{suffix}", False, "m", kind * 2, COMPARISONS[name])
                tables[opcode.name] = opcode
    return tables


TABLES = build_tables()

_NO_EFFECT_NAMES = (
    "s_nop s_waitcnt s_waitcnt_depctr s_setprio s_sleep s_sethalt s_icache_inv s_dcache_wb "
    "s_dcache_inv s_dcache_wb_vol s_dcache_inv_vol s_inst_prefetch s_ttracedata s_incperflevel "
    "s_decperflevel buffer_wbl2 buffer_inv buffer_wbinvl1 buffer_wbinvl1_vol v_nop"
)
NO_EFFECT = frozenset(_NO_EFFECT_NAMES.split())
"""Opcodes without a meaning in a sequentially consistent machine without time or caches."""
