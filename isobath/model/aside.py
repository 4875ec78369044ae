"""Work that a step does aside: branches of a layer that do not depend on one another.

With few sequences a decode step is a chain of launches of a few microseconds each, none of which
fills the machine; independent ones may run side by side. The model says which: it hands such work
to its `aside` and calls what it gets back where the result is needed. What is handed over may read
what was there before, and must write nothing that is read or written until then.

    later = aside(partial(f, x))  ┬─ f(x)   on the side stream
    y = g(x)                      ├─ g(x)   on the current one
    h(later(), y)                 ┴─ h      after both

On a CPU, and wherever else nothing is gained, aside is `at_once`: straight-line code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch

T = TypeVar("T")


class Aside(Protocol):
    """Starts `work` and returns what gives its result. That must be called before any input of
    `work` is dropped or written, and so within the step: a captured fork has to be joined."""

    def __call__(self, work: Callable[[], T]) -> Callable[[], T]: ...


def at_once(work: Callable[[], T]) -> Callable[[], T]:
    """Nothing aside: `work` is done when this returns."""
    result = work()
    return lambda: result


class SideStream:
    """A second stream that forks from the current one at every call, and is joined by an event when
    the result is asked for. Both are edges of the graph when the current stream is captured.

    Without record_stream(): a tensor made on the side stream returns to that stream's memory, whose
    next user is work handed over later, which waits for all that was enqueued here until then. A
    tensor made here and read there is held, by `work`, as long as what gives the result is.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def __call__(self, work: Callable[[], T]) -> Callable[[], T]:
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            return _Branch(work, work(), self._stream.record_event())


@dataclass(frozen=True, slots=True)
class _Branch(Generic[T]):
    """work: held for what it reads. done: after its last launch."""

    work: Callable[[], T]
    result: T
    done: torch.cuda.Event

    def __call__(self) -> T:
        torch.cuda.current_stream().wait_event(self.done)
        return self.result
