"""The tests' own power: with one opcode's meaning changed, the kernels' results must change.

Every table-driven opcode that the fresh and tutorial kernels, and the survey's arithmetic in every
type, execute is changed once, slightly (the lowest bit, one percent, the opposite condition). A
mutant is noticed when an output differs from the right one or the run faults.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from isobath.emulator import Launch, launch, run_program
from isobath.emulator.code import parse_text
from isobath.emulator.isa import TABLES, Opcode
from isobath.errors import IsobathError
from tests.support import survey_types, triton_fresh, triton_tutorial
from tests.support.fresh_runs import runs

NOTICED = 0.85
SLOW = {"collatz"}


@dataclass
class Recorded:
    """One kernel on its arguments, with what it must write."""

    run: Launch
    names: list[str]
    args: list[Any]
    outputs: list[int]
    right: list[np.ndarray]

    def result(self) -> list[np.ndarray]:
        args = [a.copy() if isinstance(a, np.ndarray) else a for a in self.args]
        parse_text.cache_clear()
        run_program(
            parse_text(self.run.assembly), self.run.grid, list(zip(self.names, args, strict=True)),
            num_warps=self.run.num_warps, lds_bytes=self.run.lds_bytes, checks="none",
            limit=20 * self.run.outcome.instructions,
        )  # fmt: skip
        return [args[k] for k in self.outputs]

    def notices(self) -> bool:
        try:
            got = self.result()
        except (IsobathError, IndexError, ValueError, TypeError):
            return True
        return any(
            not np.array_equal(g, r, equal_nan=g.dtype.kind == "f")
            for g, r in zip(got, self.right, strict=True)
        )


def record(kernel: Any, grid: Any, args: tuple[Any, ...], outputs: list[int], **named: Any) -> Any:
    """Run a kernel as it is; arguments that the JIT folds away are left out of the record."""
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    after = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    run = launch(kernel, grid, *after, checks="none", **named)
    kept = [k for k, a in enumerate(before) if isinstance(a, np.ndarray) or a != 1]
    return Recorded(
        run,
        [f"argument {k}" for k in kept],
        [before[k] for k in kept],
        [kept.index(k) for k in outputs],
        [after[k] for k in outputs],
    )


def battery() -> Iterator[Recorded]:
    x, y = np.random.default_rng(0).standard_normal((2, 1000)).astype(np.float32)
    yield record(triton_tutorial.add, 4, (x, y, np.zeros_like(x), 1000), [2], BLOCK=256)
    rows = np.ascontiguousarray(x[:500].reshape(5, 100))
    args = (rows, np.zeros_like(rows), 100, 100)
    yield record(triton_tutorial.softmax, 5, args, [1], BLOCK=128)
    for run in runs().values():
        if run.kernel not in SLOW:
            kernel = getattr(triton_fresh, run.kernel)
            yield record(kernel, run.grid, run.args, list(run.outputs), **run.constexprs)
    for name, one in survey_types.survey().runs.items():
        if name.startswith(("floats", "integers")):
            yield record(one.kernel, one.grid, one.args, [2], **one.constexprs)


def mutant(opcode: Opcode) -> Opcode:
    """The opcode with another meaning."""
    if opcode.destination == "-":
        return replace(opcode, carry=f"~({opcode.carry})")
    one = {"f": "f32", "e": "f16", "D": "f64"}.get(opcode.destination)
    expression = f"({opcode.expression}) ^ 1"
    if opcode.destination == "m":
        expression = f"~({opcode.expression})"
    elif one:
        expression = f"({opcode.expression}) * {one}(1.01) + {one}(0.001)"
    return replace(opcode, expression=expression, ufunc="", parts=())


@pytest.mark.nightly
def test_a_changed_opcode_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = list(battery())
    used: dict[str, list[Recorded]] = {}
    for one in recorded:
        for name in one.run.outcome.mix:
            if name in TABLES:
                used.setdefault(name, []).append(one)
    survivors = []
    for name, users in used.items():
        quickest = sorted(users, key=lambda r: r.run.outcome.instructions)
        with monkeypatch.context() as patch:
            patch.setitem(TABLES, name, mutant(TABLES[name]))
            if not any(one.notices() for one in quickest[:12]):
                survivors.append(name)
    noticed = 1 - len(survivors) / len(used)
    assert len(used) > 120, sorted(used)
    assert noticed >= NOTICED, f"{noticed:.2f} of {len(used)}; not noticed: {survivors}"
