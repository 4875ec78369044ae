"""The kernels of triton_fresh.py with arguments, and their results in Triton's interpreter.

    python -m tests.support.fresh_runs FILE

writes what the interpreter computes to a .npz; it is a process of its own because the interpreter
is chosen when triton is first imported. `interpreted` starts it, once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True)
class Fresh:
    """One run. kernel: of triton_fresh.py; outputs: which arguments are compared; error: the
    largest difference as a share of the largest value, 0 for equal bits."""

    kernel: str
    grid: tuple[int, ...]
    args: tuple[Any, ...]
    outputs: tuple[int, ...]
    constexprs: dict[str, Any] = field(default_factory=dict)
    error: float = 0.0


class Draw:
    """Random arrays, the same in every process."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(5)

    def f(self, *shape: int, kind: Any = np.float32) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(kind)

    def i(self, low: int, high: int, *shape: int, kind: Any = np.int32) -> np.ndarray:
        return self.rng.integers(low, high, shape).astype(kind)

    def long(self, low: int, high: int) -> np.ndarray:
        return self.i(low, high, 256, kind=np.int64)


def zeros(*shape: int, kind: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, kind)


def runs() -> dict[str, Fresh]:
    """Every run by name."""
    d = Draw()
    return float_runs(d) | matrix_runs(d) | integer_runs(d) | typed_runs(d)


def float_runs(d: Draw) -> dict[str, Fresh]:
    f, z, half, double, b = d.f, zeros, np.float16, np.float64, {"B": 256}
    nan, other = f(256), f(256)
    nan[::7], other[::5], other[3] = np.nan, np.nan, np.inf
    halves = f(512, kind=half), f(512, kind=half), z(512, kind=half)
    doubles = f(256, kind=double), f(256, kind=double), z(256, kind=double)
    permutation = d.rng.permutation(256)
    return {
        # Sums in another order: a few ulps.
        "layer_norm": Fresh("layer_norm", (3,), (f(3, 200), z(3, 200), 200), (1,), b, 1e-6),
        "scans": Fresh("scans", (1,), (f(256), z(768)), (1,), b, 1e-6),
        "reductions": Fresh("reductions", (1,), (f(16, 128), z(192)), (1,), {"B": 128}, 1e-6),
        # Products fused here and rounded twice there: two half-ulps of the format.
        "half_math": Fresh("half_math", (1,), halves, (2,), {"B": 512}, 2.0**-9),
        "double_math": Fresh("double_math", (1,), doubles, (2,), b, 2.0**-51),
        "shuffles": Fresh("shuffles", (1,), (f(128), z(256)), (1,), {"B": 128}),
        "nan_rules": Fresh("nan_rules", (1,), (nan, other, z(512)), (2,), b),
        "gather_scatter": Fresh("gather_scatter", (1,), (f(256), permutation, z(256)), (2,), b),
    }


def matrix_runs(d: Draw) -> dict[str, Fresh]:
    f, z, half, double = d.f, zeros, np.float16, np.float64
    codes = d.i(-(2**31), 2**31 - 1, 8, 32)
    int4 = f(32, 64, kind=half), codes, f(32, kind=half), z(32, 32)
    batch = f(4, 16, 16, kind=half), f(4, 16, 16, kind=half), z(4, 16, 16)
    left, right = (d.i(-128, 128, *shape, kind=np.int8) for shape in ((64, 128), (128, 32)))
    single = f(32, 64), f(64, 32), z(32, 32)
    doubles = tuple(a.astype(double) for a in single)
    found = {
        # float32 sums of exact products, in another order.
        "int4_matmul": Fresh("int4_matmul", (1,), int4, (3,), {"K": 64}, 2e-6),
        "batched_dot": Fresh("batched_dot", (1,), batch, (2,), {}, 2e-6),
        "byte_matmul": Fresh(
            "byte_matmul", (1,), (left, right, f(32), z(64, 32)), (3,), {"K": 128}
        ),
    }
    # xf32 keeps 10 mantissa bits of each factor; the others differ in the order of the sum.
    for name, args, precision, error in (
        ("xf32", single, "tf32", 2.0**-9),
        ("f32", single, "ieee", 2e-6),
        ("f64", doubles, "ieee", 2.0**-48),
    ):
        constexprs = {"K": 64, "PRECISION": precision}
        found[f"float_matmul {name}"] = Fresh("float_matmul", (1,), args, (2,), constexprs, error)
    return found


def integer_runs(d: Draw) -> dict[str, Fresh]:
    i, z, b = d.i, zeros, {"B": 256}
    words = i(-(2**31), 2**31 - 1, 256), z(768, kind=np.int32)
    longs = d.long(-(2**40), 2**40), d.long(1, 2**35), z(256, kind=np.int64)
    atomics = i(0, 1000, 128), i(0, 16, 128), i(0, 50, 96)
    steps = i(1, 300, 128), z(128, kind=np.int32)
    return {
        "bit_tricks": Fresh("bit_tricks", (1,), words, (1,), b),
        "long_integers": Fresh("long_integers", (1,), longs, (2,), b),
        "integer_atomics": Fresh("integer_atomics", (1,), atomics, (2,)),
        "random_walk": Fresh("random_walk", (3,), (z(384, kind=np.int32), 77), (0,), {"B": 128}),
        "collatz": Fresh("collatz", (1,), steps, (1,), {"B": 128}),
    }


def typed_runs(d: Draw) -> dict[str, Fresh]:
    """The same kernel in several types."""
    found, b = {}, {"B": 256}
    for kind, bits in ((np.int8, 7), (np.int16, 15), (np.int64, 62)):
        low, high = -(2**bits), 2**bits
        args = (*(d.i(low, high, 256, kind=kind) for _ in range(2)), zeros(256, kind=kind))
        found[f"narrow_integers {args[0].dtype}"] = Fresh("narrow_integers", (1,), args, (2,), b)
    for kind, high in ((np.uint32, 2**32), (np.uint8, 256)):
        args = (d.i(0, high, 256, kind=kind), d.i(1, 100, 256, kind=kind), zeros(256, kind=kind))
        name = f"unsigned_division {args[0].dtype}"
        found[name] = Fresh("unsigned_division", (1,), args, (2,), b)
    for kind in (np.float32, np.int16, np.float16):
        values = (d.f(4, 64) * 100).astype(kind)
        args = (values, np.zeros_like(values))
        found[f"sort_rows {values.dtype}"] = Fresh("sort_rows", (1,), args, (1,), {"B": 64})
    return found


@cache
def interpreted() -> dict[str, list[np.ndarray]]:
    """What the interpreter computes: by run, the outputs in order."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.npz"
        command = [sys.executable, "-m", "tests.support.fresh_runs", str(path)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with np.load(path) as found:
            return {
                name: [found[f"{name}/{k}"] for k in range(len(run.outputs))]
                for name, run in runs().items()
            }


def main(path: str) -> None:
    """Interpret every run and save the outputs."""
    import torch

    from tests.support import triton_fresh

    results = {}
    for name, run in runs().items():
        args = [torch.from_numpy(a) if isinstance(a, np.ndarray) else a for a in run.args]
        getattr(triton_fresh, run.kernel)[run.grid](*args, **run.constexprs)
        for k, place in enumerate(run.outputs):
            results[f"{name}/{k}"] = args[place].numpy()
    np.savez(path, **results)


if __name__ == "__main__":
    main(sys.argv[1])
