"""A backend that is watched: metrics, the log and traces see each call's pieces as they pass.

It answers as the one inside does, so routes need to know nothing of it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from isobath.engine.async_llm import Piece
from isobath.engine.process import Limits
from isobath.engine.sampling import SamplingParams
from isobath.engine.statistics import EngineStatistics
from isobath.model.text import Text
from isobath.server.backend import Backend, Route
from isobath.server.gate import ARRIVED
from isobath.server.request_id import REQUEST_ID


@dataclass(frozen=True, slots=True)
class Call:
    """One prompt of an HTTP request on its way through the backend. arrival: of the request, on
    time.perf_counter's clock."""

    request_id: str
    path: str
    prompt: Sequence[int]
    params: SamplingParams
    arrival: float
    traceparent: str | None = None


class Progress(Protocol):
    """Follows one call."""

    def piece(self, piece: Piece) -> None:
        """Something new of a completion."""

    def ended(self, error: BaseException | None) -> None:
        """Nothing more comes. error: GeneratorExit or CancelledError when the client went away."""


class Observer(Protocol):
    """Wants to know of every call."""

    def started(self, call: Call) -> Progress: ...


class Observed:
    """`backend` with observers, told in their order."""

    def __init__(self, backend: Backend, observers: Sequence[Observer]) -> None:
        self._backend, self._observers = backend, observers

    @property
    def text(self) -> Text:
        return self._backend.text

    @property
    def limits(self) -> Limits:
        return self._backend.limits

    @property
    def alive(self) -> bool:
        return self._backend.alive

    def statistics(self) -> list[EngineStatistics]:
        """The backend's."""
        return self._backend.statistics()

    async def reset_prefix_cache(self) -> None:
        """The backend's."""
        await self._backend.reset_prefix_cache()

    async def close(self, *, drain: bool = False, timeout: float = 5.0) -> None:
        """Close the backend."""
        await self._backend.close(drain=drain, timeout=timeout)

    async def generate(
        self, prompt: Sequence[int], params: SamplingParams, route: Route | None = None
    ) -> AsyncGenerator[Piece, None]:
        """The backend's pieces."""
        arrived = ARRIVED.get()
        call = Call(
            REQUEST_ID.get(),
            arrived.path if arrived else "",
            prompt,
            params,
            arrived.at if arrived else perf_counter(),
            arrived.traceparent if arrived else None,
        )
        watching = [observer.started(call) for observer in self._observers]
        ended: BaseException | None = None
        try:
            async with aclosing(self._backend.generate(prompt, params, route)) as pieces:
                async for piece in pieces:
                    for progress in watching:
                        progress.piece(piece)
                    yield piece
        except BaseException as error:
            ended = error
            raise
        finally:
            for progress in watching:
                progress.ended(ended)
