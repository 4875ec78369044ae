"""What the kernels of triton_survey_blocks.py must compute: blocks moved, reduced and sorted,
random bits, atomics, loops whose end depends on data, calls."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support import triton_survey_blocks as kernels
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
    u8,
    u32,
    u64,
    zeros,
)  # fmt: skip


def survey() -> Survey:
    """Every run of this topic."""
    return collected(sorting, reducing, moving, drawing, atomics, control)


def typed(d: Draw, kind: Any, *shape: int) -> np.ndarray:
    if np.dtype(kind).kind == "u":
        return d.integers(0, 200, *shape, kind=kind)
    return (d.normal(*shape) * 50).astype(kind)


def sorting(s: Survey, d: Draw) -> None:
    for kind in (f32, f16, bf16, i8, u8, i16, i32, i64, f64, u32):
        v = typed(d, kind, 4, 64)
        s.add(f"sort {v.dtype.name}", kernels.sorts, 1, (v, np.zeros_like(v)),
              lambda v=v: {1: np.sort(v.astype(f64), 1)}, B=64, R=4)  # fmt: skip
    x = d.normal(4, 128)
    s.add("top 8", kernels.topk, 1, (x, zeros(4, 8)), lambda: {1: -np.sort(-x, 1)[:, :8]},
          B=128, R=4, K=8)  # fmt: skip
    h = d.integers(0, 32, 512)
    counts = [np.bincount(part, minlength=32) for part in (h, h[:300])]
    s.add("histogram", kernels.histogram, 1, (h, zeros(64, kind=i32), 300),
          lambda: {1: np.concatenate(counts)}, B=512, BINS=32)  # fmt: skip
    keys = d.integers(-1000, 1000, 256)
    s.add("sort of pairs", kernels.bitonic_i64, 1, (keys, zeros(256, kind=i64)),
          lambda: {1: np.lexsort((np.arange(256), keys))[::-1]}, B=256)  # fmt: skip


def reducing(s: Survey, d: Draw) -> None:
    for reverse in (False, True):
        a, b = d.rng.uniform(0.5, 1, (4, 128)).astype(f32), d.normal(4, 128)
        s.add(f"linear scan {reverse}", kernels.linear_scan, 1, (a, b, zeros(4, 128)),
              lambda a=a, b=b, r=reverse: {2: recurrence(a, b, r)}, 1e-5,
              B=128, R=4, REV=reverse)  # fmt: skip
    for kind in (i32, f32):
        v = d.integers(0, 5, 8, 64).astype(kind)
        parts = [v.argmax(1), v.argmin(1), v.argmax(1), v.argmin(0)]
        s.add(f"ties {v.dtype.name}", kernels.arg_ties, 1, (v, zeros(88, kind=i32)),
              lambda p=parts: {1: np.concatenate(p)}, B=64, R=8)  # fmt: skip
    x = d.normal(3, 5, 11)
    s.add("three dimensions", kernels.reduce3d, 1, (x, zeros(3, 11), 4, 8, 16, 3, 5, 11),
          lambda: {1: x.astype(f64).sum(1)}, 1e-6)  # fmt: skip
    y = d.rng.uniform(0.9, 1.1, (8, 64)).astype(f32)
    wide = y.astype(f64)
    parts = [wide.cumsum(0), wide.cumprod(1), wide[:, ::-1].cumsum(1)[:, ::-1]]
    s.add("running sums", kernels.cumulative, 1, (y, zeros(3, 8, 64)),
          lambda: {1: np.stack(parts)}, 1e-5, R=8, B=64)  # fmt: skip
    z = np.round(d.normal(16, 64) * 3)
    s.add("a reduction of its own", kernels.custom_reduce, 1, (z, zeros(16), zeros(16, kind=i32)),
          lambda: {1: z.max(1), 2: z.argmax(1)}, R=16, B=64)  # fmt: skip


def recurrence(a: np.ndarray, b: np.ndarray, reverse: bool) -> np.ndarray:
    out, state = np.zeros(a.shape), np.zeros(len(a))
    order = range(a.shape[1])
    for t in reversed(order) if reverse else order:
        state = a[:, t].astype(f64) * state + b[:, t]
        out[:, t] = state
    return out


def moving(s: Survey, d: Draw) -> None:
    x = d.normal(4, 8, 16)
    s.add("permute", kernels.permute3d, 1, (x, zeros(16, 4, 8)),
          lambda: {1: x.transpose(2, 0, 1)}, A=4, B=8, C=16)  # fmt: skip
    for kind in (f32, f16, i8, i64):
        a, b = (d.normal(2, 64) * 9).astype(kind)
        two, fours = np.dtype(kind).type(2), a.reshape(16, 4).T.ravel()
        woven = np.stack([a, b], 1).ravel()
        parts = [a * two - b * two, woven, a[::-1], fours]
        s.add(f"join and split {a.dtype.name}", kernels.join_split, 1,
              (a, b, zeros(320, kind=kind)),
              lambda p=parts: {2: np.concatenate(p)}, widths=(4, 1), B=64)  # fmt: skip
    v, i = d.normal(4, 64), d.integers(0, 64, 4, 32)
    j = d.integers(0, 4, 8, 64)
    s.add("gather along rows", kernels.gathers, 1, (v, i, zeros(4, 32)),
          lambda: {2: np.take_along_axis(v, i, 1)}, R=4, B=64, C=32)  # fmt: skip
    s.add("gather along columns", kernels.gathers0, 1, (v, j, zeros(8, 64)),
          lambda: {2: np.take_along_axis(v, j, 0)}, widths=(4, 1, 2),
          R=4, B=64, C=8)  # fmt: skip
    for kind in (f32, f16, i8, f64):
        m = typed(d, kind, 50, 70)
        s.add(f"transpose {m.dtype.name}", kernels.transpose_tile, (2, 3),
              (m, zeros(70, 50, kind=kind), 50, 70), lambda m=m: {1: m.T}, B=32)  # fmt: skip
    mask, t = d.rng.random(128) < 0.5, d.normal(128)
    s.add("booleans", kernels.bools, 1, (t, mask, zeros(128), zeros(128, kind=np.bool_)),
          lambda: {2: np.where(mask, t, -t), 3: (t > 0) & mask}, B=128)  # fmt: skip
    u = d.normal(200)
    s.add("cache modifiers", kernels.modifiers, 2, (u, zeros(200), 200), lambda: {1: u * 2}, B=128)
    g = d.normal(60 * 64)
    places = np.add.outer(np.add.outer(np.arange(3), 10 * np.arange(4)), 100 * np.arange(5))
    s.add("a grid of three", kernels.grid3, (3, 4, 5), (g, zeros(3840), 3, 4, 5),
          lambda: {1: g * np.repeat(places.ravel(), 64)}, 1e-7, B=64)  # fmt: skip


def philox(seed: int, counter: np.ndarray) -> list[np.ndarray]:
    """Four words of Philox 4x32-10, from the published rounds."""
    c = [counter.astype(u64), *(np.zeros(len(counter), u64) for _ in range(3))]
    low, keys = u64(0xFFFFFFFF), [seed & 0xFFFFFFFF, seed >> 32]
    for _ in range(10):
        p, q = c[0] * u64(0xD2511F53), c[2] * u64(0xCD9E8D57)
        first, third = (q >> u64(32)) ^ c[1] ^ u64(keys[0]), (p >> u64(32)) ^ c[3] ^ u64(keys[1])
        c = [first, q & low, third, p & low]
        keys = [(keys[0] + 0x9E3779B9) & 0xFFFFFFFF, (keys[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return [word.astype(u32) for word in c]


def uniform(word: np.ndarray) -> np.ndarray:
    """tl.rand of random words."""
    signed = word.view(i32).astype(i64)
    size = np.where(signed < 0, -signed - 1, signed)
    return (size.astype(f32) * f32(4.6566127342e-10)).astype(f64)


def drawing(s: Survey, d: Draw) -> None:
    def floats() -> np.ndarray:
        u = [uniform(word) for word in philox(1234, np.arange(512))]
        radius = np.sqrt(-2 * np.log(np.maximum(u[0], 1e-7)))
        return np.concatenate([u[0], radius * np.cos(2 * np.pi * u[1]), sum(u)])

    s.add("random numbers", kernels.philox, 4, (zeros(1536), 1234), lambda: {0: floats()}, 1e-5,
          widths=(4, 1), B=128)  # fmt: skip
    seed = 987654321012
    s.add("random words", kernels.philox_int, 1, (zeros(512, kind=i32), seed),
          lambda: {0: np.concatenate([w.view(i32) for w in philox(seed, np.arange(128))])},
          B=128)  # fmt: skip


FOLD = {
    "add": np.add, "max": np.maximum, "min": np.minimum, "and": np.bitwise_and,
    "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip


def atomics(s: Survey, d: Draw) -> None:
    exact = [(kind, name, 0.0) for kind in (i32, u32, i64, u64) for name in FOLD]
    # Sums of about 19 numbers of 20 in another order: a few ulps of the type each.
    sums = [(f32, "add", 1e-6), (f64, "add", 1e-14), (f16, "add", 1e-2), (bf16, "add", 5e-2)]
    extremes = [(kind, name, 0.0) for kind in (f32, f64) for name in ("max", "min")]
    for kind, name, error in exact + sums + extremes:
        v, i = typed(d, kind, 300), d.integers(0, 16, 300)
        start = typed(d, kind, 16)
        s.add(f"atomic {name} {v.dtype.name}", kernels.atomics, 3,
              (v, i, start, np.zeros(300, kind), 300),
              lambda v=v, i=i, t=start, n=name: {2: folded(v, i, t, FOLD[n])}, error,
              widths=(4, 1), B=128, OP=name)  # fmt: skip
    turned = d.rng.permutation(300).astype(i32)
    for kind in (i32, i64, f32) if TRITON >= (3, 9) else ():  # 3.6 does not compile it
        before = d.integers(0, 99, 300).astype(kind)
        s.add(f"exchange {np.dtype(kind).name}", kernels.atomics, 3,
              (np.arange(300).astype(kind), turned, before, zeros(300, kind=kind), 300),
              lambda b=before: {2: np.argsort(turned), 3: b[turned]}, widths=(4, 1),
              B=128, OP="xchg")  # fmt: skip
    for kind in (i32, i64):
        compare, new, old = (d.integers(*r, 128, kind=kind) for r in ((0, 3), (10, 20), (0, 3)))
        s.add(f"compare and swap {np.dtype(kind).name}", kernels.cas_each, 1,
              (old, zeros(128, kind=kind), compare, new),
              lambda c=compare, n=new, o=old: {0: np.where(o == c, n, o), 1: o}, B=128)  # fmt: skip


def folded(v: np.ndarray, i: np.ndarray, start: np.ndarray, fold: np.ufunc) -> np.ndarray:
    out = start.astype(f64) if start.dtype.kind in "fV" else start.copy()
    fold.at(out, i, v.astype(out.dtype))
    return out


def control(s: Survey, d: Draw) -> None:
    x = d.rng.uniform(0.1, 1e4, 128).astype(f32)
    s.add("newton", kernels.newton, 1, (x, zeros(128), zeros(1, kind=i32)),
          lambda: {1: np.sqrt(x.astype(f64))}, 1e-3, widths=(4, 1), B=128)  # fmt: skip
    a, b = d.integers(1, 10_000, 256), d.integers(1, 10_000, 256)
    s.add("greatest common divisor", kernels.gcd, 2, (a, b, zeros(256, kind=i32)),
          lambda: {2: np.gcd(a, b)}, widths=(4, 1), B=128)  # fmt: skip
    p, q = d.integers(0, 2**31 - 1, 128), d.integers(0, 2**31 - 1, 128)
    high = [int(m) * int(n) >> 32 for m, n in zip(p, q, strict=True)]
    turned = [int(f"{word:032b}"[::-1], 2) for word in high]
    want = np.concatenate([(p.astype(i64) + q), np.array(turned)]).astype(u32).view(i32)
    s.add("inline assembly", kernels.inline_asm, 1, (p, q, zeros(256, kind=i32)),
          lambda: {2: want}, B=128)  # fmt: skip
    f = d.normal(128)
    s.add("unrolled", kernels.static_unroll, 1, (f, zeros(128)), lambda: {1: unrolled(f)}, 1e-6,
          B=128)  # fmt: skip
    g = d.normal(4)
    s.add("functions that are called", kernels.noinline, 4, (g, zeros(4), 3),
          lambda: {1: [called(v, 3) + called(f32(v + f32(1)), 4) for v in g]}, 1e-6,
          B=64)  # fmt: skip
    h = d.normal(4, 128)
    s.add("a call that stores", kernels.noinline2, 4, (h, zeros(4)),
          lambda: {1: h.astype(f64).sum(1)}, 1e-6, B=128)  # fmt: skip


def unrolled(f: np.ndarray) -> np.ndarray:
    v = f.astype(f64)
    for k in range(5):
        v = v * 1.5 - k
        v = -v if k == 2 else v
    return v


def called(a: float, n: int) -> float:
    state = float(a) * 0.5
    for k in range(n):
        state = state * float(a) + k
    return state
