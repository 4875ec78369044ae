"""Measure every op, backend, case and dialect on this machine; the rows are verdicts.

    python -m isobath.bench.ops [--op NAME] [--backend NAME] [--dialect ocp|fnuz] [--json PATH]

Correctness comes first: a wrong kernel has no time. The torch backend runs on the CPU alone, the
others on a GPU alone, there in the one dialect that its units read: the other has no hardware
conversion. What is left out is counted. The last line of stdout is one JSON object of counts.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from isobath.errors import ConfigError
from isobath.ops.contract import PROPERTIES
from isobath.ops.examine import Wanted, check_ops, default_jobs, steps
from isobath.ops.table import contract
from isobath.ops.verdicts import Verdict, append, choose
from isobath.target import Target, detect

TABLE_WIDTH = 150


def main(
    op: Annotated[str | None, typer.Option(help="Only this op.")] = None,
    backend: Annotated[str | None, typer.Option(help="Only this backend.")] = None,
    dialect: Annotated[str | None, typer.Option(help="Only this dialect: ocp or fnuz.")] = None,
    rows_path: Annotated[Path | None, typer.Option("--json", help="Append rows here.")] = None,
    device: Annotated[str, typer.Option(help="auto, gpu or cpu.")] = "auto",
) -> None:
    """Measure the ops of this machine; the last line of stdout is one JSON object."""
    torch.set_num_threads(1)  # a CPU's figures are those of one thread
    print(json.dumps(run(op, backend, dialect, rows_path=rows_path, device=device)))


def run(
    op: str | None = None,
    backend: str | None = None,
    dialect: str | None = None,
    *,
    rows_path: Path | None = None,
    device: str = "auto",
) -> dict[str, Any]:
    """Measure, print a table, append rows; returns counts and the chosen backends.

    Keys: device, rows, agree, wrong, then for each property how often it held, and was broken;
    unavailable (backends that cannot run here), left_out (reason -> cases), chosen (op -> backend),
    refused (op -> why none).
    Raises ConfigError for an unknown op or dialect.
    """
    target = detect(device)
    wanted = Wanted(op, backend, dialect)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=steps(target, wanted))
        found = check_ops(
            target,
            wanted,
            jobs=default_jobs(target),
            advance=lambda name, count: bar.update(task, description=name, advance=count),
        )
    rows = found.rows
    if rows_path is not None:
        append(rows_path, rows)
    Console(width=TABLE_WIDTH).print(_table(rows, target))
    for reason, count in found.left_out.items():
        print(f"left out: {count} cases, {reason}")
    facts = {"unavailable": found.unavailable, "left_out": found.left_out}
    return _counts(rows, target) | facts | _choices(rows)


def _table(rows: Sequence[Verdict], target: Target) -> Table:
    table = Table(title=f"{target.name} ({target.arch}), torch {torch.__version__}")
    for column in ("op", "backend", "dialect", "agree", "worst error", "format error"):
        table.add_column(column, justify="left" if column in ("op", "backend") else "right")
    for column in (*(name.replace("_", "-") for name in PROPERTIES), "us, by case"):
        table.add_column(column, justify="right")
    groups: dict[tuple[str, str, str], list[Verdict]] = defaultdict(list)
    for row in rows:
        groups[row.op, row.backend, row.dialect].append(row)
    for key, group in groups.items():
        times = [row.us for row in group if row.us is not None]
        table.add_row(
            *key,
            f"{sum(row.agrees for row in group)}/{len(group)}",
            _worst([row.error if row.agrees else float("inf") for row in group]),
            _worst([row.format_error for row in group]),
            *(_share(group, name) for name in PROPERTIES),
            f"{min(times):.1f} .. {max(times):.1f}" if times else "-",
        )
    return table


def _worst(errors: Sequence[float | None]) -> str:
    known = [error for error in errors if error is not None]
    return f"{max(known):.2g}" if known else "-"


def _share(group: Sequence[Verdict], name: str) -> str:
    """How many of the rows on which a property was measured have it."""
    values = [getattr(row, name) for row in group if getattr(row, name) is not None]
    return f"{sum(values)}/{len(values)}" if values else "-"


def _counts(rows: Sequence[Verdict], target: Target) -> dict[str, Any]:
    counts: dict[str, Any] = {"device": target.name, "arch": target.arch, "rows": len(rows)}
    counts["agree"] = sum(row.agrees for row in rows)
    counts["wrong"] = len(rows) - counts["agree"]
    for name in PROPERTIES:
        counts[name] = sum(getattr(row, name) is True for row in rows)
        counts[f"not_{name}"] = sum(getattr(row, name) is False for row in rows)
    return counts


def _choices(rows: Sequence[Verdict]) -> dict[str, Any]:
    chosen, refused = {}, {}
    for name in dict.fromkeys(row.op for row in rows):
        try:
            chosen[name] = choose(rows, contract(name)).backend
        except ConfigError as error:
            refused[name] = str(error)
    return {"chosen": chosen, "refused": refused}


if __name__ == "__main__":
    typer.run(main)
