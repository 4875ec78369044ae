"""What the routes need of whoever computes: one engine (AsyncLLM) or several (replicas)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from isobath.engine.async_llm import Piece
from isobath.engine.process import Limits
from isobath.engine.sampling import SamplingParams
from isobath.engine.statistics import EngineStatistics
from isobath.model.text import Text


@dataclass(frozen=True, slots=True)
class Route:
    """What speaks for one engine rather than another. session: requests of one conversation share
    it, and so the engine whose cache knows their beginning."""

    session: str | None = None


class Backend(Protocol):
    """Completes prompts. generate() raises RequestError for a prompt that cannot be served and
    EngineDied when nothing can; closing it ends the request."""

    @property
    def text(self) -> Text: ...
    @property
    def limits(self) -> Limits: ...
    @property
    def alive(self) -> bool: ...
    def generate(
        self, prompt: Sequence[int], params: SamplingParams, route: Route | None = None
    ) -> AsyncGenerator[Piece, None]: ...
    def statistics(self) -> list[EngineStatistics]: ...
    async def reset_prefix_cache(self) -> None: ...
    async def close(self, *, drain: bool = False, timeout: float = 5.0) -> None: ...
