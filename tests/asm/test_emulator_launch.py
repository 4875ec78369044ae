"""launch() on kernels that are not the engine's: right results, in place, at both entry points."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch

from isobath.emulator import LaunchError, OutOfBounds, launch
from isobath.emulator.isa import TABLES
from isobath.emulator.lower_special import SPECIAL
from tests.support import triton_survey_combine as combine
from tests.support import triton_survey_gluon as gluon_kernels
from tests.support import triton_tutorial as tutorial

FP8 = ml_dtypes.float8_e4m3fnuz
ENTRIES = ("preload", "legacy")


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("entry", ENTRIES)
def test_vector_add_is_exact(entry: str) -> None:
    x, y = rng().standard_normal((2, 1000)).astype(np.float32)
    out = np.zeros_like(x)
    launch(tutorial.add, 4, x, y, out, 1000, BLOCK=256, entry=entry)
    assert np.array_equal(out, x + y)


@pytest.mark.parametrize("entry", ENTRIES)
def test_softmax_agrees_with_float64(entry: str) -> None:
    x = rng().standard_normal((5, 100)).astype(np.float32)
    out = np.zeros_like(x)
    launch(tutorial.softmax, (5,), x, out, 100, 100, BLOCK=128, entry=entry)
    power = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    # exp, a sum of 100 terms and a division: a few float32 roundings of values below one.
    assert np.abs(out - power / power.sum(1, keepdims=True)).max() < 8 * 2.0**-24


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("exact", [False, True])
def test_fp8_matmul_agrees_with_float64(entry: str, exact: bool) -> None:
    a, b = (rng().standard_normal(s).astype(FP8) for s in ((70, 128), (128, 64)))
    out = np.zeros((70, 64), np.float32)
    run = launch(
        tutorial.matmul, (2, 1), a, b, out, 70, 64, 128, BM=64, BN=64, BK=64, exact=exact,
        entry=entry,
    )  # fmt: skip
    assert any(name.startswith("v_mfma_f32_") and "fp8" in name for name in run.outcome.mix)
    want = a.astype(np.float64) @ b.astype(np.float64)
    size = np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64))
    # Each of the 128 / 16 groups cuts at most 16 products by 2**-24 of its largest, rounds once.
    assert (np.abs(out - want) <= size * 8 * 17 * 2.0**-24).all()


def test_no_form_of_its_own_hides_a_table_line() -> None:
    assert not set(SPECIAL) & set(TABLES)


def test_a_scalar_of_16_bits_keeps_its_sign() -> None:
    """One wave folds 64 numbers into a scalar register: s_sext_i32_i16."""
    x, out = np.arange(-65, -1, dtype=np.int16), np.zeros(6)
    launch(combine.reductions, 1, x, out, R=1, C=64, AXIS=1, L=1, num_warps=1)
    assert list(out) == [x.sum(dtype=np.int64), -2, -65, 63, 0, -2]


def test_a_gluon_kernel_runs_as_it_is_written() -> None:
    from triton.experimental.gluon import language as gl

    x, out = rng().standard_normal(500).astype(np.float32), np.zeros(500, np.float32)
    launch(gluon_kernels.doubled, 2, x, out, 500, B=256, L=gl.BlockedLayout([1], [64], [4], [0]))
    assert np.array_equal(out, 2 * x)


def test_torch_tensors_are_written_in_place() -> None:
    a = torch.randn(64, 64, generator=torch.Generator().manual_seed(0)).to(torch.float8_e4m3fnuz)
    out = torch.zeros(64, 64)
    launch(tutorial.matmul, (1, 1), a, a, out, 64, 64, 64, BM=64, BN=64, BK=64)
    # 64 products in four groups; see above.
    assert torch.allclose(out, a.float() @ a.float(), atol=1e-3)


def test_hsaco_file_runs_like_the_kernel_it_came_from(tmp_path: Path) -> None:
    x, y = rng().standard_normal((2, 512)).astype(np.float32)
    out, again = np.zeros_like(x), np.zeros_like(x)
    run = launch(tutorial.add, 2, x, y, out, 512, BLOCK=256)
    path = tmp_path / "add.hsaco"
    path.write_bytes(run.hsaco)
    launch(path, 2, x, y, again, 512)
    assert np.array_equal(again, x + y)


def test_store_past_a_buffer_names_instruction_lane_and_buffer() -> None:
    x = np.zeros(1000, np.float32)
    with pytest.raises(OutOfBounds) as caught:
        launch(tutorial.add, 4, x, x, x[:999].copy(), 1000, BLOCK=256)
    text = str(caught.value)
    for part in ("buffer_store_dword", "workgroup (3, 0, 0)", "wave 3, lane 39", "buffer out"):
        assert part in text, text


def test_unknown_parameter_is_refused() -> None:
    x = np.zeros(4, np.float32)
    with pytest.raises(LaunchError, match="BLOCK"):
        launch(tutorial.add, 1, x, x, x, 4)


def test_the_tutorials_page_runs_as_written(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    path = tmp_path / "tutorial.py"
    path.write_text("from tests.support.triton_tutorial import matmul\n" + "\n".join(blocks))
    runpy.run_path(str(path))


def test_the_tutorials_report_is_the_one_it_shows() -> None:
    page = (Path(__file__).parents[2] / "docs" / "emulator.md").read_text(encoding="utf-8")
    x, y = rng().standard_normal((2, 1000)).astype(np.float32)
    with pytest.raises(OutOfBounds) as caught:
        launch(tutorial.add, 4, x, y, np.zeros(999, np.float32), 1000, BLOCK=256)
    for line in str(caught.value).splitlines():
        if "buffer_store" not in line:  # registers differ between versions of Triton
            assert re.sub(r" address 0x\w+,", "", line).strip() in page, line
