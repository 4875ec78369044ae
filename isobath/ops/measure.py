"""What one backend does on one case: right, repeatable, replayable, alone as in company, how fast.

The reference always runs on the CPU, on inputs built there from the same seed, so nothing that is
judged takes part in judging. Every run gets freshly built inputs: a backend that changes what it
reads cannot hide. None means not measured (here, or on this case), and is never counted as a pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch

from isobath.numerics.dialect import Dialect
from isobath.ops.contract import Arguments, Backend, Case, Op

SEED = 20260731
REPEATS = 3
WARM_UP, MIN_SAMPLES, MAX_SAMPLES = 3, 5, 200
FLUSH_BYTES = 256 << 20
"""Larger than any GPU's last-level cache: written between timed calls, so that none starts warm."""

Observed = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds a call: median, 10th and 90th percentile of `samples` calls after warm-up."""

    median: float
    p10: float
    p90: float
    samples: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """agrees, error: against the reference, in the unit of the op's agreement. format_error: the
    same against unrounded inputs, where the case has them. note: the first failure, or ""."""

    agrees: bool
    error: float
    format_error: float | None
    deterministic: bool | None
    graph_safe: bool | None
    batch_invariant: bool | None
    timing: Timing | None
    note: str


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: one backend of one op on one case, in one dialect, on one device."""

    op: Op
    backend: Backend
    case: Case
    dialect: Dialect
    device: torch.device

    def build(self, device: torch.device | None = None, seed: int = SEED) -> Arguments:
        """Fresh arguments, weights not yet prepared."""
        generator = torch.Generator().manual_seed(seed)
        return self.case.make(self.dialect, device or self.device, generator)

    def prepared(self, args: Arguments) -> Arguments:
        """The arguments as this backend wants its weights."""
        return args | {name: self.backend.prepare(args[name]) for name in self.op.weights}

    def observe(self, args: Arguments) -> Observed:
        """Call the backend on prepared arguments; the observed tensors, copied to the CPU."""
        seen = self.op.observe(self.backend(**args), args)
        return {name: t.detach().to("cpu", copy=True) for name, t in seen.items()}


def measure(subject: Subject, *, timed: bool = False) -> Measurement:
    """Measure everything that can be measured here; time only what is right, and only if asked."""
    with torch.no_grad():
        try:
            return _measure(subject, timed)
        except Exception as error:  # a backend may raise anything, and doing so is its verdict
            text = f"{type(error).__name__}: {error}"
            return Measurement(False, float("inf"), None, None, None, None, None, text)


def _measure(subject: Subject, timed: bool) -> Measurement:
    args = subject.build()
    got = subject.observe(subject.prepared(args))
    right, error, note = judge(subject.op, got, expected(subject))
    scribbled = _changed_inputs(subject, args)
    if scribbled:
        right, note = False, note or f"changes its inputs {', '.join(scribbled)}"
    format_error = None
    if subject.case.unrounded is not None:
        format_error = judge(subject.op, got, expected(subject, unrounded=True))[1]
    repeatable = _is_deterministic(subject, got)
    alone = _is_batch_invariant(subject, got)
    replayable = _is_graph_safe(subject) if right and subject.device.type == "cuda" else None
    for passed, text in (
        (repeatable, "two runs on equal inputs differ"),
        (alone, "a row's result depends on the rows beside it"),
        (replayable, "a replayed graph differs from an eager call on the same inputs"),
    ):
        note = note or ("" if passed is not False else text)
    timing = time_calls(subject) if timed and right else None
    return Measurement(right, error, format_error, repeatable, replayable, alone, timing, note)


def expected(subject: Subject, *, unrounded: bool = False) -> Observed:
    """The reference's observed tensors on the CPU, on the case's inputs or on their sources."""
    args = subject.build(torch.device("cpu"))
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


def time_calls(subject: Subject, budget_s: float = 0.1) -> Timing:
    """Time single calls on one set of inputs: device time on a GPU with a cold cache, else wall
    time. Stops at MAX_SAMPLES, or after budget_s once MIN_SAMPLES are in."""
    args = subject.prepared(subject.build())
    on_gpu = subject.device.type == "cuda"
    flush = torch.empty(FLUSH_BYTES if on_gpu else 0, dtype=torch.uint8, device=subject.device)
    sample = _gpu_us if on_gpu else _wall_us

    def call() -> Any:
        return subject.backend(**args)

    for _ in range(WARM_UP):
        call()
    samples: list[float] = []
    start = time.perf_counter()
    while len(samples) < MAX_SAMPLES:
        samples.append(sample(call, flush))
        if len(samples) >= MIN_SAMPLES and time.perf_counter() - start > budget_s:
            break
    p10, median, p90 = torch.tensor(samples).quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return Timing(median, p10, p90, len(samples))


def _wall_us(call: Callable[[], Any], flush: torch.Tensor) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e6


def _gpu_us(call: Callable[[], Any], flush: torch.Tensor) -> float:
    flush.zero_()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e3


def _changed_inputs(subject: Subject, args: Arguments) -> list[str]:
    """Names of the arguments that a call changed without its contract saying so."""
    fresh = subject.build()
    may = {*subject.op.writes, *subject.op.weights}
    pairs = {name: zip(tensors(args[name]), tensors(fresh[name]), strict=True) for name in args}
    return [
        name
        for name in args
        if name not in may and not all(torch.equal(_bytes(a), _bytes(b)) for a, b in pairs[name])
    ]


def _is_deterministic(subject: Subject, first: Observed) -> bool:
    again = (subject.observe(subject.prepared(subject.build())) for _ in range(REPEATS - 1))
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


def _is_graph_safe(subject: Subject) -> bool:
    """Capture a call, overwrite its inputs with another seed's, replay: the bits of an eager call?

    Weights stay those of the capture. A call that cannot be captured is not graph-safe.
    """
    static, other = subject.prepared(subject.build()), subject.build(seed=SEED + 1)
    other |= {name: static[name] for name in subject.op.weights}
    pairs = list(zip(tensors(static), tensors(other), strict=True))
    if any(a.shape != b.shape for a, b in pairs):
        return False
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    start = [a.clone() for a, _ in pairs]
    fresh = [b.clone() for _, b in pairs]
    try:
        with torch.cuda.stream(stream):  # compiles and allocates before the capture
            subject.backend(**static)
        stream.synchronize()
        for (a, _), value in zip(pairs, start, strict=True):
            a.copy_(value)
        with torch.cuda.graph(graph, stream=stream):
            result = subject.backend(**static)
    except RuntimeError:
        return False
    for (a, _), value in zip(pairs, fresh, strict=True):
        a.copy_(value)
    graph.replay()
    torch.cuda.synchronize()
    seen = {n: t.cpu() for n, t in subject.op.observe(result, static).items()}
    return same_bits(seen, subject.observe(other))


def tensors(value: Any) -> list[torch.Tensor]:
    """Every tensor inside arguments: in dicts, tuples and records, in a fixed order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for item in value.values() for t in tensors(item)]
    if isinstance(value, list | tuple):
        return [t for item in value for t in tensors(item)]
    if is_dataclass(value) and not isinstance(value, type):
        return [t for f in fields(value) for t in tensors(getattr(value, f.name))]
    return []


def _bytes(t: torch.Tensor) -> torch.Tensor:
    return t.contiguous().reshape(-1).view(torch.uint8)
