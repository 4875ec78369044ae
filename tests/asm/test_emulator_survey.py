"""A survey of Triton's language in gfx942 machine code: 201 runs of 64 kernels that are not the
engine's, every check on, against NumPy in float64 and mpmath. The first width of each run is part
of every test run for a part of them; all runs, widths and stages nightly, in two versions of Triton
(test_emulator_versions.py)."""

from __future__ import annotations

import pytest

from isobath.emulator import launch
from tests.support import survey_blocks, survey_numbers, survey_programs
from tests.support import triton_survey_programs as kernels
from tests.support.survey import Run, emulated

RUNS: dict[str, Run] = {
    **survey_numbers.survey().runs,
    **survey_blocks.survey().runs,
    **survey_programs.survey().runs,
}
EVERY_THIRD = list(RUNS)[::3]
OTHERS = [(name, w, s) for name, run in RUNS.items() for w, s in run.others()]


@pytest.mark.parametrize("name", EVERY_THIRD)
def test_kernel_is_right(name: str) -> None:
    run = RUNS[name]
    assert emulated(run, run.widths[0], run.stages[0], "all") == []


@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in RUNS if name not in EVERY_THIRD])
def test_further_kernel_is_right(name: str) -> None:
    run = RUNS[name]
    assert emulated(run, run.widths[0], run.stages[0], "all") == []


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "width", "stages"), OTHERS)
def test_kernel_is_right_with_other_widths_and_stages(name: str, width: int, stages: int) -> None:
    assert emulated(RUNS[name], width, stages, "all") == []


def test_tensor_descriptors_of_the_host_are_passed() -> None:
    args, out, want = survey_programs.descriptors()
    launch(kernels.host_desc, (3, 2), *args, BM=32, BN=32, BK=32)
    # float32 sums of 64 exact products.
    assert (out - want).abs().max() <= 1e-5 * want.abs().max()
