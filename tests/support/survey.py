"""What a run of a survey is, and how its result is judged: NumPy in float64, or exact integers.

survey = Survey()
survey.add("sort", kernel, 1, (x, out), lambda: {1: np.sort(x)}, B=64)
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import ml_dtypes
import numpy as np

from isobath.emulator import launch

f16, f32, f64, bf16 = np.float16, np.float32, np.float64, ml_dtypes.bfloat16
i8, i16, i32, i64 = np.int8, np.int16, np.int32, np.int64
u8, u16, u32, u64 = np.uint8, np.uint16, np.uint32, np.uint64
TRITON = tuple(int(part) for part in version("triton").split(".")[:2])
WIDTHS = (1, 2, 4, 8, 16)
Want = Callable[[], dict[int, Any]]


@dataclass(frozen=True)
class Run:
    """want: what the arguments at these places must hold; error: the largest difference as a share
    of the largest value of the row, 0 for equal numbers; widths, stages: num_warps and num_stages
    to try, the first of each in every test run."""

    kernel: Any
    grid: Any
    args: tuple[Any, ...]
    want: Want
    error: float
    widths: tuple[int, ...]
    stages: tuple[int, ...]
    constexprs: dict[str, Any]

    def others(self) -> list[tuple[int, int]]:
        """(num_warps, num_stages) beside the first of each."""
        pairs = [(w, self.stages[0]) for w in self.widths[1:]]
        return pairs + [(self.widths[0], s) for s in self.stages[1:]]


@dataclass
class Survey:
    """Runs by name."""

    runs: dict[str, Run] = field(default_factory=dict)

    def add(
        self,
        name: str,
        kernel: Any,
        grid: Any,
        args: Sequence[Any],
        want: Want,
        error: float = 0.0,
        *,
        widths: tuple[int, ...] = (4, 1, 2, 8),
        stages: tuple[int, ...] = (2,),
        **constexprs: Any,
    ) -> None:
        assert name not in self.runs, name
        run = Run(kernel, grid, tuple(args), want, error, widths, stages, constexprs)
        self.runs[name] = run


class Draw:
    """Random arrays of one topic, the same in every process."""

    def __init__(self, topic: str) -> None:
        self.rng = np.random.default_rng(zlib.crc32(topic.encode()))

    def normal(self, *shape: int, kind: Any = f32) -> np.ndarray:
        return self.rng.standard_normal(shape).astype(kind)

    def integers(self, low: int, high: int, *shape: int, kind: Any = i32) -> np.ndarray:
        drawn = self.rng.integers(low, high, shape, dtype=u64 if high > 2**63 else i64)
        return drawn.astype(kind)


Topic = Callable[[Survey, Draw], None]


def collected(*topics: Topic) -> Survey:
    """The runs that every topic adds, each with random arrays of its own."""
    found = Survey()
    for add in topics:
        add(found, Draw(add.__name__))
    return found


def name(kind: Any) -> str:
    """A type's name, for that of a run."""
    return np.dtype(kind).name


def zeros(*shape: int, kind: Any = f32) -> np.ndarray:
    return np.zeros(shape, kind)


def emulated(run: Run, width: int, stages: int, checks: str) -> list[str]:
    """What is wrong with each argument that the run must write; nothing if all is right."""
    args = [copied(a) for a in run.args]
    options = {"num_warps": width, "num_stages": stages, "checks": checks}
    launch(run.kernel, run.grid, *args, **options, **run.constexprs)
    with np.errstate(all="ignore"):
        found = [difference(args[k], want, run.error) for k, want in run.want().items()]
    return [text for text in found if text]


def copied(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(copied(part) for part in value)
    return value.copy() if isinstance(value, np.ndarray) else value


def difference(got: np.ndarray, want: Any, error: float) -> str:
    """The worst element in words, "" if it agrees."""
    want = np.asarray(want).reshape(got.shape)
    if got.dtype.kind in "iub":
        wrong = got.astype(object) != want.astype(object)
        at = tuple(int(i) for i in np.argwhere(wrong)[0]) if wrong.any() else ()
        return f"{wrong.sum()} differ, at {at} {got[at]} for {want[at]}" if wrong.any() else ""
    got, want = got.astype(f64), want.astype(f64)
    same = (got == want) | (np.isnan(got) & np.isnan(want))
    size = np.abs(np.where(np.isfinite(want), want, 0))
    size = size.max(-1, keepdims=True) if want.ndim > 1 else size.max(initial=0.0)
    share = np.where(same, 0.0, np.abs(got - want) / np.maximum(size, 1e-300))
    share = np.where(np.isnan(share), np.inf, share)
    at = tuple(int(i) for i in np.unravel_index(share.argmax(), share.shape))
    return f"{share[at]:.2g} at {at}: {got[at]} for {want[at]}" if share[at] > error else ""
