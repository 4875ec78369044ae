"""What the kernels of triton_survey_programs.py must compute: matrix products of every type and odd
sizes, attention, and programs of more than one idea."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import torch

from tests.support import triton_survey_programs as kernels
from tests.support.survey import (
    TRITON,
    WIDTHS,
    Draw,
    Survey,
    bf16,
    collected,
    f16,
    f32,
    f64,
    i8,
    i32,
    i64,
    u8,
    zeros,
)  # fmt: skip
from tests.support.survey_blocks import philox, uniform

E4, E5 = ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz
OCP4, OCP5 = ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
SUM = 1e-5
"""float32 sums of up to 256 products in another order, as a share of the row's largest."""


def survey() -> Survey:
    """Every run of this topic."""
    return collected(products, scaled_products, masked, attention, together, rows, arguments)


def wide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(f64) @ b.astype(f64)


def products(s: Survey, d: Draw) -> None:
    # name, types, rows x columns x K / a step of K, precision, error, num_warps, num_stages
    table: list[tuple[Any, ...]] = [
        (f16, f16, f32, (16, 16, 64, 16), "ieee", SUM, WIDTHS, (2,)),
        (f16, f16, f32, (64, 32, 128, 32), "ieee", SUM, (4, 1), (2, 1, 3, 4)),
        (f16, f16, f16, (32, 32, 32, 32), "ieee", 2e-2, (4, 1), (2,)),  # a float16 accumulator
        (bf16, bf16, f32, (16, 64, 64, 32), "ieee", SUM, WIDTHS, (2,)),
        (bf16, bf16, f32, (128, 64, 64, 32), "ieee", SUM, (4, 8), (2,)),
        (E4, E4, f32, (32, 32, 128, 64), "ieee", SUM, (4, 1, 2, 8), (2,)),
        (E5, E5, f32, (32, 32, 64, 32), "ieee", SUM, (4, 1), (2,)),
        (OCP4, OCP4, f32, (32, 32, 64, 64), "ieee", SUM, (4, 1), (2,)),
        (OCP5, OCP5, f32, (32, 32, 64, 64), "ieee", SUM, (4, 1), (2,)),
        (i8, i8, i32, (32, 32, 128, 32), "ieee", 0.0, (4, 1), (2,)),
        (f32, f32, f32, (32, 32, 32, 16), "ieee", SUM, (4, 1), (2,)),
        (f32, f32, f32, (32, 64, 32, 32), "tf32", 2.0**-9, (4, 1), (2,)),  # 10 mantissa bits
        (f64, f64, f64, (16, 16, 32, 16), "ieee", 1e-14, (4, 1), (2,)),
        (f16, f16, f32, (4, 16, 32, 32), "ieee", SUM, (4, 1), (2,)),
        (f16, f16, f32, (8, 8, 16, 16), "ieee", SUM, (4, 1), (2,)),
        (f32, f32, f32, (2, 4, 16, 16), "ieee", SUM, (4, 1), (2,)),
        (bf16, bf16, f32, (1, 32, 32, 32), "ieee", SUM, (2, 1), (2,)),
        (i8, i8, i32, (4, 8, 32, 32), "ieee", 0.0, (4, 1), (2,)),
        # Four rows or columns against sixty-four: one block of A for all sixteen blocks of B.
        (f16, f16, f32, (4, 64, 128, 64), "ieee", SUM, (1, 4, 2), (2,)),
        (bf16, bf16, f32, (64, 4, 64, 64), "ieee", SUM, (1, 4, 2), (2,)),
        (i8, i8, i32, (8, 128, 128, 64), "ieee", 0.0, (1, 4, 2), (2,)),
    ]
    if TRITON >= (3, 9):  # 3.6 swaps the operands of mixed products, not their types
        table += [(E4, E5, f32, (64, 16, 128, 128), "ieee", SUM, (4, 1), (2,)),
                  (E5, E4, f32, (16, 16, 64, 64), "ieee", SUM, (4, 1), (2,))]  # fmt: skip
    for a, b, out, (m, n, k, step), precision, error, widths, stages in table:
        whole = np.dtype(a).kind == "i"
        x = d.integers(-128, 128, m, k, kind=a) if whole else d.normal(m, k).astype(a)
        y = d.integers(-128, 128, k, n, kind=b) if whole else d.normal(k, n).astype(b)
        name = f"dot {x.dtype.name} {y.dtype.name} {np.dtype(out).name} {m}x{n}x{k} {precision}"
        s.add(name, kernels.dot_tiles, 1, (x, y, zeros(m, n, kind=out)),
              lambda x=x, y=y: {2: wide(x, y)}, error, widths=widths, stages=stages,
              M=m, N=n, K=k, BK=step, P=precision)  # fmt: skip
    x, y = d.normal(32, 64).astype(f16), d.normal(64, 64).astype(f16)
    s.add("dot of a transpose", kernels.dot_transposed, 1, (x, y, zeros(32, 64)),
          lambda: {2: wide(x, y.T)}, SUM, M=32, N=64, K=64)  # fmt: skip
    p, q, r = (d.normal(32, 32).astype(f16) for _ in range(3))
    # Two intermediate roundings to float16.
    s.add("three dots", kernels.f16_dot_chain, 1, (p, q, r, zeros(32, 32)),
          lambda: {3: wide(wide(wide(p, q), r.T).T, p)}, 5e-3, M=32)  # fmt: skip


def unpacked(codes: np.ndarray, axis: int) -> np.ndarray:
    """Two FP4 values a byte, the low nibble first."""
    both = np.stack([FP4[codes & 15], FP4[codes >> 4]], axis + 1)
    return both.reshape([2 * n if k == axis else n for k, n in enumerate(codes.shape)])


def scaled_products(s: Survey, d: Draw) -> None:
    plain = {"e4m3": OCP4, "e5m2": OCP5, "bf16": bf16, "fp16": f16}
    table = [("bf16", "e2m1", 32, 32, 128), ("fp16", "e2m1", 32, 32, 64)]
    if TRITON >= (3, 9):  # 3.6 does not compile a scale on both sides for gfx942
        table += [("e2m1", "e2m1", 32, 32, 128), ("e4m3", "e2m1", 32, 64, 64),
                  ("e5m2", "e4m3", 64, 32, 128)]  # fmt: skip

    def side(form: str, shape: tuple[int, int], axis: int) -> tuple[np.ndarray, np.ndarray, int]:
        """(argument, its values, values an element)."""
        if form == "e2m1":
            codes = d.integers(0, 256, *(n // 2 if k == axis else n for k, n in enumerate(shape)))
            return codes.astype(u8), unpacked(codes, axis), 2
        values = d.normal(*shape).astype(plain[form])
        return values, values.astype(f64), 1

    for left, right, m, n, k in table:
        (x, xv, px), (y, yv, py) = side(left, (m, k), 1), side(right, (k, n), 0)
        sx, sy = (d.integers(120, 134, rows, k // 32, kind=u8) for rows in (m, n))
        has = left not in ("bf16", "fp16")
        xv = xv * np.exp2(np.repeat(sx, 32, 1) - 127.0) if has else xv
        yv = yv * np.exp2(np.repeat(sy, 32, 1) - 127.0).T
        # Scaled factors are rounded to bf16.
        s.add(f"scaled dot {left} {right}", kernels.dot_scaled, 1, (x, sx, y, sy, zeros(m, n)),
              lambda x=xv, y=yv: {4: x @ y}, 1e-2, widths=(4, 1), M=m, N=n, K=k, FA=left,
              FB=right, PA=px, PB=py, HASA=has)  # fmt: skip


def masked(s: Survey, d: Draw) -> None:
    for kind, m, n, k in ((f16, 100, 70, 90), (bf16, 33, 65, 129), (E4, 50, 50, 100)):
        x, y, c = d.normal(m, k).astype(kind), d.normal(k, n).astype(kind), d.normal(n)

        def want(x: np.ndarray = x, y: np.ndarray = y, c: np.ndarray = c) -> dict[int, Any]:
            r = wide(x, y)
            return {3: np.where(r >= 0, r, 0.01 * r) + c}

        grid = (-(-m // 32)) * (-(-n // 32))
        s.add(f"masked dot {x.dtype.name}", kernels.dot_masked, grid,
              (x, y, c, zeros(m, n, kind=f16), m, n, k), want, 2e-3, stages=(2, 1, 3),
              BM=32, BN=32, BK=32, GROUP=2)  # fmt: skip
    x, y = d.normal(70, 64).astype(bf16), d.normal(64, 90).astype(bf16)
    s.add("persistent", kernels.persistent, 3, (x, y, zeros(70, 90, kind=bf16), 70, 90),
          lambda: {2: wide(x, y)}, 2.0**-7, stages=(2, 1, 3), K=64, BM=32, BN=32)  # fmt: skip
    sizes = np.array([20, 0, 45, 7], i32)
    a, b = d.normal(72, 32).astype(f16), d.normal(4, 32, 32).astype(f16)
    each = b.astype(f64)[np.repeat(np.arange(4), sizes)]
    s.add("groups", kernels.grouped_gemm, 3, (a, b, zeros(72, 32), sizes),
          lambda: {2: np.einsum("mk,mkn->mn", a.astype(f64), each)}, SUM,
          G=4, N=32, K=32, BM=16)  # fmt: skip
    c, codes = d.normal(16, 64).astype(f16), d.integers(0, 256, 32, 32).astype(u8)
    scale = d.rng.uniform(0.5, 1, 32).astype(f32)
    weight = np.stack([(codes & 15) - 8.0, (codes >> 4) - 8.0], 1).reshape(64, 32)
    weight = weight * scale.astype(f16)
    s.add("four bits", kernels.w4a16, 1, (c, codes, scale, zeros(16, 32)),
          lambda: {3: wide(c, weight)}, 2e-3, M=16, N=32, K=64)  # fmt: skip


def attention(s: Survey, d: Draw) -> None:
    for kind, causal, length, width in ((f16, True, 70, 64), (bf16, False, 100, 32)):
        q, k, v = (d.normal(2, length, width).astype(kind) for _ in range(3))

        def want(q: Any = q, k: Any = k, v: Any = v, causal: bool = causal) -> dict[int, Any]:
            score = wide(q, k.transpose(0, 2, 1)) * q.shape[-1] ** -0.5
            below = np.tril(np.ones(score.shape[1:], bool))
            score = np.where(below, score, -np.inf) if causal else score
            power = np.exp(score - score.max(-1, keepdims=True))
            return {3: wide(power / power.sum(-1, keepdims=True), v)}

        # Probabilities are rounded to the type of the values.
        s.add(f"attention {q.dtype.name}", kernels.attention, (-(-length // 32), 2),
              (q, k, v, zeros(2, length, width), length, width**-0.5), want, 1e-2,
              stages=(2, 1, 3), BM=32, BN=32, D=width, CAUSAL=causal)  # fmt: skip


def together(s: Survey, d: Draw) -> None:
    """Workgroups that meet in memory."""
    x, y = d.normal(16, 256).astype(f16), d.normal(256, 32).astype(f16)
    s.add("split K", kernels.split_k, 8, (x, y, zeros(16, 32)), lambda: {2: wide(x, y)}, SUM,
          widths=(4, 1), M=16, N=32, K=256, SK=8)  # fmt: skip
    a, b = d.normal(32, 256).astype(f16), d.normal(256, 32).astype(f16)
    s.add("stream K", kernels.stream_k, 4,
          (a, b, zeros(32, 32), zeros(4, 32, 32), zeros(4, kind=i32)),
          lambda: {2: wide(a, b)}, SUM, M=32, N=32, K=256, S=4)  # fmt: skip
    v = d.normal(1000)
    lock, count = zeros(1, kind=i32), zeros(1, kind=i32)
    s.add("a lock", kernels.lock_sum, 8, (v, lock, zeros(1), count, 1000),
          lambda: {2: [v.astype(f64).sum()], 3: [8]}, 1e-5, B=128)  # fmt: skip


def rows(s: Survey, d: Draw) -> None:
    """One program a row."""
    code = d.integers(0, 16, 1024, kind=u8)
    s.add("fp4 to bfloat16 by bits", kernels.fp4_to_bf16, 1, (code, zeros(1024, kind=bf16)),
          lambda: {1: FP4[code]}, 0.0, B=1024)  # fmt: skip
    for n in (16, 32, 64):
        a, b, e = d.normal(n, 32).astype(f16), d.normal(32, n).astype(f16), d.normal(n)
        p = (wide(a, b) - e[:, None]) * 0.3
        s.add(f"both sums {n}", kernels.both_sums, 1, (a, b, e, zeros(n), 0.3),
              lambda p=p: {3: p.sum(1) - p.sum(0)}, SUM, N=n, K=32)  # fmt: skip
    x, c, n = d.normal(6, 64).astype(bf16), d.normal(6, 32), d.normal(6, 32)
    even, odd = x.astype(f64)[:, ::2], x.astype(f64)[:, 1::2]
    turned = np.stack([even * c - odd * n, even * n + odd * c], -1).reshape(6, 64)
    s.add("rotary", kernels.rope, 6, (x, c, n, zeros(6, 64, kind=bf16)), lambda: {3: turned},
          2.0**-8, D=64)  # fmt: skip
    u = d.normal(1000)
    kept = uniform(philox(77, np.arange(1000))[0]) > f32(0.3)
    s.add("dropout", kernels.dropout, 8, (u, zeros(1000), 1000, 0.3, 77),
          lambda: {1: np.where(kept, u / f32(0.7), 0)}, 1e-6, B=128)  # fmt: skip
    v = d.normal(5, 100)
    step = np.abs(v).max(1) / f32(127)
    s.add("quantised rows", kernels.quant_row, 5, (v, zeros(5, 100, kind=i8), zeros(5), 100),
          lambda: {1: np.rint(v / step[:, None]).astype(i8), 2: step}, 1e-7, B=128)  # fmt: skip
    s.add("layer norm backwards", kernels.layernorm_bwd, 6, *norm_gradient(d), N=100, B=128)
    logits, target = (d.normal(5, 1000) * 3).astype(bf16), d.integers(0, 1000, 5, kind=i64)
    z = logits.astype(f64)
    loss = np.log(np.exp(z).sum(1)) - z[np.arange(5), target]
    s.add("cross entropy", kernels.cross_entropy, 5, (logits, target, zeros(5), 1000),
          lambda: {2: loss}, 1e-5, B=256)  # fmt: skip
    signal, taps = d.normal(3, 200), d.normal(3, 5)
    y = np.stack([np.convolve(np.pad(a.astype(f64), 2), t[::-1], "valid")
                  for a, t in zip(signal, taps, strict=True)])  # fmt: skip
    s.add("convolution", kernels.conv1d, (3, 4), (signal, taps, zeros(3, 200), 3, 200),
          lambda: {2: y / (1 + np.exp(-y))}, 1e-5, KW=5, B=64)  # fmt: skip
    w = d.normal(50, 64)
    best = np.argsort(-w, 1)[:, :4]
    s.add("top 4 of 64", kernels.top1_route, 2, (w, zeros(50, 4), zeros(50, 4, kind=i32), 50),
          lambda: {1: np.take_along_axis(w, best, 1), 2: best}, E=64, B=32)  # fmt: skip


def norm_gradient(d: Draw) -> tuple[tuple[Any, ...], Any, float]:
    """(arguments, results, error) of layernorm_bwd."""
    x, dy, w = d.normal(6, 100), d.normal(6, 100), d.normal(100)
    mean, scale = x.mean(1, keepdims=True), 1 / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    unit, wdy = ((x - mean) * scale).astype(f64), (w * dy).astype(f64)
    shift = unit * (unit * wdy).mean(1, keepdims=True) + wdy.mean(1, keepdims=True)
    args = (x, dy, w, mean.ravel(), scale.ravel().astype(f32), zeros(6, 100), zeros(100))
    return args, lambda: {5: (wdy - shift) * scale, 6: (dy * unit).sum(0)}, 1e-5


def arguments(s: Survey, d: Draw) -> None:
    """Ways to pass arguments."""
    x = d.normal(500)
    for n, factor in ((384, 2), (500, 3)):
        s.add(f"tuned {n}", kernels.tuned, lambda m: (-(-m["n"] // m["B"]),),
              (x[:n].copy(), zeros(n), n), lambda n=n, f=factor: {1: x[:n] * f},
              widths=(4,))  # fmt: skip
    parts = tuple(d.normal(n) for n in (128, 100, 64))
    total = sum(np.pad(p.astype(f64), (0, 128 - len(p))) for p in parts)
    s.add("a tuple of arrays", kernels.tuples, 1, (parts, (128, 100, 64), zeros(128)),
          lambda: {2: total}, 1e-6, B=128)  # fmt: skip
    b = d.normal(64)
    s.add("an absent array", kernels.none_arg, 1, (b, None, zeros(64)), lambda: {2: b}, B=64)
    s.add("a present array", kernels.none_arg, 1, (b, b, zeros(64)), lambda: {2: b + b}, B=64)


def descriptors() -> tuple[tuple[Any, ...], torch.Tensor, torch.Tensor]:
    """(arguments of host_desc, its output, what must stand there)."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    d = Draw("descriptors")
    a, b = (torch.from_numpy(d.normal(*shape).astype(f16)) for shape in ((70, 64), (64, 48)))
    out = torch.zeros(70, 48)
    described = [TensorDescriptor.from_tensor(t, [32, 32]) for t in (a, b, out)]
    return (*described, 70, 48, 64), out, a.double() @ b.double()
