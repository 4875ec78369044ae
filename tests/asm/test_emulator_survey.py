"""A survey of Triton's and Gluon's language in gfx942 machine code: kernels that are not the
engine's, every check on, against NumPy in float64 and mpmath. The first width of some runs of each
topic is part of every test run; all runs, widths and stages nightly, in two versions of Triton
(test_emulator_versions.py)."""

from __future__ import annotations

import pytest

from isobath.emulator import launch
from tests.support import (
    survey_blocks,
    survey_combine,
    survey_gluon,
    survey_numbers,
    survey_programs,
    survey_types,
)
from tests.support import triton_survey_programs as kernels
from tests.support.survey import Run, emulated

TOPICS = (
    survey_numbers, survey_blocks, survey_programs, survey_types, survey_combine, survey_gluon
)  # fmt: skip
BY_TOPIC = [topic.survey().runs for topic in TOPICS]
RUNS: dict[str, Run] = {name: run for runs in BY_TOPIC for name, run in runs.items()}
assert len(RUNS) == sum(map(len, BY_TOPIC)), "two runs have one name"
ALWAYS = [name for runs in BY_TOPIC for name in list(runs)[:: -(-len(runs) // 8)]]
"""Eight or fewer of each topic."""
OTHERS = [(name, w, s) for name, run in RUNS.items() for w, s in run.others()]


@pytest.mark.parametrize("name", ALWAYS)
def test_kernel_is_right(name: str) -> None:
    run = RUNS[name]
    assert emulated(run, run.widths[0], run.stages[0], "all") == []


@pytest.mark.nightly
@pytest.mark.parametrize("name", [name for name in RUNS if name not in ALWAYS])
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
