"""From verdicts to an OpTable: which backend each op is bound to on this machine, and why.

On a CPU that is the torch backend. On a GPU the doctor's verdicts decide where they still hold
(this architecture, these versions, this source). An op without any takes the first backend of its
own order that loads and agrees with the reference on a few small cases, now; no op falls back to
another backend because one failed in a verdict that nobody asked about: the reason is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

import torch

from isobath.errors import BackendUnavailable, ConfigError
from isobath.ops.contract import Backend, Op
from isobath.ops.measure import Subject, expected, judge
from isobath.ops.table import OpTable, bind, contract, table_names
from isobath.ops.verdicts import (
    Choice,
    Verdict,
    choose,
    failures,
    of_this_machine,
    source_hash,
)
from isobath.target import Target

CHECKED_CASES = 2
"""Cases of more than no rows that a backend without verdicts must get right at start."""


def bind_measured(
    target: Target,
    verdicts: Iterable[Verdict] = (),
    *,
    batch_invariant: bool = True,
    overrides: Mapping[str, str] | None = None,
    allow_failed: bool = False,
) -> tuple[OpTable, dict[str, Choice]]:
    """The table for `target`, and for each op what was chosen and why.

    overrides: op -> backend, bound without asking. allow_failed: an op that its verdicts leave
    without a backend takes the first of its order that loads, instead of the ConfigError. Raises
    ConfigError when verdicts leave an op without a backend, BackendUnavailable when it has none for
    this machine or none agrees.
    """
    rows, by_hand = of_this_machine(verdicts, target), dict(overrides or {})
    choices = {}
    for name in table_names():
        op = contract(name)
        if name in by_hand:
            choices[name] = Choice(by_hand[name], "bound by hand", {})
        elif target.kind == "cpu":
            choices[name] = Choice("torch", "the CPU's backend", {})
        else:
            try:
                choices[name] = _measured(op, rows, batch_invariant) or _checked(op, target)
            except ConfigError as error:
                if not allow_failed:
                    raise
                choices[name] = _anyhow(op, error.found)
    return bind("reference", {name: c.backend for name, c in choices.items()}), choices


def refuse_failed(target: Target, verdicts: Iterable[Verdict]) -> None:
    """Raise ConfigError when the doctor found the CPU's backend of an op wrong here, on this
    source. (On a GPU bind_measured refuses, since there is a choice.)"""
    red = {}
    for row in of_this_machine(verdicts, target):
        op = contract(row.op) if row.op in table_names() else None
        if op and row.backend == "torch" and row.source == source_hash(row.op):
            red[row.op, row.case] = failures(row, op)
    found = [f"{op} on case {case}: {why[0]}" for (op, case), why in red.items() if why]
    if target.kind == "cpu" and found:
        raise ConfigError(
            "serve on this machine",
            found=f"{len(found)} failed verdicts of the doctor: " + "; ".join(found[:3]),
            effect="answers would be wrong, or depend on chance or on the batch",
            do="isobath doctor --op " + found[0].split(" ")[0] + "; --allow-failed-verdicts "
            "serves anyway",
        )


def _anyhow(op: Op, why: str) -> Choice:
    """The first backend in the op's order that loads, although all have failed verdicts."""
    for name in op.backends:
        if name != "torch":
            with suppress(BackendUnavailable):
                op.backend(name)
                return Choice(name, f"failed verdicts were allowed: {why}", {})
    raise BackendUnavailable(f"{op.name}: no backend loads", found=why)


def _measured(op: Op, rows: list[Verdict], batch_invariant: bool) -> Choice | None:
    """What verdicts on this source say; None where there are none."""
    try:
        return choose(rows, op, batch_invariant=batch_invariant)
    except ConfigError as error:
        known = [why for why in error.found.split("; ") if not why.endswith(_NOT_MEASURED)]
        if known:
            raise
        return None


_NOT_MEASURED = ("never measured", "measured on other source only")


def _checked(op: Op, target: Target) -> Choice:
    """The first backend in the op's order that agrees with the reference on small cases."""
    rejected = {}
    for name in op.backends:
        if name == "torch":
            rejected[name] = "for a CPU"
            continue
        try:
            backend = op.backend(name)
            why = self_check(op, backend, target)
        except BackendUnavailable as error:
            why = error.found
        if not why:
            reason = "first of its order, agrees on small cases at start; no verdicts of the doctor"
            return Choice(name, reason, rejected)
        rejected[name] = why
    raise BackendUnavailable(
        f"{op.name}: no backend for {target.arch}",
        found="; ".join(f"{name}: {why}" for name, why in rejected.items()),
        effect="the model cannot run on this device",
        do=f"isobath doctor --op {op.name}, or run on the CPU with device='cpu'",
    )


def self_check(op: Op, backend: Backend, target: Target) -> str:
    """Why `backend` is wrong on the op's first small cases with rows, in the device's dialect; ""
    if it is right. A backend may raise anything, and that is its answer."""
    cases = [c for c in op.cases() if c.small and not c.gpu_only and "empty" not in c.name]
    with torch.no_grad():
        for case in cases[:CHECKED_CASES]:
            subject = Subject(op, backend, case, target.dialect, target.device)
            try:
                got = subject.observe(subject.prepared(subject.build()))
            except Exception as error:
                return f"case {case.name}: {type(error).__name__}: {error}"
            right, _, note = judge(op, got, expected(subject))
            if not right:
                return f"case {case.name}: {note}"
    return ""
