"""Matrix products (v_mfma_*) of gfx942: which lane holds which element, and the two accumulations.

Layouts, for lane l, register r and element j of a lane's operand: A and B hold row (column)
l mod M and k = (l div M) * e + j, or, with independent blocks, block l div M and k = j. A result
has column l mod M; its rows are r mod 4 + 4 * (l div M) + (4 * 64 / M) * (r div 4) within a block,
and one row a register in 4x4. float64 is the exception: row = 4 * r + l div 16. EXEC is ignored.
cbsz and abid give every 2^cbsz blocks the same A, that of the abid-th of them.
The fast accumulation is a float64 product rounded once; accumulate.py has the bit-exact one.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from isobath.emulator.accumulate import exact_float, exact_floats_in_order
from isobath.emulator.bits import Array, i8, i32, i64, u16, u32
from isobath.emulator.faults import UnsupportedInstruction
from isobath.emulator.fp8 import BF8_VALUES, FP8_VALUES

f16, f32, f64 = np.float16, np.float32, np.float64


@dataclass(frozen=True, slots=True)
class Variant:
    """M: rows and columns; K: products an element; blocks: independent products;
    a, b: element types; result: "f32", "i32" or "f64"; passes of 4 clocks."""

    name: str
    M: int
    K: int
    blocks: int
    a: str
    b: str
    result: str
    passes: int

    @property
    def flops(self) -> int:
        return 2 * self.M * self.M * self.K * self.blocks


# shape, blocks, operand types, passes
_ROWS = """
32x32x1 2 f32 16
16x16x1 4 f32 8
4x4x1 16 f32 2
32x32x2 1 f32 16
16x16x4 1 f32 8
32x32x4 2 f16 16
16x16x4 4 f16 8
4x4x4 16 f16 2
32x32x8 1 f16 8
16x16x16 1 f16 4
32x32x4 2 bf16 16
16x16x4 4 bf16 8
4x4x4 16 bf16 2
32x32x8 1 bf16 8
16x16x16 1 bf16 4
32x32x4 2 i8 16
16x16x4 4 i8 8
4x4x4 16 i8 2
32x32x16 1 i8 8
16x16x32 1 i8 4
16x16x8 1 xf32 4
32x32x4 1 xf32 8
16x16x4 1 f64 8
32x32x16 1 fp8_fp8 8
32x32x16 1 fp8_bf8 8
32x32x16 1 bf8_fp8 8
32x32x16 1 bf8_bf8 8
16x16x32 1 fp8_fp8 4
16x16x32 1 fp8_bf8 4
16x16x32 1 bf8_fp8 4
16x16x32 1 bf8_bf8 4
"""


def _variants() -> dict[str, Variant]:
    found = {}
    for row in _ROWS.strip().splitlines():
        shape, blocks, types, passes = row.split()
        m, _, k = (int(x) for x in shape.split("x"))
        a, _, b = types.partition("_")
        result = {"i8": "i32", "f64": "f64"}.get(a, "f32")
        middle = "" if blocks == "1" else f"{blocks}b_"
        name = f"v_mfma_{result}_{shape}_{middle}{types}"
        found[name] = Variant(name, m, k, int(blocks), a, b or a, result, int(passes))
        if a == "bf16":  # the spelling of gfx90a, which some tools keep
            found[f"{name}_1k"] = found[name]
    return found


VARIANTS = _variants()


def elements(registers: Array, kind: str) -> Array:
    """[n, W, 64] uint32 -> [W, 64, e] values of an operand type."""
    words = np.ascontiguousarray(registers.transpose(1, 2, 0))
    if kind == "bf16":
        return (words.view(u16).astype(u32) << 16).view(f32)
    if kind == "f32":
        return words.view(f32)
    if kind == "xf32":  # the lowest 13 mantissa bits do not take part
        return (words & u32(0xFFFFE000)).view(f32)
    if kind == "f64":
        return words.view(f64)
    if kind == "f16":
        return words.view(f16).astype(f32)
    if kind == "i8":
        return words.view(i8).astype(f64)
    return (FP8_VALUES if kind == "fp8" else BF8_VALUES)[words.view(np.uint8)]


def as_matrices(values: Array, v: Variant) -> Array:
    """[W, 64, e] -> [W, blocks, M, K]."""
    waves, _, per_lane = values.shape
    groups = values.reshape(waves, 64 // v.M, v.M, per_lane)
    if v.blocks > 1:
        return groups
    return groups.transpose(0, 2, 1, 3).reshape(waves, 1, v.M, v.K)


def result_to_matrices(values: Array, v: Variant) -> Array:
    """[registers, W, 64] results -> [W, blocks, M, M]."""
    registers, waves, _ = values.shape
    groups = 64 // v.M
    if v.result == "f64":
        split = values.reshape(registers, waves, groups, v.M)
        return split.transpose(1, 0, 2, 3).reshape(waves, 1, v.M, v.M)
    if v.M == 4:
        split = values.reshape(4, waves, 16, 4)
        return split.transpose(1, 2, 0, 3)
    quads = v.M // (4 * groups)
    split = values.reshape(v.blocks, quads, 4, waves, groups, v.M)
    return split.transpose(3, 0, 1, 4, 2, 5).reshape(waves, v.blocks, v.M, v.M)


def matrices_to_result(matrices: Array, v: Variant) -> Array:
    """The inverse of result_to_matrices."""
    waves, groups = matrices.shape[0], 64 // v.M
    if v.result == "f64":
        split = matrices.reshape(waves, 4, groups, v.M)
        return split.transpose(1, 0, 2, 3).reshape(4, waves, 64)
    if v.M == 4:
        return matrices.transpose(2, 0, 1, 3).reshape(4, waves, 64)
    quads = v.M // (4 * groups)
    split = matrices.reshape(waves, v.blocks, quads, groups, 4, v.M)
    return split.transpose(1, 2, 4, 0, 3, 5).reshape(-1, waves, 64)


def source_lanes(name: str, cbsz: int, abid: int) -> Array | None:
    """Where each lane's A comes from, [64]; None where the blocks are not enough for it."""
    v = VARIANTS[name]
    size = 1 << cbsz
    if size > v.blocks or abid >= size:
        return None
    lane = np.arange(64)
    block = lane // v.M
    return (block - block % size + abid) * v.M + lane % v.M


def multiply(name: str, a: Array, b: Array, c: Array, *, exact: bool) -> Array:
    """Result registers [n, W, 64] uint32 of A B + C; c: registers, or the words of a literal."""
    v = VARIANTS[name]
    left, right = as_matrices(elements(a, v.a), v), as_matrices(elements(b, v.b), v)
    addend = _addend(c, v, left.shape[0])
    if v.result == "i32":
        product = np.matmul(left, right.swapaxes(-1, -2)).astype(i64)
        return matrices_to_result((product + addend).astype(i32), v).view(u32)
    if v.result == "f64":
        return _words(matrices_to_result(exact_floats_in_order(left, right, addend), v))
    if not exact:
        product = np.matmul(left.astype(f64), right.swapaxes(-1, -2).astype(f64))
        result = (product + addend).astype(f32)
    elif v.a == "xf32":
        raise UnsupportedInstruction(name, name, "bit-exact accumulation of xf32 is not published")
    elif v.a == "f32":
        result = exact_floats_in_order(left, right, addend)
    else:
        result = exact_float(left, right, addend, v.a, v.b)
    return matrices_to_result(result, v).view(u32)


class Products:
    """Bit-exact products that were computed already: the runs of one launch multiply the same
    numbers again and again, and a digest costs less than a product."""

    MOST = 1 << 15

    def __init__(self) -> None:
        self.known: dict[bytes, Array] = {}

    def multiply(self, name: str, a: Array, b: Array, c: Array) -> Array:
        """multiply(..., exact=True), wave by wave from memory where that is possible."""
        waves = a.shape[1]
        per_wave = [np.ascontiguousarray(x.transpose(1, 0, 2)) for x in (a, b)]
        per_wave += [] if c.ndim == 1 else [np.ascontiguousarray(c.transpose(1, 0, 2))]
        start = blake2b(name.encode() + (c.tobytes() if c.ndim == 1 else b""), digest_size=16)
        keys = []
        for wave in range(waves):
            digest = start.copy()
            for rows in per_wave:
                digest.update(rows[wave])
            keys.append(digest.digest())
        new = [wave for wave in range(waves) if keys[wave] not in self.known]
        if new:
            if len(self.known) > self.MOST:
                self.known.clear()
                new = list(range(waves))
            part = c if c.ndim == 1 else c[:, new]
            found = multiply(name, a[:, new], b[:, new], part, exact=True)
            self.known |= {keys[wave]: found[:, k].copy() for k, wave in enumerate(new)}
        return np.stack([self.known[key] for key in keys], 1)


def _addend(c: Array, v: Variant, waves: int) -> Array:
    kind = {"f32": f32, "i32": i32, "f64": f64}[v.result]
    if c.ndim == 1:
        value = c.view(kind)[0]
        return np.full((waves, v.blocks, v.M, v.M), value, kind)
    if v.result == "f64":
        c = np.ascontiguousarray(c.transpose(1, 2, 0)).view(f64).transpose(2, 0, 1)
    return result_to_matrices(c.view(kind), v)


def _words(values: Array) -> Array:
    """[n, W, 64] float64 -> [2 n, W, 64] uint32."""
    words = np.ascontiguousarray(values).view(u32).reshape(*values.shape, 2)
    return words.transpose(0, 3, 1, 2).reshape(-1, *values.shape[1:])
