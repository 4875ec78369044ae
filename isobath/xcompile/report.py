"""Rows of a sweep, shown and kept: a table for people, JSON lines for later comparison.

A refactor that must not change machine code records rows before and compares after: rows belong
together when op, kernel, target, Triton version and specialisation are equal, whatever the source.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from isobath.errors import ConfigError
from isobath.xcompile.sweep import Row

IDENTITY = ("arch", "triton", "op", "kernel", "specialisation")


def table(rows: Sequence[Row], title: str) -> Table:
    """One line a kernel."""
    shown = Table(title=title)
    right = ["warps", "stages", "instr", "MFMA", "FP8", "regs", "AGPR", "SGPR", "spills"]
    right += ["scratch", "LDS", "waves"]
    executed = any(row.counts for row in rows)
    right += ["MFMA clk", "share", "conflict", "loaded", "stored"] if executed else []
    for name in ("op", "kernel", *right, "cases", "code", "broken"):
        numeric = name in right
        shown.add_column(name, justify="right" if numeric else "left", no_wrap=numeric)
    for row in rows:
        figures = [*_figures(row), *(_counted(row) if executed else ()), *_labels(row)]
        shown.add_row(row.op, row.kernel, *figures, style="red" if row.broken else None)
    return shown


def as_records(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows as JSON objects, with the version of Triton that made them."""
    release = version("triton")
    return [{"triton": release, **row.as_dict()} for row in rows]


def append(file: Path, records: Iterable[dict[str, Any]]) -> None:
    """Add records to a JSON lines file."""
    with file.open("a", encoding="utf-8") as out:
        out.writelines(json.dumps(record) + "\n" for record in records)


def changed(file: Path, records: Sequence[dict[str, Any]]) -> list[str]:
    """What differs from the last records of `file`: kernels with other code, new and gone ones of
    the ops and targets that were looked at. Raises ConfigError for a file that is not there."""
    if not file.is_file():
        raise ConfigError(f"compare with {file}", found="no such file", do="make it with --record")
    lines = file.read_text(encoding="utf-8").splitlines()
    looked = {(r["arch"], r["triton"], r["op"]) for r in records}
    old = [r for r in map(json.loads, lines) if (r["arch"], r["triton"], r["op"]) in looked]
    before = {tuple(r[k] for k in IDENTITY): r["code"] for r in old if r["code"]}
    after = {tuple(r[k] for k in IDENTITY): r["code"] for r in records if r["code"]}
    found = [
        (key, "gone" if key not in after else "new" if key not in before else "other code")
        for key in sorted(before | after)
        if before.get(key) != after.get(key)
    ]
    return [f"{arch} {op} {kernel} {spec[:8]}: {how}" for (arch, _, op, kernel, spec), how in found]


def _figures(row: Row) -> list[str]:
    """The columns of numbers."""
    launch = [str(row.num_warps), str(row.num_stages)]
    if row.found is None:
        return launch + [""] * 10
    f = row.found
    numbers = (f.mix["all"], f.mix["mfma"], f.mix["mfma_fp8"], f.registers, f.agprs, f.sgprs)
    spills = f"{f.vector_spills}" + (f"+{f.scalar_spills}s" if f.scalar_spills else "")
    counts = [f"{n:,}" for n in numbers]
    return [
        *launch,
        *counts,
        spills,
        f"{f.scratch_bytes:,}",
        f"{f.lds_bytes:,}",
        f"{f.occupancy:g}",
    ]


def _counted(row: Row) -> list[str]:
    """The columns of an execution."""
    c = row.counts
    if c is None:
        return [""] * 5
    share = c.matrix_clocks / c.bound_clocks if c.bound_clocks else 0.0
    ratios = (share, c.lds_conflict, c.loaded, c.stored)
    return [f"{c.matrix_clocks:,.0f}", *(f"{ratio:.2f}" for ratio in ratios)]


def _labels(row: Row) -> list[str]:
    """The columns behind the numbers."""
    cases = row.cases[0] + (f" +{len(row.cases) - 1}" if len(row.cases) > 1 else "")
    return [cases, row.code[:12], "; ".join(row.broken)]
