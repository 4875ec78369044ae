"""The doctor's round: machine, ops, model, report, verdict file.

With an op, case or backend named it looks at that alone and leaves the saved verdicts as they are;
a whole round replaces them. Without a GPU it judges the CPU engine, and the gfx942 machine code in
the emulator where the tools for that are installed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from isobath.doctor import gfx942, shadow, whole
from isobath.doctor.machine import facts
from isobath.doctor.report import Report, choices
from isobath.engine.llm import BUNDLED, LLM
from isobath.errors import IsobathError
from isobath.ops.ceilings import ceilings
from isobath.ops.examine import Advance, Wanted, check_ops, default_jobs, steps
from isobath.ops.verdicts import verdict_file, write
from isobath.target import Target, detect


@dataclass(frozen=True, slots=True)
class Round:
    """What to look at. wanted: which ops (None in all its fields: every one). device: "auto", "gpu"
    or "cpu". model: a checkpoint instead of the bundled one. layers: also compare every op inside
    the model. save: the verdict file; None is the one that the engine reads."""

    wanted: Wanted = field(default_factory=Wanted)
    device: str = "auto"
    model: Path | None = None
    layers: bool = False
    save: Path | None = None

    @property
    def whole(self) -> bool:
        """Whether nothing was left out, so that the engine may choose from the verdicts."""
        return self.wanted == Wanted()


def run(what: Round) -> Report:
    """Examine; progress goes to stderr. Raises ConfigError for an op, case, dialect or device that
    does not exist."""
    start = time.monotonic()
    target = detect(what.device)
    torch.set_num_threads(1 if target.kind == "cpu" else torch.get_num_threads())
    emulated = what.whole and target.kind == "cpu" and gfx942.has_tools()
    total = steps(target, what.wanted) + (1 + whole.STEPS if what.whole else 0)
    total += len(gfx942.ops()) if emulated else 0
    with _progress(total) as advance:
        found = ceilings(target) if what.whole else None
        advance("ceilings", 1 if what.whole else 0)
        ops = check_ops(target, what.wanted, jobs=default_jobs(target), advance=advance)
        chosen, refused = choices(ops.rows)
        if what.whole:  # before the model is looked at, which takes what is saved
            write(what.save or verdict_file(target), ops.rows)
        findings = _model(what, target, advance) if what.whole or what.layers else []
        findings += gfx942.check_gfx942(gfx942.ops(), advance) if emulated else []
    if what.wanted.case or what.wanted.backend:  # too little to choose from
        chosen, refused = {}, {}
    seconds = time.monotonic() - start
    return Report(facts(target), found, ops, findings, chosen, refused, seconds)


def _model(what: Round, target: Target, advance: Advance) -> list[whole.Finding]:
    """Findings about the whole model; an engine that cannot start is one."""
    path = what.model or BUNDLED
    again = "isobath doctor" + (f" --model {what.model}" if what.model else "")
    device = "cpu" if target.kind == "cpu" else "gpu"
    findings = []
    try:
        llm = LLM(path, device=device)
        findings += whole.check_model(llm, path, advance=advance, reproduce=again)
        if what.layers:
            findings += shadow.check_layers(path, llm, reproduce=f"{again} --layers")
    except (IsobathError, RuntimeError) as error:
        detail = f"{type(error).__name__}: {error}"
        findings.append(whole.Finding("model", False, detail, again))
    return findings


@contextmanager
def _progress(total: int) -> Iterator[Advance]:
    """A bar of steps on a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description:40.40}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("starting", total=total)
        yield lambda name, count: bar.update(task, description=name, advance=count)
