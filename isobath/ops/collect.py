"""What there is to measure on a machine: ops, backends, cases and dialects, and what is left out.

The torch backend is for a CPU alone, the others for a GPU alone, there in the one dialect that its
units read: the other has no hardware conversion. Whatever is left out is counted with its reason.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product

from isobath.errors import BackendUnavailable, ConfigError
from isobath.numerics.dialect import DIALECTS
from isobath.ops.contract import Case
from isobath.ops.measure import Subject
from isobath.ops.table import contract, op_names
from isobath.target import Target


@dataclass(frozen=True, slots=True)
class Found:
    """What there is to measure. unavailable: "op/backend" that cannot be loaded here. left_out:
    reason -> number of cases that are not measured for it."""

    subjects: list[Subject]
    unavailable: list[str]
    left_out: dict[str, int]


def collect(
    target: Target,
    op: str | None = None,
    backend: str | None = None,
    dialect: str | None = None,
    case: str | None = None,
) -> Found:
    """What there is to measure on `target`, of one op, backend, dialect and case or of all.

    Raises ConfigError for an unknown op, dialect or case.
    """
    if dialect is not None and dialect not in DIALECTS:
        raise ConfigError(f"no dialect is called {dialect!r}", found=", ".join(DIALECTS))
    on_cpu, found, left_out = target.kind == "cpu", Found([], [], {}), Counter[str]()
    for name in op_names() if op is None else (op,):
        one = contract(name)
        cases = [c for c in one.cases() if case in (None, c.name)]
        if not cases and op is not None:
            names = ", ".join(c.name for c in one.cases())
            raise ConfigError(f"{name} has no case called {case!r}", found=names)
        for kind in one.backends:
            if (kind == "torch") != on_cpu or backend not in (None, kind):
                continue
            try:
                bound = one.backend(kind)
            except BackendUnavailable:
                found.unavailable.append(f"{name}/{kind}")
                continue
            for spoken, each in product(DIALECTS, cases):
                why = _why_not(target, spoken, each)
                if dialect not in (None, spoken):
                    continue
                if why:
                    left_out[why] += 1
                else:
                    value = DIALECTS[spoken]
                    found.subjects.append(Subject(one, bound, each, value, target.device))
    found.left_out.update(left_out)
    return found


def _why_not(target: Target, dialect: str, case: Case) -> str:
    """Why a case is not measured here; "" if it is."""
    if target.kind == "cpu":
        return "too large for a CPU, or only of meaning on a GPU" if case.gpu_only else ""
    if dialect != target.dialect.name:
        return f"{target.arch} has no units for {DIALECTS[dialect]}"
    return ""
