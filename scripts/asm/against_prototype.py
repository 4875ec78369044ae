"""The emulator's speed beside the prototype that it grew from, on the prototype's five kernels.

    python scripts/asm/against_prototype.py --prototype FOLDER [--repeats 3]

The prototype is no part of this repository: its folder is copied, its `census.py` compiles its
kernels with the Triton that is installed here, and its own drivers make the inputs. Every launch
they make is then run by both, in turn, code generation included and without any check; the least
CPU time of each counts. Results must be equal. Prints a row a size and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from isobath.emulator import run_program
from isobath.emulator.code import parse_text

TAG = "here"
SIZES: tuple[tuple[str, str, tuple[dict[str, int], ...]], ...] = (
    (
        "fp8_gemm_w4_s2",
        "t_gemm",
        ({"M": 64, "N": 64}, {"M": 256, "N": 256}, {"M": 1024, "N": 1024}),
    ),
    ("sparse_attn_w4_s2", "t_attn", ({"B": 2}, {"B": 32}, {"B": 128})),
    ("moe_mxfp4_w4_s2", "t_moe", ({"T": 8, "N": 64}, {"T": 256, "N": 512})),
    ("quant_insert_w4_s1", "t_quant", ({"T": 8, "slots": 16}, {"T": 1024, "slots": 2048})),
    ("route_w4_s1", "t_route", ({"T": 4}, {"T": 512})),
)
"""Kernel, driver, sizes."""


class Bench:
    """Both emulators on every launch that a driver makes."""

    def __init__(self, folder: Path, repeats: int) -> None:
        self.folder, self.repeats = folder, repeats
        self.emu: Any = importlib.import_module("emu")
        self.facts = json.loads((folder / f"census_{TAG}.json").read_text())["meta"]
        self.arrays: dict[int, tuple[str, np.ndarray]] = {}
        self.seconds: tuple[float, float] = (0.0, 0.0)
        self.waves = self.instructions = 0

    def drive(self, drivers: Any, driver: str, key: str, size: dict[str, int]) -> dict[str, Any]:
        """One size: what the driver's launch took here and there."""
        self.arrays.clear()
        drivers.QUIET = True
        drivers.seed(0)
        machine = getattr(drivers, driver)(key, TAG, **size)
        theirs, ours = self.seconds
        return {
            "kernel": key, "size": size, "waves": self.waves, "right": bool(machine.ok),
            "wave_instructions": self.instructions, "prototype_s": round(theirs, 4),
            "isobath_s": round(ours, 4), "ratio": round(theirs / ours, 2),
        }  # fmt: skip

    def memory(self) -> Any:
        """The prototype's memory, which tells which arrays lie where."""
        memory = self.emu.Memory()
        alloc = memory.alloc

        def noted(array: np.ndarray, name: str = "?", *rest: Any) -> int:
            address = int(alloc(array, name, *rest))
            if name != "kernarg":  # its machine's own
                self.arrays[address] = name, array
            return address

        memory.alloc = noted
        return memory

    def launch(self, key: str, memory: Any, grid: Any, args: Sequence[Any], tag: str) -> Any:
        """In place of the drivers' launch."""
        text, facts = (self.folder / f"asm_{tag}" / f"{key}.s").read_text(), self.facts[key]
        warps = int(key.split("_w")[1].split("_")[0])
        before = memory.b.copy()
        best = [float("inf"), float("inf")]
        for _ in range(self.repeats):
            memory.b[:] = before
            program = self.emu.parse(text)
            start = time.process_time()
            machine = self.emu.Machine(program, memory, grid, args, warps, facts["shared"])
            machine.run()
            best[0] = min(best[0], time.process_time() - start)
            seconds = self.own(text, grid, args, warps, facts["shared"], memory)
            best[1] = min(best[1], seconds)
        self.seconds, self.waves = (best[0], best[1]), int(machine.W)
        machine.t_setup, machine.t_run = 0.0, best[0]
        return machine

    def own(
        self, text: str, grid: Any, args: Sequence[Any], warps: int, shared: int, memory: Any
    ) -> float:
        """The same launch here; its arrays must hold what the prototype left in its memory."""
        arrays = {at: (name, array.copy()) for at, (name, array) in self.arrays.items()}
        named = [
            arrays.get(a, ("number", a)) if isinstance(a, int) else ("number", a) for a in args
        ]
        parse_text.cache_clear()
        program = parse_text(text)
        start = time.process_time()
        run = run_program(
            program, tuple(grid), named, num_warps=warps, lds_bytes=shared, checks="none"
        )
        seconds = time.process_time() - start
        self.instructions = run.outcome.instructions
        for at, (name, array) in arrays.items():
            assert np.array_equal(array, memory.read(at, array), equal_nan=False), name
        return seconds


def measured(folder: Path, repeats: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row a size; `folder` is a copy of the prototype with its kernels compiled."""
    sys.path.insert(0, str(folder))
    bench, drivers = Bench(folder, repeats), importlib.import_module("run")
    vars(drivers).update(launch=bench.launch, Memory=bench.memory)
    rows = []
    for key, driver, sizes in SIZES:
        for size in sizes:
            row = bench.drive(drivers, driver, key, size)
            rows.append(row)
            times = f"prototype {row['prototype_s']:.3f} s  isobath {row['isobath_s']:.3f} s"
            say(f"{key:20} {size!s:26} {row['waves']:6} waves  {times}  ratio {row['ratio']:.2f}")
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prototype", type=Path, required=True, help="its folder")
    parser.add_argument("--repeats", type=int, default=3, help="best of so many")
    given = parser.parse_args()
    with TemporaryDirectory() as place:
        folder = Path(place) / "prototype"
        shutil.copytree(given.prototype, folder)
        census = [sys.executable, "census.py", TAG]
        subprocess.run(census, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        os.chdir(folder)  # its drivers open files by relative names
        rows = measured(folder, given.repeats, print)
    ratios = [row["ratio"] for row in rows]
    print(json.dumps({
        "bench": "emulator_against_prototype", "command": "python scripts/asm/against_prototype.py",
        "repeats": given.repeats, "ratio_min": min(ratios),
        "ratio_mean": round(float(np.exp(np.mean(np.log(ratios)))), 2),
        "all_right": all(row["right"] for row in rows), "rows": rows,
    }))  # fmt: skip
    return int(min(ratios) < 1)


if __name__ == "__main__":
    raise SystemExit(main())
