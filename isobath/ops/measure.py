"""What one backend does on one case: right, repeatable, replayable, alone as in company, how fast.

Inputs are drawn on the CPU and copied for every run, so that no run sees what another left. The
reference runs on the CPU on the same bits, so nothing that is judged takes part in judging; cases
too large for that (Case.large) are drawn and judged on the GPU. Every output is poisoned before it
is written, and the first run's inputs lie between bands of poison (placement.py). None means not
measured (here, or on this case), and is never counted as a pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Backend, Case, Op, Work
from isobath.ops.placement import Poisoned, beyond_2_gib, copied, guarded, tensors
from isobath.ops.replay import Timing, capture, time_calls, watched

SEED = 20260731
POISONS = (0xFF, 0x7F, 0x80)
"""One a run: bytes that nobody wrote differ between runs, and are NaN in the first."""
BUDGET_S = 0.1

Observed = Mapping[str, torch.Tensor]
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Measurement:
    """agrees, error: against the reference, in the unit of the op's agreement. format_error: the
    same against unrounded inputs, where the case has them. note: the first failure, or "". work: by
    the op's contract."""

    agrees: bool
    error: float
    format_error: float | None
    deterministic: bool | None
    graph_safe: bool | None
    batch_invariant: bool | None
    timing: Timing | None
    note: str
    work: Work | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: one backend of one op on one case, in one dialect, on one device."""

    op: Op
    backend: Backend
    case: Case
    dialect: Dialect
    device: torch.device
    drawn: dict[int, Arguments] = field(default_factory=dict, compare=False, repr=False)

    @property
    def judged_on(self) -> torch.device:
        """Where inputs are drawn, the reference runs and results are compared."""
        return self.device if self.case.large else CPU

    def build(self, device: torch.device | None = None, seed: int = SEED) -> Arguments:
        """A copy of the arguments that `seed` draws, weights not yet prepared."""
        if seed not in self.drawn:
            generator = torch.Generator().manual_seed(seed)
            self.drawn[seed] = self.case.make(self.dialect, self.judged_on, generator)
        return copied(self.drawn[seed], device or self.device)

    def prepared(self, args: Arguments) -> Arguments:
        """The arguments as this backend wants its weights."""
        return args | {name: self.backend.prepare(args[name]) for name in self.op.weights}

    def observe(self, args: Arguments, poison: int = POISONS[0]) -> Observed:
        """Call the backend on prepared arguments, its outputs poisoned; copies of what it gave."""
        placed, recall = beyond_2_gib(args, self.op.rows) if self.case.far else (args, dict)
        with Poisoned(poison):
            result = self.backend(**placed)
        seen = self.op.observe(result, recall(placed))
        return {name: t.detach().to(self.judged_on, copy=True) for name, t in seen.items()}


def measure(
    subject: Subject, *, timed: bool = False, budget_s: float = BUDGET_S, decode: bool = False
) -> Measurement:
    """Measure everything that can be measured here; time only what is right, and only if asked.

    decode: on a CPU, too, a call whose torch operators show that it cannot be captured is not
    graph-safe; the CPU's own kernels read values back where only prefill goes.
    """
    with torch.no_grad():
        try:
            return _measure(subject, timed, budget_s, decode)
        except Exception as error:  # a backend may raise anything, and doing so is its verdict
            text = f"{type(error).__name__}: {error}"
            return Measurement(False, float("inf"), None, None, None, None, None, text)
        finally:
            subject.drawn.clear()  # large ones would fill the memory


def _measure(subject: Subject, timed: bool, budget_s: float, decode: bool) -> Measurement:
    guard = guarded(subject.build())
    got = subject.observe(subject.prepared(guard.args))
    right, error, note = judge(subject.op, got, expected(subject))
    scribbled = _changed_inputs(subject, guard.args)
    if scribbled or not guard.whole():
        what = f"its inputs {', '.join(scribbled)}" if scribbled else "memory outside its arguments"
        right, note = False, note or f"changes {what}"
    format_error = None
    if subject.case.unrounded is not None:
        format_error = judge(subject.op, got, expected(subject, unrounded=True))[1]
    repeatable = _is_deterministic(subject, got)
    alone = _is_batch_invariant(subject, got)
    replayable, unsafe = None, ""
    if right and (decode or subject.device.type == "cuda"):
        replayable, unsafe = _is_graph_safe(subject, got)
    for passed, text in (
        (repeatable, "two runs on equal inputs differ"),
        (alone, "a row's result depends on the rows beside it"),
        (replayable, unsafe),
    ):
        note = note or ("" if passed is not False else text)
    timing = None
    if timed and right:
        timing = time_subject(subject, replay=replayable is True, budget_s=budget_s)
    work = subject.op.work(subject.build()) if subject.op.work else None
    return Measurement(
        right, error, format_error, repeatable, replayable, alone, timing, note, work
    )


def expected(subject: Subject, *, unrounded: bool = False) -> Observed:
    """The reference's observed tensors, on the case's inputs or on their sources."""
    args = subject.build(subject.judged_on)
    if unrounded:
        assert subject.case.unrounded is not None, subject.case.name
        args = subject.case.unrounded(args)
    return dict(subject.op.observe(subject.op.reference()(**args), args))


def judge(op: Op, got: Observed, want: Observed) -> tuple[bool, float, str]:
    """(every tensor agrees, the worst error, what differs first). Names and dtypes must match."""
    if got.keys() != want.keys():
        return False, float("inf"), f"tensors {sorted(got)}, expected {sorted(want)}"
    right, worst, note = True, 0.0, ""
    for name, tensor in want.items():
        report = op.agree.compare(got[name], tensor)
        worst = max(worst, report.error)
        text = "" if report.agrees else f"{name}: {report.text}"
        if got[name].dtype != tensor.dtype:
            text = f"{name}: dtype {got[name].dtype}, expected {tensor.dtype}"
        right, note = right and not text, note or text
    return right, worst, note


def same_bits(a: Observed, b: Observed) -> bool:
    """Same names, shapes, dtypes and bytes; a NaN's payload and a zero's sign count."""
    return a.keys() == b.keys() and all(
        a[name].shape == b[name].shape
        and a[name].dtype == b[name].dtype
        and torch.equal(_bytes(a[name]), _bytes(b[name]))
        for name in a
    )


def time_subject(subject: Subject, *, replay: bool, budget_s: float = BUDGET_S) -> Timing:
    """The time of a call; replay: of one captured as decode runs it, which needs a GPU."""
    with torch.no_grad():
        args = subject.prepared(subject.build())
        if subject.case.far:
            args, _ = beyond_2_gib(args, subject.op.rows)
        if replay:
            graph = capture(subject.backend, args)
            return time_calls(graph.graph.replay, subject.device, budget_s)
        return time_calls(lambda: subject.backend(**args), subject.device, budget_s)


def _changed_inputs(subject: Subject, args: Arguments) -> list[str]:
    """Names of the arguments that a call changed without its contract saying so."""
    drawn = subject.drawn[SEED]
    may = {*subject.op.writes, *subject.op.weights}
    pairs = {name: zip(tensors(args[name]), tensors(drawn[name]), strict=True) for name in args}
    return [
        name
        for name in args
        if name not in may
        and not all(torch.equal(_bytes(a.to(b.device)), _bytes(b)) for a, b in pairs[name])
    ]


def _is_deterministic(subject: Subject, first: Observed) -> bool:
    again = (subject.observe(subject.prepared(subject.build()), byte) for byte in POISONS[1:])
    return all(same_bits(first, other) for other in again)


def row_groups(num_rows: int) -> list[list[int]]:
    """Which rows to run together: some alone, then halves, thirds and every other, in order.

    Rows stay in ascending order because tokens of one sequence must.
    """
    rows = list(range(num_rows))
    alone = sorted({0, 1, num_rows // 2, num_rows - 2, num_rows - 1})
    groups = [[i] for i in alone]
    groups += [rows[: num_rows // 2], rows[num_rows // 2 :], rows[: num_rows // 3], rows[1:]]
    groups += [rows[0::2], rows[1::2]]
    return [group for group in groups if 0 < len(group) < num_rows]


def _is_batch_invariant(subject: Subject, whole: Observed) -> bool | None:
    """None for an op that cannot be cut into rows, and for a case of fewer than two."""
    select = subject.op.select
    num_rows = min((len(t) for t in whole.values()), default=0)
    if select is None or num_rows < 2:
        return None
    for group in row_groups(num_rows):
        part = subject.observe(subject.prepared(select(subject.build(), group)))
        if not same_bits(part, {name: t[group] for name, t in whole.items()}):
            return False
    return True


def _is_graph_safe(subject: Subject, first: Observed) -> tuple[bool | None, str]:
    """(whether it is, None where that is not measured; why not).

    Captured on one seed's inputs, replayed on another's and on its own again: each time the bits of
    an eager call? Weights stay those of the capture. first: the eager result on its own inputs.
    """
    reason = watched(subject.backend, subject.prepared(subject.build()), subject.op.name)
    if reason:
        return False, reason
    if subject.device.type != "cuda" or subject.case.far:
        return None, ""
    static, other = subject.prepared(subject.build()), subject.build(seed=SEED + 1)
    other |= {name: static[name] for name in subject.op.weights}
    if [t.shape for t in tensors(static)] != [t.shape for t in tensors(other)]:
        return None, ""
    own, others = ([t.clone() for t in tensors(args)] for args in (static, other))
    try:
        graph = capture(subject.backend, static)
    except RuntimeError as error:
        return False, f"cannot be captured: {str(error).splitlines()[0]}"
    for values, want in ((others, subject.observe(other)), (own, first)):
        graph.replay(values)
        seen = subject.op.observe(graph.result, static)
        if not same_bits({n: t.to(subject.judged_on) for n, t in seen.items()}, want):
            return False, "a replayed graph differs from an eager call on the same inputs"
    return True, ""


def _bytes(t: torch.Tensor) -> torch.Tensor:
    return t.contiguous().reshape(-1).view(torch.uint8)
