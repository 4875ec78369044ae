"""Verdicts: what was measured of each backend, and the choice that follows from it.

A verdict is one JSON row of results/<machine>.jsonl: one backend on one case, in one dialect, on
one machine, with the versions and the source it was measured on. `choose` takes the fastest backend
whose every verdict is a pass, and says why it did not take the others. Nothing here runs a kernel.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import torch

from isobath.config import cache_folder
from isobath.errors import ConfigError
from isobath.ops.contract import PROPERTIES, Op, Work
from isobath.ops.measure import Measurement, Subject
from isobath.target import Target

PACKAGE = Path(__file__).parent.parent
SHARED = ("numerics/*.py", "cache/*.py", "ops/torch_*.py", "ops/tl_*.py")
"""Besides an op's own folder, what its kernels and reference are made of."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One row. The measured fields are those of measure.Measurement; us is the median.

    arch, device: the target's architecture and product name. triton: None where it is not
    installed. source: hash of the code that was measured. error is null for an infinite one.
    nbytes, flops, fp8: of contract.Work, null where the op does not say.
    """

    op: str
    backend: str
    case: str
    dialect: str
    arch: str
    device: str
    python: str
    torch: str
    triton: str | None
    source: str
    agrees: bool
    error: float | None
    format_error: float | None
    deterministic: bool | None
    graph_safe: bool | None
    batch_invariant: bool | None
    us: float | None
    us_p10: float | None
    us_p90: float | None
    note: str
    nbytes: int | None = None
    flops: int | None = None
    fp8: bool | None = None

    @property
    def work(self) -> Work | None:
        """What the call had to do at least, where its contract says."""
        if self.nbytes is None:
            return None
        return Work(self.nbytes, self.flops or 0, bool(self.fp8))


@dataclass(frozen=True, slots=True)
class Choice:
    """backend: the one to bind. reason: one sentence. rejected: backend -> why it was not taken."""

    backend: str
    reason: str
    rejected: Mapping[str, str]


def verdict(subject: Subject, measured: Measurement, target: Target) -> Verdict:
    """The row for one measurement made on `target`."""
    timing, work = measured.timing, measured.work
    return Verdict(
        op=subject.op.name,
        backend=subject.backend.name,
        case=subject.case.name,
        dialect=subject.dialect.name,
        arch=target.arch,
        device=target.name,
        python=platform.python_version(),
        torch=torch.__version__,
        triton=_version("triton"),
        source=source_hash(subject.op.name),
        agrees=measured.agrees,
        error=_finite(measured.error),
        format_error=_finite(measured.format_error),
        deterministic=measured.deterministic,
        graph_safe=measured.graph_safe,
        batch_invariant=measured.batch_invariant,
        us=timing.median if timing else None,
        us_p10=timing.p10 if timing else None,
        us_p90=timing.p90 if timing else None,
        note=measured.note,
        nbytes=work.nbytes if work else None,
        flops=work.flops if work else None,
        fp8=work.fp8 if work else None,
    )


@cache
def source_hash(op: str) -> str:
    """Hash of the op's folder, of those it imports (a fused op's parts) and of what all kernels
    share, 12 hex digits: a verdict on other source says nothing about this one. Of the files as
    they were at the first call, when they were loaded."""
    paths = [path for pattern in SHARED for path in sorted(PACKAGE.glob(pattern))]
    ops, digest = [op], hashlib.sha256()
    for name in ops:  # grows while it is walked
        own = sorted(PACKAGE.glob(f"ops/{name}/*.py"))
        paths += own
        text = "".join(path.read_text(encoding="utf-8") for path in own)
        found = dict.fromkeys(re.findall(r"isobath\.ops\.(\w+)", text))
        ops += [n for n in found if n not in ops and (PACKAGE / "ops" / n).is_dir()]
    for path in paths:
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def read(path: Path) -> list[Verdict]:
    """The verdicts in a JSONL file; rows of other kinds (without "op" and "case") are passed over.

    Raises ConfigError naming the line that is not JSON or has other fields.
    """
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise TypeError("not a JSON object")
            if "op" in row and "case" in row:
                rows.append(Verdict(**row))
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"read verdicts from {path}, line {number}",
                found=str(error),
                effect="a backend would be chosen from half of what was measured",
                do="delete the line, or measure again with isobath doctor",
            ) from error
    return rows


def verdict_file(target: Target) -> Path:
    """Where the doctor leaves its verdicts on machines like this one, and the engine looks."""
    return cache_folder() / f"verdicts-{target.arch}.jsonl"


def saved_verdicts(target: Target) -> list[Verdict]:
    """The verdicts in that file, [] without it."""
    path = verdict_file(target)
    return read(path) if path.exists() else []


def append(path: Path, rows: Sequence[Verdict]) -> None:
    """Add rows at the end of the file in one write, so that a reader never sees half a row."""
    data = "".join(json.dumps(asdict(row)) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        written = os.write(handle, data)
    finally:
        os.close(handle)
    assert written == len(data), (written, len(data))


def write(path: Path, rows: Sequence[Verdict]) -> None:
    """Replace the file by these rows; the old one stays until the new one is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows), encoding="utf-8")
    fresh.replace(path)


def choose(verdicts: Iterable[Verdict], op: Op, *, batch_invariant: bool = True) -> Choice:
    """The fastest backend that is right, deterministic and graph-safe on every case, and
    batch-invariant too unless `batch_invariant` says that the user does without.

    A property must have been measured by some verdict here to be asked of any, and batch invariance
    be in op.must. verdicts: of one architecture; those of other ops and of other source are not
    counted. A later row replaces an earlier one of the same backend, case and dialect. Faster is
    the smaller geometric mean over the cases, so that no single case decides; equals follow
    op.backends. Raises ConfigError when the rows mix architectures and when no backend passes.
    """
    own = [v for v in verdicts if v.op == op.name]
    _one_machine(own, op.name)
    current = source_hash(op.name)
    rows = {(v.backend, v.dialect, v.case): v for v in own if v.source == current}
    stale = {v.backend for v in own} - {backend for backend, _, _ in rows}
    asked = [p for p in PROPERTIES if p != "batch_invariant" or (batch_invariant and p in op.must)]
    measurable = [p for p in asked if any(getattr(v, p) is not None for v in rows.values())]
    dialects, on_cpu = {dialect for _, dialect, _ in rows}, {v.arch for v in own} == {"cpu"}
    cases = [case.name for case in op.cases() if not (on_cpu and case.gpu_only)]
    wanted = [(dialect, case) for dialect in sorted(dialects) for case in cases]
    rejected, passed = {}, {}
    for name in op.backends:
        mine = {key[1:]: v for key, v in rows.items() if key[0] == name}
        why = "measured on other source only" if name in stale else ""
        why = why or _reject(mine, wanted, measurable)
        if why:
            rejected[name] = why
        else:
            passed[name] = _mean_us(mine.values())
    if not passed:
        raise ConfigError(
            f"choose a backend for {op.name}",
            found="; ".join(f"{name}: {why}" for name, why in rejected.items()),
            effect="the op would compute something else, or depend on chance or on the batch",
            do=f"isobath doctor --op {op.name}, or bind it by hand",
        )
    best = min(passed, key=lambda name: passed[name])
    rejected |= {n: f"slower: {us:.1f} us" for n, us in passed.items() if n != best}
    unmeasured = [p for p in asked if p in op.must and p not in measurable]
    reason = f"fastest of {len(passed)} that pass: {passed[best]:.1f} us"
    reason += f"; not measurable here: {', '.join(unmeasured)}" if unmeasured else ""
    return Choice(best, reason, rejected)


def failures(row: Verdict, op: Op, *, batch_invariant: bool = True) -> list[str]:
    """What makes a verdict red: "wrong", or the names of the properties that it lacks."""
    if not row.agrees:
        return ["wrong"]
    asked = {"deterministic", "graph_safe", *op.must}
    if not batch_invariant:
        asked.discard("batch_invariant")
    return [name for name in PROPERTIES if name in asked and getattr(row, name) is False]


def of_this_machine(rows: Iterable[Verdict], target: Target) -> list[Verdict]:
    """The verdicts that still say something here: of this architecture, dialect and versions."""
    here = (target.arch, torch.__version__, _version("triton"))
    return [
        v
        for v in rows
        if (v.arch, v.torch, v.triton) == here
        and (target.kind == "cpu" or v.dialect == target.dialect.name)
    ]


def _reject(
    mine: Mapping[tuple[str, str], Verdict],
    wanted: Sequence[tuple[str, str]],
    measurable: Sequence[str],
) -> str:
    """Why a backend with these verdicts, by (dialect, case), cannot be chosen; "" if it can."""
    if not mine:
        return "never measured"
    for key in wanted:
        where = " ".join(reversed(key))
        if key not in mine:
            return f"no verdict on case {where}"
        if not mine[key].agrees:
            return f"wrong on case {where}: {mine[key].note}"
        failed = [p for p in measurable if getattr(mine[key], p) is False]
        if failed:
            return f"not {failed[0]} on case {where}"
        if mine[key].us is None:
            return f"not timed on case {where}"
    for name in measurable:
        if not any(getattr(v, name) for v in mine.values()):
            return f"{name} was measured on none of its cases"
    return ""


def _mean_us(rows: Iterable[Verdict]) -> float:
    times = [v.us for v in rows if v.us is not None]
    return math.exp(sum(map(math.log, times)) / len(times))


def _one_machine(rows: Sequence[Verdict], op: str) -> None:
    machines = sorted({v.arch for v in rows})
    if len(machines) > 1:
        raise ConfigError(
            f"choose a backend for {op}",
            found=f"verdicts of {', '.join(machines)}",
            effect="a time measured on one would decide for another",
            do="pass the verdicts of one architecture",
        )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
