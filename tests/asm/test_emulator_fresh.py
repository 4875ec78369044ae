"""Kernels that the emulator was not written for, against Triton's interpreter: many features, every
check on, several numbers of warps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isobath.emulator import launch
from tests.support import triton_fresh
from tests.support.fresh_runs import Fresh, interpreted, runs

RUNS = runs()


def emulated(run: Fresh, num_warps: int, checks: str = "all") -> list[np.ndarray]:
    args = [a.copy() if isinstance(a, np.ndarray) else a for a in run.args]
    kernel = getattr(triton_fresh, run.kernel)
    launch(kernel, run.grid, *args, num_warps=num_warps, checks=checks, **run.constexprs)
    return [args[k] for k in run.outputs]


def agree(got: np.ndarray, want: np.ndarray, error: float) -> None:
    if error == 0:
        assert np.array_equal(got, want, equal_nan=got.dtype.kind == "f")
        return
    size = np.abs(want.astype(np.float64)).max()
    assert np.abs(got.astype(np.float64) - want.astype(np.float64)).max() <= error * size


@pytest.mark.parametrize("name", RUNS)
def test_fresh_kernel_agrees_with_the_interpreter(name: str) -> None:
    for got, want in zip(emulated(RUNS[name], 4), interpreted()[name], strict=True):
        agree(got, want, RUNS[name].error)


@pytest.mark.nightly
@pytest.mark.parametrize("num_warps", [1, 8])
@pytest.mark.parametrize("name", RUNS)
def test_fresh_kernel_agrees_at_other_widths(name: str, num_warps: int) -> None:
    for got, want in zip(emulated(RUNS[name], num_warps), interpreted()[name], strict=True):
        agree(got, want, RUNS[name].error)


def test_spinning_on_other_workgroups_ends() -> None:
    flags, x, out = (np.zeros(n, np.int32) for n in (1, 4, 4))
    launch(triton_fresh.wait_for_all, 4, flags, x, out, 4, checks="none")
    assert list(out) == [10, 20, 30, 0]


def test_tickets_are_all_different() -> None:
    counter, out = np.zeros(1, np.int32), np.zeros(4, np.int32)
    launch(triton_fresh.ticket, 4, counter, out, 5)
    assert list(out) == [0, 10, 20, 30]


def test_branches_follow_each_program() -> None:
    x = np.random.default_rng(0).standard_normal((12, 64)).astype(np.float32)
    out = np.zeros_like(x)
    launch(triton_fresh.branches, (2, 3, 2), x, out, 5, B=64)
    for p in range(12):
        if p % 3 == 0:
            want = -2 * x[p] if (2 * x[p]).sum() > 5 else 2 * x[p]
        elif p % 3 == 1:
            want = x[p].copy()
            for _ in range(p):
                want += np.float32(1.5)
        else:
            want = np.where(x[p] > 0, x[p], np.float32(2))
        assert np.array_equal(out[p], want), p


def test_descriptors_move_blocks() -> None:
    x = np.random.default_rng(0).standard_normal((32, 64)).astype(np.float32)
    out = np.zeros_like(x)
    launch(triton_fresh.descriptors, 2, x, out, 32, 64)
    assert np.array_equal(out, 2 * x)


def test_special_functions_agree_with_float64() -> None:
    x = (np.random.default_rng(0).standard_normal(256) * 3).astype(np.float32)
    out = np.zeros((5, 256), np.float32)
    launch(triton_fresh.special_functions, 1, x, out, B=256)
    v = x.astype(np.float64)
    erf = np.array([math.erf(t) for t in v])
    want = np.stack(
        [
            np.sin(v) + np.cos(3 * v),
            np.tanh(v) * erf,
            (np.abs(v) + 0.5) ** 1.7,
            np.log(np.abs(v) + 1e-3) + np.exp2(v) + np.log2(v * v + 1),
            np.arctan2(v, 1.5) + np.expm1(v) + 1 / np.abs(v),
        ]
    )
    # The library's functions are good to a few ulps of float32 each; sums cancel a little.
    assert (np.abs(out - want) <= 1e-5 * (1 + np.abs(want))).all()
