"""`isobath emulate`: ops' small cases through the gfx942 emulator; one line a case, exit code 1
when one disagrees. Prints, counts and keeps rows; emulate.py does the work.

With a report, every check is on, and other environments (with another Triton) run the same cases at
the same time, each in a process of its own; their rows go into one table.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from isobath.errors import BackendUnavailable, ConfigError
from isobath.numerics.dialect import DIALECTS
from isobath.ops.contract import Op
from isobath.ops.table import contract, op_names

CAVEAT = "emulation of gfx942 machine code, not an MI300X"
COUNTED = ",traffic"
"""Beside the checks: LDS bank conflicts and coalescing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run and what to make of it. record: JSON lines of kernel rows, renewed for the ops
    that run; report: the page made of them (the record then lies beside it); also: interpreters of
    further environments that take part in the report."""

    dialect: str = "fnuz"
    exact: bool = False
    checks: str = "all"
    as_json: bool = False
    record: Path | None = None
    report: Path | None = None
    also: tuple[str, ...] = ()


def main(ops: Sequence[str], case: str | None, plan: Plan) -> int:
    """Exit code: 0, or 1 when a case disagrees or faults. ops: all with Triton kernels if ()."""
    if plan.also and not plan.report:
        raise ConfigError("--also without --report", do="name the page that shows both")
    if case and (plan.record or plan.report):
        raise ConfigError("a record of one case", do="record whole ops: leave out --case")
    if plan.report:
        return _reported(ops, plan, plan.report)
    return _run(ops, case, plan)


def _run(ops: Sequence[str], case: str | None, plan: Plan) -> int:
    """Run the cases here."""
    emulation, kernel_rows = _with_triton()
    wanted = [op for op in map(contract, ops or op_names()) if "triton" in op.backends]
    checks = plan.checks + COUNTED if plan.record else plan.checks
    done, wrong, start = 0, 0, time.perf_counter()
    for op in wanted:
        judged = []
        for one in emulation.cases_of(op, case):
            found = emulation.emulate(
                op, one, DIALECTS[plan.dialect], exact=plan.exact, checks=checks
            )
            judged.append(found)
            done, wrong = done + 1, wrong + (not found.agrees)
            _show(op, found, plan)
        if plan.record:  # op by op, so that what was interrupted goes on with the ops that are left
            kernel_rows.replace_rows(plan.record, kernel_rows.rows_of(op, judged))
    if not plan.as_json:
        seconds = time.perf_counter() - start
        print(
            f"Triton {version('triton')}: {done} cases, {wrong} disagree, {seconds:.0f} s; {CAVEAT}"
        )
    return int(wrong > 0)


def _reported(ops: Sequence[str], plan: Plan, report: Path) -> int:
    """Run every environment's cases with every check, and write the page."""
    _, kernel_rows = _with_triton()
    record = report.with_suffix(".jsonl")
    options = [word for op in ops for word in ("--op", op)]
    options += ["--dialect", plan.dialect, "--exact", "--checks", "all"]
    others = [
        subprocess.Popen([python, "-m", "isobath", "emulate", *options, "--record", str(record)])
        for python in plan.also
    ]
    own = Plan(plan.dialect, exact=True, checks="all", record=record)
    codes = [_run(ops, None, own), *(other.wait() for other in others)]
    wanted = [name for name in op_names() if "triton" in contract(name).backends]
    page = kernel_rows.render(kernel_rows.load(record), wanted)
    report.write_text(page, encoding="utf-8")
    print(f"{report} and {record}: {'all agree' if not any(codes) else 'NOT all agree'}")
    return int(any(codes))


def _show(op: Op, found: Any, plan: Plan) -> None:
    """A line, and what is wrong if something is."""
    if plan.as_json:
        print(json.dumps(_record(found)), flush=True)
        return
    verdict = "agrees" if found.agrees else "DISAGREES"
    release = f"Triton {version('triton')}: " if plan.record else ""
    print(
        f"{release}{op.name} {found.case}: {verdict}, worst error {found.error:.3g}, "
        f"{found.instructions} wave instructions in {len(found.runs)} launches, "
        f"{found.seconds:.1f} s",
        flush=True,
    )
    if found.note and not found.agrees:
        print("    " + found.note.replace("\n", "\n    "), flush=True)


def _record(found: Any) -> dict[str, Any]:
    names = ("op", "case", "dialect", "agrees", "error", "note", "seconds", "instructions")
    facts = {name: getattr(found, name) for name in names}
    return facts | {"launches": [str(run) for run in found.runs]}


def _with_triton() -> tuple[ModuleType, ModuleType]:
    """(emulate, kernel_rows), which import triton."""
    try:
        from isobath.xcompile import emulate, kernel_rows
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise BackendUnavailable(
            "emulation",
            found="no triton in this environment",
            effect="there is no compiler for gfx942",
            do="pip install 'isobath[asm]'",
        ) from error
    return emulate, kernel_rows
