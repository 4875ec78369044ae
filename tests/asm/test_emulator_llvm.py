"""Opcodes against LLVM: random programs give on gfx942, emulated, what they give on this machine.

Needs clang and llc (make setup-asm); no AMD document takes part. Floats may differ in NaN payloads.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from isobath.emulator import run_program
from isobath.emulator.code import parse_text
from tests.support import llvm_programs as llvm

PROGRAMS = 60
TOOLS = {"llc": llvm.tool(llvm.LLC), "clang": llvm.tool(llvm.CLANG)}


def differences(seed: int, folder: Path, length: int = 60) -> tuple[int, set[str]]:
    """(values that differ, opcodes executed) of one program."""
    assert TOOLS["llc"] and TOOLS["clang"], f"make setup-asm installs {TOOLS}"
    program = llvm.Program(seed, length)
    ints, floats = llvm.inputs(seed)
    want = llvm.run_on_this_machine(program, TOOLS["clang"], folder, ints, floats)
    code = parse_text(llvm.gfx942_assembly(program, TOOLS["llc"]))
    got = np.zeros_like(want)
    run = run_program(
        code, (1, 1, 1), [("in", ints), ("fin", floats), ("out", got)], num_warps=4, lds_bytes=0,
        checks="waits,poison",
    )  # fmt: skip
    both_nan = is_nan(got) & is_nan(want)
    return int(((got != want) & ~both_nan).sum()), set(run.outcome.mix)


def is_nan(words: np.ndarray) -> np.ndarray:
    """NaN in one of the three float slots of a thread."""
    place = np.arange(len(words)) % llvm.SLOTS
    return (place >= 3) & (place < 6) & ((words & 0x7FFFFFFF) > 0x7F800000)


@pytest.mark.nightly
@pytest.mark.parametrize("first", range(0, PROGRAMS, 10))
def test_random_programs_agree_with_this_machine(first: int, tmp_path: Path) -> None:
    opcodes: set[str] = set()
    for seed in range(first, first + 10):
        wrong, used = differences(seed, tmp_path)
        assert wrong == 0, f"program {seed}"
        opcodes |= used
    assert len(opcodes) > 60
