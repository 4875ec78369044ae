"""Judge Triton backends on the CPU, in Triton's interpreter: a module to run in its own process.

    python -m tests.support.interpreter OP CASE[,CASE...] [OCP|FNUZ]

prints one JSON line a case and dialect: what ops/measure.py found. A process of its own, because
the interpreter is chosen when triton is first imported, for good. `judged` starts it.

Faults of Triton 3.6's interpreter that verdicts have to live with: float32 to bf16 truncates, and
FNUZ subnormals and the byte 0x80 are converted wrongly. With NumPy 2.4 it cannot read a loop bound
from a tensor at all; `repair` mends that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


def judged(op: str, cases: tuple[str, ...], dialect: str = "") -> Iterator[dict[str, Any]]:
    """Measurements (as dictionaries, with the case's name and dialect) of op's Triton backend."""
    command = [sys.executable, "-m", "tests.support.interpreter", op, ",".join(cases), dialect]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        yield json.loads(line)


def repair() -> None:
    """Let the interpreter turn its one-element arrays into integers, as NumPy before 2.4 did."""
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor

    def repaired(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = repaired


def main(name: str, cases: str, dialect: str) -> None:
    import torch

    from isobath.numerics.dialect import DIALECTS
    from isobath.ops.measure import Subject, measure
    from isobath.ops.table import contract

    repair()
    op, wanted = contract(name), [case for case in cases.split(",") if case]
    found = [case for case in op.cases() if case.name in wanted or (not wanted and case.small)]
    assert {case.name for case in found} >= set(wanted), (wanted, [c.name for c in op.cases()])
    for case in (case for case in found if not case.gpu_only):
        for spoken in DIALECTS.values():
            if dialect and str(spoken) != dialect:
                continue
            subject = Subject(op, op.backend("triton"), case, spoken, torch.device("cpu"))
            row = {"case": case.name, "dialect": str(spoken), **asdict(measure(subject))}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
