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


def runs() -> dict[str, Fresh]:
    """Every run by name; the same numbers in every process."""
    r = np.random.default_rng(5)

    def f(*shape: int, kind: Any = np.float32) -> np.ndarray:
        return r.standard_normal(shape).astype(kind)

    def i(low: int, high: int, *shape: int, kind: Any = np.int32) -> np.ndarray:
        return r.integers(low, high, shape).astype(kind)

    def z(*shape: int, kind: Any = np.float32) -> np.ndarray:
        return np.zeros(shape, kind)

    nan, other = f(256), f(256)
    nan[::7], other[::5], other[3] = np.nan, np.nan, np.inf
    half, double, long, byte = np.float16, np.float64, np.int64, np.uint8
    b256 = {"B": 256}
    found = {
        # Sums in another order: a few ulps. Fused where the interpreter is not: one half-ulp.
        "layer_norm": Fresh("layer_norm", (3,), (f(3, 200), z(3, 200), 200), (1,), b256, 1e-6),
        "scans": Fresh("scans", (1,), (f(256), z(768)), (1,), b256, 1e-6),
        "reductions": Fresh("reductions", (1,), (f(16, 128), z(192)), (1,), {"B": 128}, 1e-6),
        "int4_matmul": Fresh(
            "int4_matmul", (1,),
            (f(32, 64, kind=half), i(-(2**31), 2**31 - 1, 8, 32), f(32, kind=half), z(32, 32)),
            (3,), {"K": 64}, 2e-6,
        ),
        "batched_dot": Fresh(
            "batched_dot", (1,),
            (f(4, 16, 16, kind=half), f(4, 16, 16, kind=half), z(4, 16, 16)), (2,), {}, 2e-6,
        ),
        # float16 products fused here and rounded twice there: two half-ulps of 2**-11.
        "half_math": Fresh(
            "half_math", (1,), (f(512, kind=half), f(512, kind=half), z(512, kind=half)), (2,),
            {"B": 512}, 2.0**-9,
        ),
        "integer_atomics": Fresh(
            "integer_atomics", (1,), (i(0, 1000, 128), i(0, 16, 128), i(0, 50, 96)), (2,)
        ),
        "double_math": Fresh(
            "double_math", (1,), (f(256, kind=double), f(256, kind=double), z(256, kind=double)),
            (2,), b256, 2.0**-51,
        ),
        "bit_tricks": Fresh(
            "bit_tricks", (1,), (i(-(2**31), 2**31 - 1, 256), z(768, kind=np.int32)), (1,), b256
        ),
        "long_integers": Fresh(
            "long_integers", (1,),
            (i(-(2**40), 2**40, 256, kind=long), i(1, 2**35, 256, kind=long), z(256, kind=long)),
            (2,), b256,
        ),
        "shuffles": Fresh("shuffles", (1,), (f(128), z(256)), (1,), {"B": 128}),
        "random_walk": Fresh("random_walk", (3,), (z(384, kind=np.int32), 77), (0,), {"B": 128}),
        "collatz": Fresh("collatz", (1,), (i(1, 300, 128), z(128, kind=np.int32)), (1,),
                         {"B": 128}),
        "nan_rules": Fresh("nan_rules", (1,), (nan, other, z(512)), (2,), b256),
        "gather_scatter": Fresh(
            "gather_scatter", (1,), (f(256), r.permutation(256).astype(long), z(256)), (2,), b256
        ),
        "byte_matmul": Fresh(
            "byte_matmul", (1,),
            (i(-128, 128, 64, 128, kind=np.int8), i(-128, 128, 128, 32, kind=np.int8), f(32),
             z(64, 32)), (3,), {"K": 128},
        ),
        # xf32 keeps 10 mantissa bits of each factor.
        "float_matmul xf32": Fresh(
            "float_matmul", (1,), (f(32, 64), f(64, 32), z(32, 32)), (2,),
            {"K": 64, "PRECISION": "tf32"}, 2.0**-9,
        ),
        "float_matmul f64": Fresh(
            "float_matmul", (1,),
            (f(32, 64, kind=double), f(64, 32, kind=double), z(32, 32, kind=double)), (2,),
            {"K": 64, "PRECISION": "ieee"}, 2.0**-48,
        ),
        "float_matmul f32": Fresh(
            "float_matmul", (1,), (f(32, 64), f(64, 32), z(32, 32)), (2,),
            {"K": 64, "PRECISION": "ieee"}, 2e-6,
        ),
    }  # fmt: skip
    for kind, low, high in (
        (np.int8, -128, 128),
        (np.int16, -(2**15), 2**15),
        (long, -(2**62), 2**62),
    ):
        name = np.dtype(kind).name
        args = (i(low, high, 256, kind=kind), i(low, high, 256, kind=kind), z(256, kind=kind))
        found[f"narrow_integers {name}"] = Fresh("narrow_integers", (1,), args, (2,), b256)
    for kind, high in ((np.uint32, 2**32), (byte, 256)):
        args = (i(0, high, 256, kind=kind), i(1, 100, 256, kind=kind), z(256, kind=kind))
        name = f"unsigned_division {np.dtype(kind).name}"
        found[name] = Fresh("unsigned_division", (1,), args, (2,), b256)
    for kind in (np.float32, np.int16, half):
        values = (f(4, 64) * 100).astype(kind)
        args = (values, np.zeros_like(values))
        found[f"sort_rows {values.dtype.name}"] = Fresh("sort_rows", (1,), args, (1,), {"B": 64})
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
