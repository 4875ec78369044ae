"""Every op, backend and case against its reference, with all properties, then the times.

On a GPU the judging is done by several processes at once, most of it being compilation; a process
judges one op's backend, and a fault that takes the device's context with it costs no other case its
verdict: the next ones are judged in a new process. Times are then taken here, one after the other,
of what was right.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import torch

from isobath.ops.collect import collect
from isobath.ops.measure import Measurement, Subject, measure, time_subject
from isobath.ops.verdicts import Verdict, verdict
from isobath.target import Target

BUDGET_S = 0.02
"""For the times of one case: enough for tens of calls, and minutes for all cases together."""
JOBS = 8
"""Each compiles on one core and holds a device context."""
THREADS = 2
"""Of each judging process, for its references."""
MAX_PROCESSES = 4
"""For one op's backend; each one more follows a case that broke the device."""
Advance = Callable[[str, int], None]
"""Called with (what was done, how many of the steps)."""


@dataclass(frozen=True, slots=True)
class OpsResult:
    """rows: a verdict a case. unavailable: "op/backend" that cannot be loaded here. left_out:
    reason -> cases."""

    rows: list[Verdict]
    unavailable: list[str]
    left_out: dict[str, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to check; None is everything."""

    op: str | None = None
    backend: str | None = None
    dialect: str | None = None
    case: str | None = None

    def subjects(self, target: Target) -> list[Subject]:
        return collect(target, self.op, self.backend, self.dialect, self.case).subjects


def check_ops(target: Target, wanted: Wanted, *, jobs: int, advance: Advance) -> OpsResult:
    """Judge and time everything wanted; `jobs`: processes that judge at once, 1 for this one."""
    found = collect(target, wanted.op, wanted.backend, wanted.dialect, wanted.case)
    if jobs < 2:
        rows = [_judge(subject, target, advance) for subject in found.subjects]
    else:
        rows = _judge_apart(found.subjects, target, wanted, jobs, advance)
    timed = [
        _time(row, subject, advance) for row, subject in zip(rows, found.subjects, strict=True)
    ]
    return OpsResult(timed, found.unavailable, found.left_out)


def default_jobs(target: Target) -> int:
    """Processes that judge on `target` at once: on a GPU JOBS, where there are cores for them."""
    return 1 if target.kind == "cpu" else min(JOBS, max(1, (os.cpu_count() or 2) // 2))


def steps(target: Target, wanted: Wanted) -> int:
    """How many steps check_ops() will advance by: one to judge and one to time each case."""
    return 2 * len(wanted.subjects(target))


def _judge(subject: Subject, target: Target, advance: Advance) -> Verdict:
    row = verdict(subject, measure(subject), target)
    advance(f"{row.op} {row.case}", 1)
    return row


def judge_group(target: Target, wanted: Wanted, start: int) -> list[Verdict]:
    """The verdicts of one op's backend from subject number `start` on, in a process of its own.
    Ends early, after the case that broke the device."""
    rows: list[Verdict] = []
    for subject in wanted.subjects(target)[start:]:
        rows.append(verdict(subject, measure(subject), target))
        if not rows[-1].agrees and not _is_alive(target):
            break
    return rows


def _is_alive(target: Target) -> bool:
    """Whether the device still computes; after some faults no call of this process ever does."""
    try:
        return float(torch.ones(2, device=target.device).sum()) == 2
    except RuntimeError:
        return False


def _judge_apart(
    subjects: Sequence[Subject], target: Target, wanted: Wanted, jobs: int, advance: Advance
) -> list[Verdict]:
    """judge_group() for every op and backend, `jobs` processes at a time; rows as `subjects`."""
    groups: dict[tuple[str, str], list[Subject]] = defaultdict(list)
    for subject in subjects:
        groups[subject.op.name, subject.backend.name].append(subject)

    def judged(key: tuple[str, str]) -> list[Verdict]:
        mine, rows = groups[key], list[Verdict]()
        one = replace(wanted, op=key[0], backend=key[1])
        for _ in range(MAX_PROCESSES):
            found = in_a_process(target, one, len(rows))
            if isinstance(found, int):
                died = _dead(f"its process died with code {found}")
                found = [verdict(mine[len(rows)], died, target)]
            rows += found
            if len(rows) == len(mine):
                break
        left = _dead(f"not measured: {MAX_PROCESSES} cases broke the device or their process")
        rows += [verdict(subject, left, target) for subject in mine[len(rows) :]]
        advance("/".join(key), len(mine))
        return rows

    with ThreadPoolExecutor(jobs) as pool:
        found = dict(zip(groups, pool.map(judged, groups), strict=True))
    by_key = {key: iter(rows) for key, rows in found.items()}
    return [next(by_key[s.op.name, s.backend.name]) for s in subjects]


def in_a_process(target: Target, wanted: Wanted, start: int) -> list[Verdict] | int:
    """What judge_group() returns there, or the exit code of a process that did not return."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_tell, args=(sender, target, wanted, start))
    process.start()
    sender.close()
    try:
        rows: list[Verdict] = receiver.recv()
    except EOFError:
        process.join()
        return process.exitcode or 0
    process.join()
    return rows


def _tell(
    sender: Connection[list[Verdict], None], target: Target, wanted: Wanted, start: int
) -> None:
    torch.set_num_threads(THREADS)
    sender.send(judge_group(target, wanted, start))
    sender.close()


def _dead(note: str) -> Measurement:
    return Measurement(False, float("inf"), None, None, None, None, None, note)


def _time(row: Verdict, subject: Subject, advance: Advance) -> Verdict:
    """The row with the time of a right backend; what cannot be timed is wrong."""
    advance(f"{row.op} {row.case}", 1)
    if not row.agrees:
        return row
    try:
        timing = time_subject(subject, replay=row.graph_safe is True, budget_s=BUDGET_S)
    except RuntimeError as error:
        return replace(row, agrees=False, error=None, note=f"while timed: {error}")
    subject.drawn.clear()
    return replace(row, us=timing.median, us_p10=timing.p10, us_p90=timing.p90)
