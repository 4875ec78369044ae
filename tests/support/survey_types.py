"""What the kernels of triton_survey_types.py must compute: every operator in every type, at the
edges of its range; products with each operand transposed and each size of matrix instruction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import ml_dtypes
import numpy as np

from tests.support import triton_survey_numbers as numbers
from tests.support import triton_survey_types as kernels
from tests.support.survey import (
    TRITON,
    Draw,
    Survey,
    bf16,
    collected,
    f16,
    f32,
    f64,
    i8,
    i16,
    i32,
    i64,
    name,
    u8,
    u16,
    u32,
    u64,
    zeros,
)  # fmt: skip
from tests.support.survey_numbers import quotients, wrapped

E4, E5 = ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz
OCP4, OCP5 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
FP8 = (E4, E5, OCP4, OCP5)
INTEGERS, FLOATS = (i8, u8, i16, u16, i32, u32, i64, u64), (f16, bf16, f32, f64)


def survey() -> Survey:
    """Every run of this topic."""
    return collected(floats, integers, conversions, moves, control, products, others)


def drawn(d: Draw, kind: Any, *shape: int) -> np.ndarray:
    if np.dtype(kind).kind in "iu":
        low = max(-128, np.iinfo(kind).min)
        return d.integers(low, min(128, np.iinfo(kind).max + 1), *shape, kind=kind)
    return d.normal(*shape).astype(kind)


def floats(s: Survey, d: Draw) -> None:
    edges = np.array(
        [0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 6e-8, -6e-8, 6e-5, 3e4, -2.5, 0.5, 7, -7, 100]
    )
    for kind in FLOATS:
        x = np.concatenate([np.repeat(edges, 16), d.normal(256) * 4]).astype(kind)
        y = np.concatenate([np.tile(edges, 16), d.normal(256) * 4]).astype(kind)
        s.add(f"floats {name(kind)}", kernels.floats, 1, (x, y, np.zeros((15, 512), kind)),
              lambda x=x, y=y: {2: of_floats(x.astype(f64), y.astype(f64)).astype(x.dtype)},
              B=512)  # fmt: skip


def of_floats(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """One rounding of float64 is right: sums and products of 24 bits are exact there, and float64
    itself is the type otherwise. Integers saturate; NaN becomes 0."""
    whole = np.trunc(np.clip(np.where(np.isnan(a), 0, a), -(2.0**31), 2.0**31 - 1))
    return np.stack([
        a + b, a - b, a * b, np.abs(a), -a, np.fmax(a, b), np.fmin(a, b), np.maximum(a, b),
        np.minimum(a, b), np.where(a < b, a, b), np.where(a != b, a, b),
        np.where((a >= b) | (a > 0.5), a, 1), ~np.isnan(a) * 1.0, np.clip(a, -1, 1), whole,
    ])  # fmt: skip


def integers(s: Survey, d: Draw) -> None:
    for kind in INTEGERS:
        info = np.iinfo(kind)
        edges = [info.min, info.max, info.min + 1, info.max - 1, 1, 2, 3, 5, 100, 0x55, 7]
        pairs = [(a, b or 1) for a, b in product(edges, edges)]
        x = np.array([a for a, _ in pairs] + [0] * 7, dtype=kind)
        y = np.array([b for _, b in pairs] + [1] * 7, dtype=kind)
        x = np.concatenate([x, d.integers(info.min, info.max, 128, kind=kind)])
        y = np.concatenate([y, d.integers(1, info.max, 128, kind=kind)])
        s.add(f"integers {name(kind)}", kernels.integers, 1, (x, y, np.zeros((14, 256), kind)),
              lambda x=x, y=y: {2: of_integers(x, y)}, widths=(4, 1), B=256,
              BITS=info.bits)  # fmt: skip


def of_integers(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """In Python's integers, cut to the type."""
    q, r = quotients(x, y)
    sevens, _ = quotients(x, np.full(len(x), 7))
    _, tens = quotients(x, np.full(len(x), 10))
    mask = 8 * x.itemsize - 1
    pairs = [(int(a), int(b)) for a, b in zip(x, y, strict=True)]
    of_pair: list[Callable[[int, int], int]] = [
        lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b,
        lambda a, b: (a & b) ^ (a | ~b), lambda a, b: min(a, b) ^ -a, max,
        lambda a, b: a << (b & mask), lambda a, b: a >> (b & mask), lambda a, b: a <= b,
        lambda a, b: a * 5 + b * 3,
    ]  # fmt: skip
    plain = [[int(f(a, b)) for a, b in pairs] for f in of_pair]
    every = [*plain[:3], q, r, *plain[3:9], sevens, tens, plain[9]]
    return [wrapped(values, x.dtype) for values in every]


def conversions(s: Survey, d: Draw) -> None:
    for a, b in product((*INTEGERS, *FLOATS, *FP8), repeat=2):
        whole = [np.dtype(kind).kind in "iu" for kind in (a, b)]
        if a is b or (any(k in FP8 for k in (a, b)) and (any(whole) or f64 in (a, b))):
            continue  # Triton compiles FP8 to and from float16, bfloat16 and float32
        if a in FP8 and b in FP8:
            continue
        size = 30.0 if whole[1] else 5.0
        x = d.normal(128) * f32(size)
        x = np.abs(x) if np.dtype(b).kind == "u" or np.dtype(a).kind == "u" else x
        x = x.astype(a)
        wide = x.astype(f64)
        want = np.trunc(wide).astype(i64).astype(b) if whole[1] else wide.astype(f32).astype(b)
        s.add(f"{name(a)} as {name(b)}", numbers.fp8_to_wide, 1, (x, np.zeros(128, b)),
              lambda w=want if b is not f64 else wide: {1: w}, widths=(2,), B=128)  # fmt: skip
    v = np.clip(d.normal(512) * f32(8), -50000, 50000)
    v[:4] = 57344, -1e-6, 0, -0.0
    for kind, bits in ((bf16, 0xFFFF0000), (f16, 0xFFFFE000)):
        s.add(f"cut to {name(kind)}", kernels.rounded, 1, (v, np.zeros(512, kind)),
              lambda b=bits, k=kind: {1: towards_zero(v, b, k)}, widths=(2,), B=512,
              HOW="rtz")  # fmt: skip


def towards_zero(v: np.ndarray, bits: int, kind: Any) -> np.ndarray:
    """float32 cut to the mantissa of a narrower type; float16's denormals have fewer bits."""
    if kind is bf16:
        return (v.view(u32) & u32(bits)).view(f32)
    near = v.astype(f16)
    past = np.abs(near.astype(f64)) > np.abs(v.astype(f64))
    return np.where(past, np.nextafter(near, f16(0)), near)


def moves(s: Survey, d: Draw) -> None:
    for kind, n in product((f32, f16, i8, i16, i64, bf16, u8), (1, 37, 100, 128)):
        x = drawn(d, kind, n)
        s.add(f"masks {name(kind)} {n}", kernels.masks, 1, (x, np.zeros(640, kind), n),
              lambda x=x: {1: of_masks(x.astype(f64))}, widths=(4,), B=128)  # fmt: skip
    v = d.normal(64 * 7)
    at = np.arange(64)
    for base in (2**31 - 100, 2**40):
        near = np.where(base + at * 7 > 2**31 - 1, v[at], v[63 - at])
        want = np.concatenate([v[at * 7], near])
        s.add(f"index {base}", kernels.far_index, 1, (v, zeros(128), base, 7),
              lambda w=want: {1: w}, widths=(4,), B=64)  # fmt: skip


def of_masks(x: np.ndarray) -> np.ndarray:
    at, n = np.arange(128), len(x)

    def taken(place: np.ndarray, mask: np.ndarray, other: int) -> np.ndarray:
        return np.where(mask, x[np.clip(place, 0, n - 1)], other)

    return np.concatenate([
        taken(at, at < n, 7), taken(at, (at % 3 == 0) & (at < n), 1),
        taken(at + 1, at + 1 < n, 0) * (at % 2 == 0), taken(n - 1 - at, at < n, 3),
        taken(2 * at, 2 * at < n, 5),
    ])  # fmt: skip


def control(s: Survey, d: Draw) -> None:
    x = d.normal(9, 64)
    s.add("early returns", kernels.early, 9, (x, zeros(9, 64), 7), lambda: {1: returned(x)}, 1e-6,
          widths=(4, 1), B=64)  # fmt: skip
    v = d.normal(64)
    s.add("nested loops", kernels.nested, 1, (v, zeros(64), 7, 5), lambda: {1: looped(v, 7, 5)},
          1e-6, widths=(4, 1), B=64)  # fmt: skip
    for a, b, c, x1, x2, flag in (
        (17, -3, 2**33, 1.5, -0.25, True),
        (-17, 2**20, 5, 2.25, 3.0, False),
    ):
        [cut], [rest] = (
            quotients(np.array([a, a]), np.array([-3, 5]))[0][:1],
            quotients(np.array([a]), np.array([5]))[1],
        )
        want = [a, flag, a * b + c, rest, cut, x1 * x2, np.sqrt(x1 * x1 + 1), min(a, c),
                a * 8 + (c >> 2)]  # fmt: skip
        s.add(f"numbers {a}", kernels.numbers, 1, (zeros(9, kind=f64), a, b, c, x1, x2, flag),
              lambda w=want: {0: np.array(w, f64)}, 1e-7, widths=(1,))  # fmt: skip


def returned(x: np.ndarray) -> np.ndarray:
    out = np.zeros((9, 64))
    for p in range(7):
        v = x[p].astype(f64)
        for i in range(0 if p % 2 else p):
            v = (v + i) * (2 if i == 3 else 1)
        out[p] = -v if p % 2 else v
    return out


def looped(v: np.ndarray, n: int, m: int) -> np.ndarray:
    t = np.zeros(64)
    for i in range(0, n, 2):
        for j in range(m, 0, -1):
            t = t + v * j if (i + j) % 3 == 0 else t - v if i > j else t * 0.5
        t = t + i.bit_length()
    return t


SUM = {f16: 2e-2, i32: 0.0, f64: 1e-14}
"""By the result's type; float32 sums of up to 128 products in another order otherwise."""
OPTIONS: tuple[dict[str, int], ...] = (
    {}, {"matrix_instr_nonkdim": 16}, {"waves_per_eu": 2}, {"matrix_instr_nonkdim": 32}
)  # fmt: skip


def products(s: Survey, d: Draw) -> None:
    """Each operand as it is and transposed; num_warps, num_stages and options in turn."""
    kinds: Sequence[tuple[Any, Any, Any]] = [
        (f16, f16, f32), (bf16, bf16, f32), (f16, f16, f16), (E4, E4, f32), (E5, E5, f32),
        (OCP4, OCP4, f32), (OCP5, OCP5, f32), (i8, i8, i32), (f32, f32, f32), (f64, f64, f64),
    ]  # fmt: skip
    if TRITON >= (3, 9):  # 3.6 swaps the operands of mixed products, not their types
        kinds = [*kinds, (E4, E5, f32), (E5, E4, f32)]
    shapes = [(16, 16, 32), (64, 32, 64), (32, 64, 128), (128, 16, 32)]
    for turn, ((a, b, out), (m, n, k), left, right) in enumerate(
        product(kinds, shapes, (False, True), (False, True))
    ):
        if turn % 3:  # a third of them meets every type, shape and transpose
            continue
        options = OPTIONS[turn % 4]
        if options.get("matrix_instr_nonkdim") == 32 and min(m, n) < 32:
            options = {}
        x, y = drawn(d, a, m, k), drawn(d, b, k, n)
        operands = (x.T.copy() if left else x, y.T.copy() if right else y)
        steps = (1, m) if left else (k, 1), (1, k) if right else (n, 1)
        args = (*operands, zeros(m, n, kind=out), *steps[0], *steps[1])
        s.add(f"product {name(a)} {name(b)} {name(out)} {m}x{n}x{k} {left} {right}",
              kernels.product, 1, args, lambda x=x, y=y: {2: x.astype(f64) @ y.astype(f64)},
              SUM.get(out, 1e-5), widths=((4, 1, 8, 2)[turn % 4],), stages=(1 + turn // 3 % 3,),
              M=m, N=n, K=k, BK=max(k // 2, 16), P="ieee", **options)  # fmt: skip


def others(s: Survey, d: Draw) -> None:
    for precision, error in (("tf32", 4e-3), ("bf16x3", 1e-4), ("bf16x6", 2e-5)):
        x, y = d.normal(32, 64), d.normal(64, 32)
        s.add(f"precision {precision}", kernels.product, 1, (x, y, zeros(32, 32), 64, 1, 32, 1),
              lambda x=x, y=y: {2: x.astype(f64) @ y.astype(f64)}, error, widths=(4, 1), M=32,
              N=32, K=64, BK=32, P=precision)  # fmt: skip
    for kind, (b, m, n, k) in ((f16, (2, 16, 16, 32)), (bf16, (4, 32, 32, 16)),
                               (f32, (2, 16, 16, 16)), (E4, (2, 32, 32, 32))):  # fmt: skip
        x, y = drawn(d, kind, b, m, k), drawn(d, kind, b, k, n)
        s.add(f"batches {name(kind)}", kernels.product_of_batches, 1, (x, y, zeros(b, m, n)),
              lambda x=x, y=y: {2: x.astype(f64) @ y.astype(f64)}, 1e-5, widths=(4, 2, 1), B=b, M=m,
              N=n, K=k)  # fmt: skip
    p, q = d.normal(70, 48).astype(bf16), d.normal(56, 48).astype(bf16)
    s.add("tiles by descriptor", kernels.tiles_by_descriptor, 3, (p, q, zeros(70, 56), 70, 56, 48),
          lambda: {2: p.astype(f64) @ q.astype(f64).T}, 1e-5, BM=32, BN=32, BK=16)  # fmt: skip
    r, at = d.normal(40, 32), d.integers(0, 40, 16)
    s.add("rows by descriptor", kernels.rows_by_descriptor, 1, (r, at, zeros(16, 32), 40),
          lambda: {2: r[at] * 2}, widths=(4,), C=32, B=16)  # fmt: skip
    v, w = (d.integers(-(2**31), 2**31, 128) for _ in range(2))
    s.add("assembly of bytes", kernels.assembly, 1, (v, w, zeros(8, 128, kind=i32)),
          lambda: {2: of_assembly(v, w)}, widths=(1, 4), B=128)  # fmt: skip
    s.add("clock", kernels.clock, 1, (zeros(2, kind=i32),), lambda: {0: [1, 1]}, widths=(1,))


def of_assembly(v: np.ndarray, w: np.ndarray) -> list[np.ndarray]:
    a, b = (x.view(u8).reshape(-1, 4).astype(i64) for x in (v, w))
    p, q = (x.view(u16).reshape(-1, 2).astype(i64) for x in (v, w))
    s, t = (((x.view(u32)[:, None] >> (4 * np.arange(8)) & 15).astype(i64) ^ 8) - 8 for x in (v, w))
    apart = np.abs(a - b)
    middle = (a + b + np.array([1, 0, 0, 0])) >> 1
    values = [
        apart.sum(1) + 5, np.abs(p - q).sum(1) + 5, (apart.sum(1) << 16) + 5,
        (apart * (b != 0)).sum(1) + 5, (s * t).sum(1) + 7,
        middle.astype(u8).reshape(-1).view(i32), np.maximum(np.maximum(v, w), 0), v & w | 1,
    ]  # fmt: skip
    return [x.astype(i64).astype(i32) for x in values]
