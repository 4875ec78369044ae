"""What the kernels of triton_survey_combine.py must compute: reductions, scans, sorts and gathers
in every type and along each axis; atomics on one number, of every order and scope."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from tests.support import triton_survey_combine as kernels
from tests.support.survey import (
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
from tests.support.survey_blocks import FOLD, folded

WIDTHS = (4, 1, 8, 2)


def survey() -> Survey:
    """Every run of this topic."""
    return collected(reductions, scans, sorting, moving, atomics)


def whole(d: Draw, kind: Any, *shape: int) -> np.ndarray:
    """Small whole numbers of a type, so that sums are exact."""
    if np.dtype(kind).kind == "u":
        return d.integers(0, 60, *shape, kind=kind)
    return np.round(d.normal(*shape) * 8).astype(kind)


def reductions(s: Survey, d: Draw) -> None:
    shapes = [(1, 64), (4, 32), (64, 2), (128, 1), (16, 16)]
    for turn, (kind, (r, c), axis) in enumerate(
        product((f32, f16, f64, i8, u8, i16, i32, u32, i64), shapes, (0, 1))
    ):
        # Each number once: which of two equal ones comes first is open without a tie break.
        v = d.rng.permutation(r * c).reshape(r, c)
        v = (v - (0 if np.dtype(kind).kind == "u" else 128)).astype(kind)
        s.add(f"reductions {name(kind)} {r}x{c} along {axis}", kernels.reductions, 1,
              (v, np.zeros(6 * (r, c)[1 - axis])), lambda v=v, a=axis: {1: of_reductions(v, a)},
              2e-2 if kind is f16 else 1e-6, widths=(WIDTHS[turn % 4],), R=r, C=c, AXIS=axis,
              L=(r, c)[1 - axis])  # fmt: skip
    for kind in (i32, u32, i64, u8, i16):
        v = whole(d, kind, 128)
        s.add(f"bits {name(kind)}", kernels.bits, 1, (v, zeros(5, kind=i64)),
              lambda v=v: {1: of_bits(v)}, widths=(4, 1), B=128)  # fmt: skip
    x = d.normal(8, 128) * f32(3) + f32(5)
    s.add("moments", kernels.moments, 1, (x, zeros(3, 8)), lambda: {1: of_moments(x.astype(f64))},
          1e-5, R=8, C=128)  # fmt: skip


def of_reductions(v: np.ndarray, axis: int) -> np.ndarray:
    w = v.astype(f64)
    last = w.shape[axis] - 1 - np.flip(w, axis).argmin(axis)
    parts = [w.sum(axis), w.max(axis), w.min(axis), w.argmax(axis), last, w.max(axis)]
    return np.concatenate(parts)


def of_bits(v: np.ndarray) -> list[int]:
    """Sums are made in 32 bits or more, products in the type."""
    with np.errstate(over="ignore"):
        times = int(np.multiply.reduce(v, dtype=v.dtype))
    folds = (np.bitwise_xor, np.bitwise_and, np.bitwise_or)
    return [*(int(f.reduce(v)) for f in folds), int(v.sum(dtype=i64)), times]


def of_moments(w: np.ndarray) -> np.ndarray:
    top = w.max(1, keepdims=True)
    return np.stack([w.mean(1), w.var(1), np.log(np.exp(w - top).sum(1)) + top[:, 0]])


def scans(s: Survey, d: Draw) -> None:
    for turn, ((r, c), axis, back) in enumerate(
        product([(8, 64), (1, 256), (128, 4), (32, 32)], (0, 1), (False, True))
    ):
        a = d.rng.uniform(0.9, 1.1, (r, c)).astype(f32)
        b = d.normal(r, c) * f32(0.05)
        s.add(f"scans {r}x{c} along {axis} {back}", kernels.scans, 1, (a, b, zeros(5, r, c)),
              lambda a=a, b=b, x=axis, k=back: {2: of_scans(a, b, x, k)}, 3e-5,
              widths=(WIDTHS[turn % 4],), R=r, C=c, AXIS=axis, REV=back)  # fmt: skip
    for kind, c, back in product((i32, i64, u32), (64, 512), (False, True)):
        v, starts = d.integers(1, 5, c, kind=kind), (d.integers(0, 5, c) == 0).astype(kind)
        s.add(f"integer scans {name(kind)} {c} {back}", kernels.integer_scans, 1,
              (v, starts, np.zeros((4, c), kind)),
              lambda v=v, f=starts, k=back: {2: of_integer_scans(v, f, k)}, widths=(4,), C=c,
              REV=back)  # fmt: skip


def of_scans(a: np.ndarray, b: np.ndarray, axis: int, back: bool) -> np.ndarray:
    def turned(x: np.ndarray) -> np.ndarray:
        return np.flip(x, axis) if back else x

    z = turned(a.astype(f64) + 1j * b.astype(f64))
    w, products = z.real, np.cumprod(z, axis)
    parts = [w.cumsum(axis), np.maximum.accumulate(w, axis), products.real, products.imag, w]
    return np.stack([turned(part) for part in parts])


def of_integer_scans(v: np.ndarray, starts: np.ndarray, back: bool) -> np.ndarray:
    w, f = (v[::-1], starts[::-1]) if back else (v, starts)
    sums, total = [], 0
    for x, first in zip(w, f, strict=True):
        total = int(x) if first else total + int(x)
        sums.append(total)
    with np.errstate(over="ignore"):
        times = np.multiply.accumulate(w, dtype=w.dtype)
    parts = [np.cumsum(w), np.bitwise_xor.accumulate(w), times, np.array(sums)]
    return np.stack([part[::-1] if back else part for part in parts]).astype(v.dtype)


def sorting(s: Survey, d: Draw) -> None:
    for kind in (f32, f16, bf16, i8, u8, i16, u16, i32, u32, i64, u64, f64):
        for b, down in ((64, False), (256, True)):
            v = whole(d, kind, b)
            want = np.sort(v.astype(f64))
            s.add(f"sorts {name(kind)} {b}", kernels.sorts, 1, (v, np.zeros_like(v)),
                  lambda w=want[::-1] if down else want: {1: w}, widths=(4,), B=b,
                  DOWN=down)  # fmt: skip
        v = whole(d, kind, 128)
        for k in (4, 32):
            s.add(f"top {k} {name(kind)}", kernels.topk, 1, (v, np.zeros(k, kind)),
                  lambda v=v, k=k: {1: -np.sort(-v.astype(f64))[:k]}, widths=(4,), B=128,
                  K=k)  # fmt: skip
    for b, n in ((64, 16), (512, 64), (1024, 256), (256, 2)):
        v, m = d.integers(0, n, b), d.integers(0, 2, b)
        s.add(f"masked histogram {b} {n}", kernels.masked_histogram, 1, (v, m, zeros(n, kind=i32)),
              lambda v=v, m=m, n=n: {2: np.bincount(v[m != 0], minlength=n)}, B=b,
              N=n)  # fmt: skip


def moving(s: Survey, d: Draw) -> None:
    for kind, (a, b) in product((f32, f16, i8, i64, bf16), ((64, 128), (256, 64), (16, 16))):
        v, i = whole(d, kind, a), d.integers(0, a, b)
        s.add(f"gathers {name(kind)} {a} {b}", kernels.gathers, 1, (v, i, np.zeros(b, kind)),
              lambda v=v, i=i: {2: v[i]}, widths=(4,), A=a, B=b)  # fmt: skip
    for kind in (f32, f64, i32, i64):
        v = whole(d, kind, 4, 8, 16)
        s.add(f"blocks {name(kind)}", kernels.blocks, 1, (v, np.zeros(8 + 3 * 512 + 1, kind)),
              lambda v=v: {1: of_blocks(v.astype(f64))}, A=4, B=8, C=16)  # fmt: skip


def of_blocks(w: np.ndarray) -> np.ndarray:
    spread = np.broadcast_to(w.sum(1, keepdims=True), w.shape)
    return np.concatenate([
        w.sum((0, 2)), w.transpose(1, 0, 2).ravel(), (w.max(1, keepdims=True) - w).ravel(),
        [2 * w.sum()], spread.ravel(),
    ])  # fmt: skip


def atomics(s: Survey, d: Draw) -> None:
    for kind, op in product((i32, u32, i64, u64, f32, f64), ("add", "max", "min")):
        v, start = whole(d, kind, 9), whole(d, kind, 1)
        s.add(f"one atomic {op} {name(kind)}", kernels.scalar_atomics, 9, (v, start),
              lambda v=v, t=start, op=op: {1: folded(v, np.zeros(9, int), t, FOLD[op])},
              widths=(4, 1), OP=op)  # fmt: skip
    for kind in (f16, bf16):  # the last number of an odd buffer; whole numbers below 2**8 are exact
        v, start = whole(d, kind, 9), np.zeros(1, kind)
        s.add(f"one atomic add {name(kind)}", kernels.scalar_atomics, 9, (v, start),
              lambda v=v: {1: [v.astype(f64).sum()]}, widths=(4, 1), OP="add")  # fmt: skip
    for kind, order, scope in product(
        (i32, f32, f64), ("relaxed", "acquire", "release", "acq_rel"), ("cta", "gpu", "sys")
    ):
        v, start = whole(d, kind, 300), whole(d, kind, 300)
        s.add(f"atomic add {name(kind)} {order} {scope}", kernels.ordered_atomics, 3,
              (v, start, np.zeros(300, kind), 300), lambda v=v, t=start: {1: v + t, 2: t},
              widths=(4,), B=128, SEM=order, SCOPE=scope)  # fmt: skip
    x = d.normal(8, 64)
    s.add("maximum by compare and swap", kernels.float_maximum, 8,
          (x, np.full(1, -100, f32).view(i32)), lambda: {1: np.array([x.max()]).view(i32)},
          widths=(4, 1), B=64)  # fmt: skip
