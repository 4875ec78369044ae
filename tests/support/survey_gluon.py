"""What the kernels of triton_survey_gluon.py must compute: every matrix instruction that Gluon has
for gfx942 by every arrangement of waves, and what Gluon leaves to the kernel."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.amd import AMDMFMALayout

from tests.support import triton_survey_gluon as kernels
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
    i32,
    i64,
    name,
    u32,
    zeros,
)  # fmt: skip
from tests.support.survey_blocks import FOLD, folded

E4, E5 = ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz


def survey() -> Survey:
    """Every run of this topic."""
    return collected(memory, products, together)


def flat(width: int, warps: int = 4) -> gl.BlockedLayout:
    return gl.BlockedLayout([width], [64], [warps], [0])


def memory(s: Survey, d: Draw) -> None:
    x = d.normal(500)
    for width in (1, 2, 4, 8):
        s.add(f"gluon doubled {width}", kernels.doubled, -(-500 // (256 * width)),
              (x, zeros(500), 500), lambda: {1: x * 2}, widths=(4,), B=256 * width,
              L=flat(width))  # fmt: skip
    table: list[tuple[Any, str]] = [(u32, "add"), (f32, "add"), (f64, "add"), (f16, "add")]
    table += [(kind, op) for kind in (i32, i64) for op in ("and", "or", "xor")]
    signed = [(i32, "max"), (i64, "min"), (f64, "max")]  # 3.6 does not compile them
    table += [(u32, "max"), (u32, "min"), *(signed if TRITON >= (3, 9) else [])]
    for kind, op in table:
        v = d.integers(0, 50, 256).astype(kind)
        s.add(f"gluon atomic {op} {name(kind)}", kernels.atomics, 1, (v, np.zeros(16, kind)),
              lambda v=v, o=op: {1: folded(v, np.arange(256) % 16, np.zeros(16, v.dtype), FOLD[o])},
              widths=(4,), B=256, L=flat(2 if kind is f16 else 1), OP=op)  # fmt: skip
    layouts = [gl.SwizzledSharedLayout(1, 1, 1, [1, 0]), gl.SwizzledSharedLayout(4, 2, 8, [1, 0]),
               gl.PaddedSharedLayout.with_identity_for([[64, 4]], [32, 64], [1, 0])]  # fmt: skip
    for kind in (f32, f16, i8, f64):
        for turn, shared in enumerate(layouts):
            v = (d.normal(32, 64) * 9).astype(kind)
            s.add(f"gluon transposed {name(kind)} {turn}", kernels.transposed, 1,
                  (v, np.zeros((64, 32), kind)), lambda v=v: {1: v.T}, widths=(4,), M=32, N=64,
                  L=gl.BlockedLayout([1, 4], [4, 16], [4, 1], [1, 0]), S=shared,
                  T=gl.BlockedLayout([2, 1], [16, 4], [1, 4], [0, 1]))  # fmt: skip


# element, instruction, values a lane reads at once
INSTRUCTIONS: tuple[tuple[Any, list[int], int], ...] = (
    (f16, [16, 16, 16], 4), (f16, [32, 32, 8], 4), (bf16, [16, 16, 16], 4), (bf16, [32, 32, 8], 8),
    (E4, [16, 16, 32], 8), (E4, [32, 32, 16], 8), (E5, [32, 32, 16], 16), (f32, [16, 16, 4], 1),
    (f32, [32, 32, 2], 1), (i8, [16, 16, 32], 8), (i8, [32, 32, 16], 8),
)  # fmt: skip


def products(s: Survey, d: Draw) -> None:
    for kind, instruction, width in INSTRUCTIONS:
        for turned in (False, True):
            for warps in ([2, 2], [1, 4], [1, 1], [4, 2]):
                count = warps[0] * warps[1]
                layout = AMDMFMALayout(3, instruction, turned, warps)
                draw = (lambda: d.integers(-20, 20, 64, 64)) if kind is i8 else (
                    lambda: d.normal(64, 64)
                )  # fmt: skip
                a, b = draw().astype(kind), draw().astype(kind)
                # 64 products, summed in another order.
                s.add(f"gluon product {name(kind)} {instruction} {turned} {warps}",
                      kernels.product, 1, (a, b, zeros(64, 64, kind=i32 if kind is i8 else f32)),
                      lambda a=a, b=b: {2: a.astype(f64) @ b.astype(f64)}, 1e-5, widths=(count,),
                      M=64, N=64, K=64, L=gl.BlockedLayout([1, 4], [4, 16], [count, 1], [1, 0]),
                      D=layout, WIDTH=width, SA=gl.SwizzledSharedLayout(width, 2, 4, [1, 0]),
                      SB=gl.SwizzledSharedLayout(1, 1, 1, [0, 1]))  # fmt: skip


def together(s: Survey, d: Draw) -> None:
    a, b = d.normal(64, 256).astype(f16), d.normal(256, 64).astype(f16)
    layout = AMDMFMALayout(3, [32, 32, 8], True, [2, 2])
    s.add("gluon two buffers", kernels.two_buffers, 1, (a, b, zeros(64, 64), 256),
          lambda: {2: a.astype(f64) @ b.astype(f64)}, 1e-5, widths=(4,), M=64, N=64, BK=32,
          L=gl.BlockedLayout([1, 4], [8, 8], [4, 1], [1, 0]), D=layout,
          S=gl.SwizzledSharedLayout(4, 2, 4, [1, 0]))  # fmt: skip
    v = d.normal(16, 64)
    w = v.astype(f64)
    s.add("gluon sums", kernels.sums, 1, (v, zeros(144)),
          lambda: {1: np.concatenate([w.sum(1), w.max(0), w.sum(0)])}, 1e-5, widths=(4,), M=16,
          N=64, L=gl.BlockedLayout([1, 2], [4, 16], [4, 1], [1, 0]), F=flat(1))  # fmt: skip
