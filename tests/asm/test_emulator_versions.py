"""The other version of Triton: what its code of every op's small cases, of the survey's kernels and
of the tutorial's gives in the emulator. Needs `make setup-triton39`; nightly.

Its interpreter fails on scalar masks, so what the interpreter judges stays with the first version.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from isobath.ops.table import contract, op_names

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-triton39" / "bin" / "python"
OPS = [name for name in op_names() if "triton" in contract(name).backends]
TESTS = ("survey", "launch", "planted", "perf", "calls", "opcodes")


def passes(*command: str) -> None:
    """Run the other environment's Python in the tree; its report is the assertion's."""
    assert PYTHON.is_file(), f"{PYTHON} does not exist: make setup-triton39"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(PYTHON), *command], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.mark.nightly
@pytest.mark.parametrize("op", OPS)
def test_every_case_passes_every_check(op: str) -> None:
    passes("-m", "isobath", "emulate", "--op", op, "--exact", "--checks", "all")


@pytest.mark.nightly
@pytest.mark.parametrize("topic", TESTS)
def test_kernels_that_are_not_ours(topic: str) -> None:
    passes("-m", "pytest", f"tests/asm/test_emulator_{topic}.py", "-m", "", "-q", "-x")
