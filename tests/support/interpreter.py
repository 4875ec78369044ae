"""Judge Triton backends on the CPU, in Triton's interpreter: a module to run in its own process.

    python -m tests.support.interpreter OP CASE[,CASE...] [OCP|FNUZ]

prints one JSON line a case and dialect: what ops/measure.py found. A process of its own, because
the interpreter is chosen when triton is first imported, for good. `judged` starts it.

Triton 3.6's interpreter truncates float32 to bf16, converts FNUZ subnormals and the byte 0x80
wrongly or not at all, multiplies the bit patterns of bf16 matrices as integers and, with NumPy 2.4,
cannot read a loop bound from a tensor. `repair` mends these, with torch's conversions.
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

import pytest

ROOT = Path(__file__).parent.parent.parent
BY_DAY_AND_NIGHT = ("OCP", pytest.param("FNUZ", marks=pytest.mark.nightly))
"""Dialects to judge in. By day FNUZ is the emulator's, which runs the machine code of all ops."""


def judged(op: str, cases: tuple[str, ...], dialect: str = "") -> Iterator[dict[str, Any]]:
    """Measurements (as dictionaries, with the case's name and dialect) of op's Triton backend."""
    command = [sys.executable, "-m", "tests.support.interpreter", op, ",".join(cases), dialect]
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        yield json.loads(line)


def repair() -> None:
    """Mend the interpreter of this process; see the module's docstring."""
    import numpy as np
    import torch
    from triton.runtime import interpreter

    dtypes = {
        "fp8e4nv": torch.float8_e4m3fn,
        "fp8e4b8": torch.float8_e4m3fnuz,
        "bf16": torch.bfloat16,
        "fp16": torch.float16,
        "fp32": torch.float32,
    }
    patch, convert = interpreter._patch_lang_tensor, interpreter._convert_float
    dot, patch_core = interpreter.InterpreterBuilder.create_dot, interpreter._patch_lang_core

    def repaired(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    def with_fnuz(lang: Any, scope: Any) -> None:
        patch_core(lang, scope)
        to_ir = lang.dtype.to_ir
        scope.set_attr(
            lang.dtype,
            "to_ir",
            lambda self, builder: (
                builder.get_fp8e4b8_ty() if self.name == "fp8e4b8" else to_ir(self, builder)
            ),
        )

    def converted(data: Any, source: Any, target: Any, rounding: Any) -> Any:
        known = source.name in dtypes and target.name in dtypes
        if not known or (rounding is not None and rounding.name == "RTZ"):
            return convert(data, source, target, rounding)
        raw = torch.from_numpy(np.ascontiguousarray(data).view(np.uint8).copy())
        value = raw.view(dtypes[source.name]).to(torch.float32).to(dtypes[target.name])
        unsigned = {1: np.uint8, 2: np.uint16, 4: np.uint32}[value.element_size()]
        return value.view(torch.uint8).numpy().view(unsigned).reshape(np.shape(data))

    def widened(handle: Any) -> Any:
        if handle.dtype.scalar.name not in ("bf16", "fp8e4nv", "fp8e4b8"):
            return handle
        data = converted(handle.data, handle.dtype.scalar, interpreter.tl.float32, None)
        return interpreter.TensorHandle(data.view(np.float32), interpreter.tl.float32)

    def widened_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, widened(a), widened(b), *rest)

    interpreter._patch_lang_tensor = repaired
    interpreter._patch_lang_core = with_fnuz
    interpreter._convert_float = converted
    interpreter.InterpreterBuilder.create_dot = widened_dot


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
