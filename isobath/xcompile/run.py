"""`isobath xcompile`: sweep the asked ops and targets, print, record, compare; the exit code says
whether a contract is broken or code changed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from isobath.errors import BackendUnavailable
from isobath.ops.table import contract, op_names
from isobath.xcompile.target import MACHINES, machine_of


def main(
    targets: Sequence[str],
    ops: Sequence[str],
    *,
    as_json: bool = False,
    flash: bool = True,
    recorded: Path | None = None,
    compared: Path | None = None,
    execute: bool = False,
) -> int:
    """Exit code: 0, or 1 when a contract is broken or a kernel's code differs from `compared`.

    targets, ops: all when empty. flash: what V4-Flash launches, besides what the cases launch.
    recorded: JSON lines are appended. execute: gfx942 kernels of the cases are run by the emulator
    and counted. Raises ConfigError for an unknown target, BackendUnavailable without triton.
    """
    machines = [machine_of(name) for name in targets] or list(MACHINES.values())
    wanted = [op for op in map(contract, ops or op_names()) if "triton" in op.backends]
    report, sweep, model, counts = _with_triton()
    rows = []
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=len(machines) * len(wanted))
        for machine in machines:
            bar.update(task, description=f"{machine.arch} V4-Flash")
            steps = model.record_flash(machine) if flash else {}
            for op in wanted:
                bar.update(task, description=f"{machine.arch} {op.name}")
                judged = sweep.judge_op(op, machine, steps.get(op.name))
                if execute and machine.arch == "gfx942":
                    counted = counts.count_op(op)
                    judged = [
                        replace(row, counts=counted.get((row.kernel, row.specialisation)))
                        for row in judged
                    ]
                rows += judged
                bar.advance(task)
    records = report.as_records(rows)
    differences = report.changed(compared, records) if compared else []
    if recorded:
        report.append(recorded, records)
    broken = sum(bool(row.broken) for row in rows)
    if as_json:
        facts = {"kernels": len(rows), "broken": broken, "changed": differences, "rows": records}
        print(json.dumps(facts))
    else:
        for machine in machines:
            mine = [row for row in rows if row.arch == machine.arch]
            how = "emulated" if any(row.counts for row in mine) else "not run"
            Console().print(report.table(mine, f"{machine.arch}: compiled, {how}"))
        for line in differences:
            print(line)
        print(f"{len(rows)} kernels, {broken} break a contract, {len(differences)} changed")
    return int(broken > 0 or bool(differences))


def _with_triton() -> tuple[ModuleType, ModuleType, ModuleType, ModuleType]:
    """(report, sweep, flash, counts), which import triton."""
    try:
        from isobath.xcompile import counts, flash, report, sweep
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise BackendUnavailable(
            "cross-compilation",
            found="no triton in this environment",
            effect="there is no compiler for GPU kernels",
            do="pip install 'isobath[asm]'",
        ) from error
    return report, sweep, flash, counts
