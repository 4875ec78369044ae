"""Code that asks where it lies: functions that are called, tables that the device library reads,
from assembly text and from a linked hsaco."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from isobath.emulator import Launch, UnsupportedInstruction, launch
from tests.support import triton_survey_blocks as blocks
from tests.support import triton_survey_numbers as numbers
from tests.support.survey_blocks import called


def saved(run: Launch, folder: Path, content: bytes) -> Path:
    """A binary of `run` with what Triton would write beside it."""
    path = folder / "kernel.bin"
    path.write_bytes(content)
    facts = {"shared": run.lds_bytes, "num_warps": run.num_warps}
    path.with_suffix(".json").write_text(json.dumps(facts))
    return path


def noinline_run() -> tuple[Launch, np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal(4).astype(np.float32)
    out = np.zeros_like(x)
    return launch(blocks.noinline, 4, x, out, 3, B=64), x, out


def test_functions_are_called_and_return() -> None:
    run, x, out = noinline_run()
    assert run.outcome.mix["s_swappc_b64"] == 2 * 4 * 4  # calls, workgroups, waves
    want = [called(v, 3) + called(np.float32(v + np.float32(1)), 4) for v in x]
    # Seven float32 multiplications and additions.
    assert np.allclose(out, want, rtol=16 * 2.0**-24)


def test_a_linked_binary_calls_the_same_functions(tmp_path: Path) -> None:
    run, x, out = noinline_run()
    again = np.zeros_like(x)
    launch(saved(run, tmp_path, run.hsaco), 4, x, again, 3)
    assert np.array_equal(again, out)


def test_tables_are_read_from_text_and_from_a_linked_binary(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal(64).astype(np.float32) * 5
    out, again = np.zeros((2, 10, 64), np.float32)
    run = launch(numbers.any_sign, 1, x, out, B=64, num_warps=1)
    assert run.outcome.mix["s_getpc_b64"] > 0
    launch(saved(run, tmp_path, run.hsaco), 1, x, again)
    assert np.array_equal(again, out)


def test_an_address_that_cannot_be_known_is_refused(tmp_path: Path) -> None:
    run, x, out = noinline_run()
    text = run.assembly.replace("@rel32@lo", "@gotpcrel32@lo").encode()
    with pytest.raises(UnsupportedInstruction, match=r"gotpcrel32"):
        launch(saved(run, tmp_path, text), 4, x, out, 3)
