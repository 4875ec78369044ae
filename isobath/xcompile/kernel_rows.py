"""What emulating an op's cases says about each of its kernels: one row a kernel and Triton version,
kept as JSON lines and shown as the table of results/gfx942.md.

A row sums over the launches of one kernel in all cases that were run: resources are the worst of
its binaries, counts are totals, the error is the worst of the cases that launch it, in the unit of
the op's agreement. Rows of an op are replaced together, so a run over one op leaves the others.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from isobath.emulator.perf import Traffic, clocks
from isobath.ops.contract import Op
from isobath.xcompile.emulate import Emulated, KernelRun

CAVEAT = (
    "**This is emulation and not an MI300X.** gfx942 machine code was executed instruction by "
    "instruction on a CPU; nothing here has run on the GPU, and no column is a time."
)
COMMAND = "isobath emulate --report results/gfx942.md --also .venv-triton39/bin/python"
LEGEND = """\
One row a kernel and Triton version, over all small cases of its op. *cases*: those that launch it;
*code*: distinct binaries. *instructions*: executed, once a wave, in the first run of each launch.
*VGPR* (AGPRs among them), *SGPR*, *spills*, *LDS*, *waves* a SIMD: the worst of its binaries.
*MFMA*: clocks of the matrix units over those of the busiest unit, each as if alone: an upper limit
of their use, not a forecast. *LDS conflict*: LDS clocks over those without bank conflicts.
*loaded*, *stored*: bytes of the 64-byte segments touched over bytes asked for (1 is best; below 1
where lanes read the same bytes). *error*: the worst of the cases against the op's reference, in the
unit of the op's agreement, and the limit it must keep. Cases are small: launches of the model's own
sizes are compiled by `isobath xcompile`, not executed here.
"""
CHECKED = """\
Every launch ran in lockstep, then with other poison and, where a workgroup has several waves, with
these one after another, forward and in reverse; with bit-exact matrix accumulation and the checks
*bounds* (every global, LDS and scratch access), *waits* (missing s_waitcnt), *lds* (races, reads of
unwritten LDS), *poison* (uninitialised registers) and *schedule* (order of waves; results of
kernels with global atomics may depend on it and are not compared).
"""


@dataclass(frozen=True, slots=True)
class KernelRow:
    """See the module and LEGEND. agrees: in every case; note: the first difference or fault."""

    triton: str
    op: str
    kernel: str
    cases: int
    binaries: int
    code: str
    instructions: int
    vgprs: int
    agprs: int
    sgprs: int
    spills: int
    scratch_bytes: int
    lds_bytes: int
    occupancy: float
    matrix_clocks: float
    bound_clocks: float
    lds_conflict: float
    loaded: float
    stored: float
    error: float
    limit: float
    checks: tuple[str, ...]
    agrees: bool
    note: str

    @property
    def matrix_share(self) -> float:
        return self.matrix_clocks / self.bound_clocks if self.bound_clocks else 0.0


def rows_of(op: Op, found: Sequence[Emulated]) -> list[dict[str, Any]]:
    """Rows of one op's emulated cases. A case that launched nothing and disagrees, since it faulted
    before its first launch ended, has a row without a kernel."""
    by_kernel: dict[str, list[tuple[Emulated, KernelRun]]] = {}
    for case in found:
        for run in case.runs:
            by_kernel.setdefault(run.kernel, []).append((case, run))
    rows = [asdict(_row(op, kernel, runs)) for kernel, runs in by_kernel.items()]
    rows += [asdict(_faulted(op, case)) for case in found if not case.agrees and not case.runs]
    return rows


def _row(op: Op, kernel: str, of: Sequence[tuple[Emulated, KernelRun]]) -> KernelRow:
    cases = {case.case: case for case, _ in of}
    runs = [run for _, run in of]
    codes = sorted({run.code for run in runs})
    costs = [clocks(run.ran.outcome.mix, run.ran.outcome.traffic) for run in runs]
    traffic = _together(run.ran.outcome.traffic for run in runs)
    passed = set.intersection(*(set(run.ran.outcome.passed) for run in runs))
    return KernelRow(
        triton=version("triton"),
        op=op.name,
        kernel=kernel,
        cases=len(cases),
        binaries=len(codes),
        code=hashlib.sha256(" ".join(codes).encode()).hexdigest()[:12],
        instructions=sum(run.ran.outcome.instructions for run in runs),
        vgprs=max(run.found.registers for run in runs),
        agprs=max(run.found.agprs for run in runs),
        sgprs=max(run.found.sgprs for run in runs),
        spills=max(run.found.vector_spills for run in runs),
        scratch_bytes=max(run.found.scratch_bytes for run in runs),
        lds_bytes=max(run.found.lds_bytes for run in runs),
        occupancy=min(run.found.occupancy for run in runs),
        matrix_clocks=sum(cost.matrix for cost in costs),
        bound_clocks=sum(cost.bound for cost in costs),
        lds_conflict=round(traffic.lds_conflict, 3),
        loaded=round(traffic.coalescing("load"), 3),
        stored=round(traffic.coalescing("store"), 3),
        error=max(case.error for case in cases.values()),
        limit=op.agree.limit(),
        checks=("bounds", *sorted(passed)),
        agrees=all(case.agrees for case in cases.values()),
        note=next((f"{c.case}: {c.note}" for c in cases.values() if not c.agrees), ""),
    )


def _faulted(op: Op, case: Emulated) -> KernelRow:
    """A case of which no launch ended."""
    facts: dict[str, Any] = {field.name: 0 for field in fields(KernelRow)}
    facts |= {"triton": version("triton"), "op": op.name, "kernel": "", "cases": 1, "code": ""}
    facts |= {"error": case.error, "limit": op.agree.limit(), "checks": (), "agrees": False}
    return KernelRow(**facts | {"note": f"{case.case}: {case.note}"})


def _together(parts: Iterable[Traffic | None]) -> Traffic:
    """The sum of several launches' traffic."""
    total = Traffic()
    for part in parts:
        if part is None:
            continue
        total.lds_clocks += part.lds_clocks
        total.lds_ideal_clocks += part.lds_ideal_clocks
        for mine, other in ((total.bytes, part.bytes), (total.segments, part.segments)):
            for what, count in other.items():
                mine[what] = mine.get(what, 0) + count
    return total


def load(file: Path) -> list[dict[str, Any]]:
    """Rows of a JSON lines file; none where it does not exist."""
    if not file.is_file():
        return []
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def replace_rows(file: Path, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Put rows into a file in place of all that their Triton version said about their ops. Several
    processes may do so at once."""
    file.touch()
    with file.open("r+", encoding="utf-8") as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        return _replaced(file, rows)


def _replaced(file: Path, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    renewed = {(row["triton"], row["op"]) for row in rows}
    kept = [row for row in load(file) if (row["triton"], row["op"]) not in renewed]
    every = sorted([*kept, *map(dict, rows)], key=lambda r: (r["op"], r["kernel"], r["triton"]))
    file.write_text("".join(json.dumps(row) + "\n" for row in every), encoding="utf-8")
    return load(file)


def without(rows: Sequence[Mapping[str, Any]], ops: Iterable[str]) -> list[str]:
    """Those of `ops` that some version of Triton has no row of."""
    versions = {row["triton"] for row in rows}
    known = {(row["op"], row["triton"]) for row in rows}
    return sorted(op for op in ops if not all((op, version) in known for version in versions))


def render(rows: Sequence[Mapping[str, Any]], ops: Iterable[str]) -> str:
    """The page: what it is, how to make it again, the table. ops: those it should show."""
    absent = without(rows, ops)
    versions = sorted({row["triton"] for row in rows})
    wrong = [row for row in rows if not row["agrees"]]
    total = sum(row["instructions"] for row in rows)
    kernels = len({(row["op"], row["kernel"]) for row in rows})
    head = (
        f"{kernels} kernels of {len({row['op'] for row in rows})} ops, Triton "
        f"{' and '.join(versions)}, {total:,} wave instructions; "
        + (f"{len(wrong)} rows DISAGREE." if wrong else "every case agrees, every check passed.")
    )
    columns = (
        "op", "kernel", "Triton", "cases", "code", "instructions", "VGPR", "SGPR", "spills", "LDS",
        "waves", "MFMA", "LDS conflict", "loaded", "stored", "error", "limit", "checks",
    )  # fmt: skip
    lines = ["# gfx942 machine code of every kernel, emulated", "", CAVEAT, "", head, ""]
    lines += [f"    {COMMAND}", ""]
    lines += [f"**Not run yet, or not since they were changed: {', '.join(absent)}.**", ""] * bool(
        absent
    )
    lines += [LEGEND, CHECKED]
    lines += ["| " + " | ".join(columns) + " |"]
    lines += ["|" + "|".join("---" if k < 3 else "--:" for k in range(len(columns) - 1)) + "|---|"]
    lines += ["| " + " | ".join(_cells(row)) + " |" for row in rows]
    for row in wrong:
        lines += ["", f"**{row['op']} {row['kernel']}, Triton {row['triton']}**", "", "```"]
        lines += [row["note"], "```"]
    return "\n".join(lines) + "\n"


def _cells(row: Mapping[str, Any]) -> list[str]:
    agprs = f" ({row['agprs']})" if row["agprs"] else ""
    share = row["matrix_clocks"] / row["bound_clocks"] if row["bound_clocks"] else 0.0
    spills = f"{row['spills']}" + (f", {row['scratch_bytes']} B" if row["scratch_bytes"] else "")
    checks = ", ".join(row["checks"]) if row["agrees"] else "**DISAGREES**"
    return [
        row["op"], row["kernel"], row["triton"], str(row["cases"]), str(row["binaries"]),
        f"{row['instructions']:,}", f"{row['vgprs']}{agprs}", str(row["sgprs"]), spills,
        f"{row['lds_bytes']:,}", f"{row['occupancy']:g}", f"{share:.2f}",
        f"{row['lds_conflict']:.2f}", f"{row['loaded']:.2f}", f"{row['stored']:.2f}",
        f"{row['error']:.3g}", f"{row['limit']:.3g}", checks,
    ]  # fmt: skip
