"""What the doctor found, as a table for people and as JSON for machines; red or green.

Red is: a verdict that is wrong, not deterministic or not graph-safe; an op for which no backend may
be chosen; a finding about the whole model that did not pass. A backend that is right but depends on
the batch is no fault while another one does not.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from isobath.doctor.whole import Finding
from isobath.errors import ConfigError
from isobath.ops.ceilings import Ceilings
from isobath.ops.contract import PROPERTIES
from isobath.ops.examine import OpsResult
from isobath.ops.table import contract
from isobath.ops.verdicts import Choice, Verdict, choose, failures

WIDTH = 160


@dataclass(frozen=True, slots=True)
class Report:
    """machine: of machine.facts(). chosen: op -> choice. refused: op -> why there is none."""

    machine: Mapping[str, Any]
    ceilings: Ceilings | None
    ops: OpsResult
    findings: Sequence[Finding]
    chosen: Mapping[str, Choice]
    refused: Mapping[str, str]
    seconds: float

    @property
    def red(self) -> list[Verdict]:
        """The verdicts that are a fault."""
        return [row for row in self.ops.rows if faults(row, self.chosen)]

    @property
    def green(self) -> bool:
        """Whether something was looked at and nothing is wrong."""
        looked = bool(self.ops.rows or self.findings)
        return looked and not (self.red or self.refused) and all(f.passed for f in self.findings)

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return 0 if self.green else 1

    def as_dict(self) -> dict[str, Any]:
        """Everything, for --json."""
        return {
            "green": self.green,
            "machine": dict(self.machine),
            "ceilings": asdict(self.ceilings) if self.ceilings else None,
            "findings": [asdict(finding) for finding in self.findings],
            "red": [{"reproduce": reproduction(row), **asdict(row)} for row in self.red],
            "chosen": {op: asdict(choice) for op, choice in self.chosen.items()},
            "refused": dict(self.refused),
            "unavailable": self.ops.unavailable,
            "left_out": self.ops.left_out,
            "rows": [asdict(row) for row in self.ops.rows],
            "seconds": self.seconds,
        }


def faults(row: Verdict, chosen: Mapping[str, Choice]) -> list[str]:
    """What makes a verdict red; batch dependence only while its op has no other backend to take."""
    found = failures(row, contract(row.op))
    has_other = row.op in chosen and chosen[row.op].backend != row.backend
    return [f for f in found if f != "batch_invariant" or not has_other]


def choices(rows: Sequence[Verdict]) -> tuple[dict[str, Choice], dict[str, str]]:
    """(op -> choice, op -> why none may be chosen) of every op with verdicts."""
    chosen, refused = {}, {}
    for name in dict.fromkeys(row.op for row in rows):
        try:
            chosen[name] = choose(rows, contract(name))
        except ConfigError as error:
            refused[name] = error.found
    return chosen, refused


def reproduction(row: Verdict) -> str:
    """The command that measures this verdict again, alone."""
    command = f"isobath doctor --op {row.op} --case {row.case} --backend {row.backend}"
    device = " --device cpu" if row.arch == "cpu" else ""
    return f"{command} --dialect {row.dialect}{device}"


def show(report: Report, console: Console) -> None:
    """Print everything that a person needs, the faults last."""
    facts = report.machine
    console.print(", ".join(f"{name} {value}" for name, value in facts.items() if value))
    if report.ceilings is not None:
        tera = {name: v / 1e12 for name, v in asdict(report.ceilings).items() if v is not None}
        text = ", ".join(
            f"{n} {v:.2f} {'TB/s' if n == 'copy' else 'TFLOP/s'}" for n, v in tera.items()
        )
        console.print(f"ceilings: {text}")
    console.print(_table(report))
    for reason, count in report.ops.left_out.items():
        console.print(f"left out: {count} cases, {reason}")
    if report.ops.unavailable:
        console.print(f"not available here: {', '.join(report.ops.unavailable)}")
    for finding in report.findings:
        word = "[green]ok[/]" if finding.passed else "[red]RED[/]"
        console.print(f"{word} {finding.name}: {finding.detail}")
        if not finding.passed:
            console.print(f"    {finding.reproduce}", soft_wrap=True, highlight=False)
    for op, why in report.refused.items():
        console.print(f"[red]RED[/] {op}: no backend may be chosen: ", end="")
        console.print(why, markup=False, highlight=False)
    for row in report.red:
        what = ", ".join(faults(row, report.chosen))
        console.print(f"[red]RED[/] {row.op}/{row.backend} {row.case} {row.dialect}: {what}")
        console.print(f"    {row.note}", markup=False, highlight=False)
        console.print(f"    {reproduction(row)}", soft_wrap=True, highlight=False)
    word = "[green]all green[/]" if report.green else f"[red]{_wrong(report)}[/]"
    console.print(f"{word}: {len(report.ops.rows)} verdicts in {report.seconds:.0f} s")


def _wrong(report: Report) -> str:
    failed = sum(not finding.passed for finding in report.findings)
    if not report.ops.rows and not report.findings:
        return "nothing was measured, so nothing was shown"
    return (
        f"{len(report.red)} red verdicts, {len(report.refused)} ops without a backend, "
        f"{failed} red findings"
    )


def _table(report: Report) -> Table:
    table = Table("op", "backend", "dialect")
    for column in ("agree", "worst error", *(n.replace("_", "-") for n in PROPERTIES)):
        table.add_column(column, justify="right")
    for column in ("us, by case", "of ceiling", "taken"):
        table.add_column(column, justify="right")
    groups: dict[tuple[str, str, str], list[Verdict]] = defaultdict(list)
    for row in report.ops.rows:
        groups[row.op, row.backend, row.dialect].append(row)
    for (op, backend, dialect), group in groups.items():
        times = [row.us for row in group if row.us is not None]
        errors = [row.error for row in group if row.error is not None]
        agree = sum(row.agrees for row in group)
        red = any(faults(row, report.chosen) for row in group)
        choice = report.chosen.get(op)
        table.add_row(
            op,
            backend,
            dialect,
            f"{agree}/{len(group)}",
            f"{max(errors):.2g}" if errors else "-",
            *(_share(group, name) for name in PROPERTIES),
            f"{min(times):.1f} .. {max(times):.1f}" if times else "-",
            _best_share(group, report.ceilings),
            "yes" if choice and choice.backend == backend else "",
            style="red" if red else None,
        )
    return table


def _share(group: Sequence[Verdict], name: str) -> str:
    """How many of the rows on which a property was measured have it."""
    values = [getattr(row, name) for row in group if getattr(row, name) is not None]
    return f"{sum(values)}/{len(values)}" if values else "-"


def _best_share(group: Sequence[Verdict], ceilings: Ceilings | None) -> str:
    """The largest share of a ceiling that a case reached; small cases reach none worth telling."""
    if ceilings is None:
        return "-"
    shares = [ceilings.share(row.work, row.us) for row in group if row.work and row.us]
    return f"{100 * max(shares):.0f} %" if shares else "-"
