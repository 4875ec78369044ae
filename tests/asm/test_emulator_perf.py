"""Counts that need no clock: conflicts, coalescing, matrix cycles, on accesses of known cost."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from isobath.emulator import launch
from isobath.emulator.mfma import VARIANTS
from isobath.emulator.perf import Traffic, clocks
from tests.support import triton_tutorial as tutorial

LANES = np.arange(64, dtype=np.int64)[None]


def counted(offset: np.ndarray, width: int) -> Traffic:
    traffic = Traffic()
    traffic.lds(0, np.broadcast_to(offset, (1, 64)), width, None, None)
    return traffic


def test_neighbouring_words_do_not_conflict() -> None:
    assert (counted(LANES * 4, 4).lds_clocks, counted(LANES * 4, 4).lds_conflict) == (2, 1.0)
    assert counted(LANES * 16, 16).lds_conflict == 1.0


def test_one_word_for_all_lanes_is_a_broadcast() -> None:
    assert counted(LANES * 0, 4).lds_conflict == 1.0


@pytest.mark.parametrize(("stride", "conflict"), [(8, 2.0), (16, 4.0), (128, 32.0), (132, 1.0)])
def test_strides_conflict_by_their_common_divisor_with_the_banks(
    stride: int, conflict: float
) -> None:
    assert counted(LANES * stride, 4).lds_conflict == conflict


def test_coalescing_is_fetched_over_asked_bytes() -> None:
    for stride, factor in ((4, 1.0), (64, 16.0), (8, 2.0)):
        traffic = Traffic()
        traffic.memory(0, LANES * stride, 4, None, "load")
        assert traffic.coalescing("load") == factor


def test_matrix_clocks_give_the_published_peak() -> None:
    """One instruction after another on every SIMD is AMD's published peak of 2,615 TFLOP/s FP8 and
    1,307 bf16 at 304 compute units and 2.1 GHz."""
    for name, peak in (
        ("v_mfma_f32_32x32x16_fp8_fp8", 2615),
        ("v_mfma_f32_16x16x32_fp8_fp8", 2615),
        ("v_mfma_f32_32x32x8_bf16", 1307),
        ("v_mfma_f32_16x16x16_bf16", 1307),
        ("v_mfma_f32_16x16x4_f32", 163),
    ):
        a_clock = VARIANTS[name].flops / (4 * VARIANTS[name].passes) * 4 * 304
        assert round(a_clock * 2.1e9 / 1e12) == pytest.approx(peak, abs=1)


def test_a_launch_counts_its_products() -> None:
    x = np.zeros((64, 64), ml_dtypes.float8_e4m3fnuz)
    out = np.zeros((64, 64), np.float32)
    run = launch(
        tutorial.matmul, (1, 1), x, x, out, 64, 64, 64, BM=64, BN=64, BK=64, checks="traffic"
    )
    found = clocks(run.outcome.mix, run.outcome.traffic)
    assert found.flops >= 2 * 64**3
    assert found.bound >= found.matrix > 0
    assert run.outcome.traffic is not None
    assert run.outcome.traffic.bytes["store"] == 64 * 64 * 4
