"""What the kernels of triton_survey_numbers.py must compute: arithmetic in every type, conversions,
and the device library against mpmath."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import mpmath as mp
import numpy as np

from tests.support import triton_survey_numbers as kernels
from tests.support.survey import (
    WIDTHS,
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
    u8,
    u16,
    u32,
    u64,
    zeros,
)  # fmt: skip

FP8 = {name: getattr(ml_dtypes, f"float8_{name}") for name in ("e4m3fnuz", "e5m2fnuz")}
OCP = {name: getattr(ml_dtypes, f"float8_{name}") for name in ("e4m3fn", "e5m2")}


def survey() -> Survey:
    """Every run of this topic."""
    return collected(library, integers, conversions, rounding)


def rows(*functions: Callable[..., Any]) -> Callable[..., list[list[float]]]:
    """Each function of each element, exactly enough."""

    def of(*arrays: np.ndarray) -> list[list[float]]:
        numbers = [[mp.mpf(float(v)) for v in a] for a in arrays]
        return [[float(f(*v)) for v in zip(*numbers, strict=True)] for f in functions]

    return of


def library(s: Survey, d: Draw) -> None:
    """libdevice in float32 and float64: a few ulps of the largest value of a row."""
    inside = rows(
        mp.acos, mp.asin, mp.atanh, mp.erfinv, mp.tan, mp.atan, mp.sin, mp.cos, mp.sinh, mp.cosh,
        mp.tanh, mp.erf, mp.erfc, mp.expm1, lambda v: mp.log(1 + v),
    )  # fmt: skip
    positive = rows(
        lambda v: mp.acosh(v + 1), mp.log, lambda v: mp.log(v, 2), mp.log10, mp.sqrt,
        lambda v: 1 / mp.sqrt(v), lambda v: mp.log(abs(mp.gamma(v))),
        lambda v: mp.exp(v * v) * mp.erfc(v), mp.exp, lambda v: mp.mpf(2) ** v,
        lambda v: mp.bessely(0, v), lambda v: mp.bessely(1, v),
    )  # fmt: skip
    any_sign = rows(
        lambda v: mp.besselj(0, v), lambda v: mp.besselj(1, v), lambda v: mp.besseli(0, v),
        lambda v: mp.besseli(1, v), mp.asinh, mp.floor, mp.ceil,
        lambda v: mp.sign(v) * mp.floor(abs(v)), mp.nint,
        lambda v: mp.sign(v) * mp.floor(abs(v) + 0.5),
    )  # fmt: skip
    for kind, error in ((f32, 3e-6), (f64, 3e-14)):
        x = d.rng.uniform(-0.98, 0.98, 64).astype(kind)
        y = np.abs(d.normal(64) * 4 + 0.3).astype(kind)
        # Below -8 the library's I1 of float64 takes the root of a negative number.
        z, w = np.clip(d.normal(64) * 5, -7.9, 30).astype(kind), d.normal(64).astype(kind)
        name = np.dtype(kind).name
        for label, kernel, call, args in (
            ("inside one", kernels.inside_one, inside, (x,)),
            ("positive", kernels.positive, positive, (y,)),
            ("any sign", kernels.any_sign, any_sign, (z,)),
        ):
            out = zeros(len(call(np.ones(1) * 0.5)), 64, kind=kind)
            want = lambda call=call, args=args: {1: call(*args)}  # noqa: E731
            s.add(f"{label} {name}", kernel, 1, (*args, out), want, error, widths=(1, 4), B=64)
        s.add(f"two numbers {name}", kernels.two_numbers, 1, (z, w, zeros(6, 64, kind=kind)),
              lambda z=z, w=w: {2: pairs(z, w)}, error, widths=(1, 4), B=64)  # fmt: skip
    far = np.concatenate([d.normal(128) * 1e3, d.normal(64) * 1e6, d.normal(64) * 1e20])
    far = far.astype(f32)
    # The reduction of huge angles keeps a few ulps; a tangent near a pole is its row's largest.
    s.add("huge angles", kernels.trig_large, 1, (far, zeros(3, 256)),
          lambda: {1: rows(mp.sin, mp.cos, mp.tan)(far)}, 1e-5, B=256)  # fmt: skip


def pairs(z: np.ndarray, w: np.ndarray) -> list[np.ndarray]:
    a, b = z.astype(f64), w.astype(f64)
    return [
        np.arctan2(a, b), np.copysign(a, b), np.fmod(a, b), np.hypot(a, b), np.abs(a) ** b,
        np.nextafter(z, w).astype(f64),
    ]  # fmt: skip


def quotients(x: np.ndarray, y: np.ndarray) -> tuple[list[int], list[int]]:
    """C's quotient and remainder, as Triton's // and % of integers."""
    q = [(1 if (int(a) < 0) == (int(b) < 0) else -1) * (abs(int(a)) // abs(int(b)))
         for a, b in zip(x, y, strict=True)]  # fmt: skip
    return q, [int(a) - k * int(b) for a, b, k in zip(x, y, q, strict=True)]


def wrapped(values: list[int], kind: Any) -> np.ndarray:
    bits = 8 * np.dtype(kind).itemsize
    return np.array([v % 2**bits for v in values], u64).astype(kind)


def integers(s: Survey, d: Draw) -> None:
    for name, high, divisor in (("large", 2**62, 2**40), ("small", 2**30, 2**20)):
        x = d.integers(-high, high, 256, kind=i64)
        y = d.integers(1, divisor, 256, kind=i64) * np.where(d.rng.random(256) < 0.5, -1, 1)
        s.add(f"int64 {name}", kernels.int64_all, 1, (x, y, zeros(10, 256, kind=i64)),
              lambda x=x, y=y: {2: of_int64(x, y)}, B=256)  # fmt: skip
    a = d.integers(0, 2**64 - 1, 128, kind=u64)
    b = d.integers(1, 2**40, 128, kind=u64)
    high_half = wrapped([int(p) * int(q) >> 64 for p, q in zip(a, b, strict=True)], u64)
    s.add("uint64", kernels.u64ops, 1, (a, b, zeros(5, 128, kind=u64)), lambda: {2: [
        a // b, a % b, (a >> u64(7)) ^ (b << u64(3)), np.minimum(a, b) + high_half,
        (a.astype(f64) * 0.5).astype(u64)]}, B=128)  # fmt: skip
    for kind in (i8, u8, i16, u16, i32, u32):
        info = np.iinfo(kind)
        x = d.integers(info.min, info.max + 1, 256, kind=kind)
        y = d.integers(1, info.max + 1, 256, kind=kind)
        y = y if info.min == 0 else np.where(d.rng.random(256) < 0.5, -y, y).astype(kind)
        s.add(f"small {np.dtype(kind).name}", kernels.small_ints, 1,
              (x, y, zeros(5, 256, kind=kind)), lambda x=x, y=y: {2: of_small(x, y)},
              widths=(4, 1), B=256)  # fmt: skip
    words = d.integers(0, 2**32, 256, kind=u32)
    s.add("population count", kernels.popc, 1, (words, zeros(256, kind=u32)),
          lambda: {1: [bin(int(v)).count("1") for v in words]}, B=256)  # fmt: skip


def of_int64(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    q, r = quotients(x, y)
    both = [(int(a) % 2**64, int(b) % 2**64) for a, b in zip(x, y, strict=True)]
    return [
        x * y, wrapped(q, i64), wrapped(r, i64), (x << (y & 63)) ^ (x >> (y & 31)),
        np.where(x > y, x - y, x + y), np.minimum(x, y) + np.maximum(x, -y),
        wrapped([a * b >> 64 for a, b in both], i64),
        wrapped([a // abs(int(b)) for (a, _), b in zip(both, y, strict=True)], i64),
        x.astype(f32).astype(i64) + x.astype(f64).astype(i64), np.abs(x) + (x & y) - (x | y),
    ]  # fmt: skip


def of_small(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    q, r = quotients(x, y)
    a, b = x.astype(i64), y.astype(i64)
    halved = np.clip(np.trunc((x.astype(f32) * f32(0.5)).astype(f64)), -(2**31), 2**31 - 1)
    values = [np.array(q), np.array(r), a * b + (a >> 1), np.where(a > b, a ^ b, a & b), halved]
    return [v.astype(i64).astype(x.dtype) for v in values]


def conversions(s: Survey, d: Draw) -> None:
    c = d.normal(256) * f32(3)
    kinds = (i64, f16, bf16, f64, i8, u8, i16, u32)
    s.add("casts", kernels.casts, 1, (c, *(zeros(256, kind=k) for k in kinds)), lambda: of_casts(c),
          1e-15, B=256)  # fmt: skip
    codes = np.arange(256, dtype=u8)
    for name, fp8 in (FP8 | OCP).items():
        for kind in (f32, f16, bf16):
            wide = np.dtype(kind).name
            values = codes.view(fp8)
            if name in OCP and kind is bf16:  # Triton's own code there has no NaN or infinity
                values = values[np.isfinite(values.astype(f32))]
                values = np.resize(values, 256)
            s.add(f"{name} to {wide}", kernels.fp8_to_wide, 1, (values, zeros(256, kind=kind)),
                  lambda v=values, k=kind: {1: v.astype(f32).astype(k)}, widths=(4, 1),
                  B=256)  # fmt: skip
            source = np.clip(d.normal(256) * 20, -200, 200)
            source[:64] *= f32(1e-3)
            source = source.astype(kind)
            s.add(f"{wide} to {name}", kernels.fp8_to_wide, 1, (source, zeros(256, kind=fp8)),
                  lambda v=source, k=fp8: {1: v.astype(f32).astype(k)}, widths=(4, 1),
                  B=256)  # fmt: skip
    for kind in (i8, u8, i16, u16, i32, u32, i64, u64):
        info = np.iinfo(kind)
        x = d.integers(info.min, info.max, 256, kind=kind)
        for wide in (f32, f64, f16, bf16):
            via = f32 if wide is bf16 else wide
            with np.errstate(over="ignore"):
                want = x.astype(via).astype(wide)
            s.add(f"{np.dtype(kind).name} to {np.dtype(wide).name}", kernels.fp8_to_wide, 1,
                  (x, zeros(256, kind=wide)), lambda w=want: {1: w}, widths=(4,),
                  B=256)  # fmt: skip
    out = zeros(64, kind=f64)
    s.add("numbers as arguments", kernels.scalars, 1,
          (out, f32(1.5), -7, 2**40 + 3, -2.5, i64(3), True),
          lambda: {0: (np.arange(64) * 1.5 - 7 + 2**40 + 3) * 3 - 2.5}, 1e-15, B=64)  # fmt: skip


def of_casts(c: np.ndarray) -> dict[int, np.ndarray]:
    def cut(factor: float, kind: Any) -> np.ndarray:
        return np.trunc((c * f32(factor)).astype(f64)).astype(kind)

    size = np.abs(c)
    return {
        1: cut(1e9, i64), 2: c.astype(f16), 3: c.astype(bf16), 4: c.astype(f64) * 1.1,
        5: cut(10, i8), 6: np.trunc((size * f32(10)).astype(f64)).astype(u8), 7: cut(1000, i16),
        8: np.trunc((size * f32(1e8)).astype(f64)).astype(u32),
    }  # fmt: skip


def rounding(s: Survey, d: Draw) -> None:
    a, b = d.normal(256), d.normal(256)
    # A few float32 roundings of the row's largest value.
    s.add("rounding", kernels.rounding, 1, (a, b, zeros(9, 256)), lambda: {2: of_rounding(a, b)},
          1e-6, widths=(4, 1, 2, 8, 16), B=256)  # fmt: skip
    x, y = d.normal(256).astype(bf16), d.normal(256).astype(bf16)
    s.add("bf16", kernels.bf16_math, 1, (x, y, zeros(6, 256, kind=bf16)),
          lambda: {2: of_bf16(x, y)}, 2.0**-8, widths=WIDTHS[2:], B=256)  # fmt: skip
    special = np.array(
        [
            0.0,
            -0.0,
            1,
            -1,
            np.inf,
            -np.inf,
            np.nan,
            1e-40,
            3e38,
            -2.5,
            1e-45,
            0.5,
            7,
            -7,
            100,
            -1e30,
        ],
        f32,
    )
    p, q = np.repeat(special, 16), np.tile(special, 16)
    s.add("special values", kernels.nan_inf, 1, (p, q, zeros(7, 256)),
          lambda: {2: of_special(p, q)}, 1e-6, B=256)  # fmt: skip


def of_rounding(a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    x, y = a.astype(f64), b.astype(f64)
    power = np.exp(x - x.max())
    erf = np.array([math.erf(v) for v in y])
    return [
        x / y, np.sqrt(np.abs(x)), np.clip(x, -0.5, 0.5), x * y + x, 1 / (1 + np.exp(-x)) + erf,
        1 / np.sqrt(np.abs(x)) + np.floor(y) + np.ceil(x), np.exp2(x) * np.log2(np.abs(y)),
        power / power.sum(), x / y + np.abs(y),
    ]  # fmt: skip


def of_bf16(a: np.ndarray, b: np.ndarray) -> list[np.ndarray]:
    x, y = a.astype(f32), b.astype(f32)
    difference = np.maximum(x, y) - np.minimum(x, y)
    values = [x + y, x * y, x / y, np.exp(x), difference, np.where(x < y, x, -y)]
    return [v.astype(bf16).astype(f32) for v in values]


def of_special(p: np.ndarray, q: np.ndarray) -> list[np.ndarray]:
    """In float32 where overflow and denormals matter. A clamp of NaN is Triton's lower bound."""
    a, b = p.astype(f64), q.astype(f64)
    clamped = np.where(np.isnan(a), -1, np.clip(a, -1, 1))
    values = [
        np.fmax(p, q), np.minimum(p, q), a / b, np.isnan(a) * 1.0 + np.isinf(b) * 2.0, clamped,
        np.sqrt(a) + np.exp(b), a * b + a,
    ]  # fmt: skip
    return [np.asarray(v).astype(f32) for v in values]
