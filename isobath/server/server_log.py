"""What a server writes to its log, besides requests: where lines go, and the one of every ten
seconds, in vLLM's wording, because people's scrapers read it. An idle server is silent."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from isobath.config import ServerConfig
from isobath.engine.statistics import EngineStatistics
from isobath.server.state import ServerState

INTERVAL_SECONDS = 10.0
FORMAT, CLOCK = "%(levelname)s %(asctime)s %(message)s", "%m-%d %H:%M:%S"
log = logging.getLogger(__name__)


class Quiet(logging.Filter):
    """Leaves out the access lines of some paths."""

    def __init__(self, paths: Sequence[str]) -> None:
        super().__init__()
        self._paths = frozenset(paths)

    def filter(self, record: logging.LogRecord) -> bool:
        arguments = record.args
        if not isinstance(arguments, tuple) or len(arguments) < 3:
            return True
        return str(arguments[2]).partition("?")[0] not in self._paths


def configure(config: ServerConfig) -> None:
    """Send isobath's and uvicorn's records to stderr, one line each, with the time."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT, CLOCK))
    levels = {"isobath": config.log_level, "uvicorn.access": config.uvicorn_log_level}
    # uvicorn tells at INFO that it started, long before the server is ready.
    chatty = config.uvicorn_log_level in ("debug", "trace")
    levels["uvicorn.error"] = "debug" if chatty else "warning"
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel({"trace": "DEBUG"}.get(level, level.upper()))
    access = logging.getLogger("uvicorn.access")
    access.filters[:] = [Quiet(config.disable_access_log_for_endpoints)]
    access.disabled = config.disable_uvicorn_access_log


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the engines."""

    prompt: int = 0
    generation: int = 0
    queries: int = 0
    hits: int = 0
    running: int = 0
    waiting: int = 0
    usage: float = 0.0

    @classmethod
    def of(cls, records: Sequence[EngineStatistics]) -> Totals:
        return cls(
            sum(r.prompt_tokens for r in records),
            sum(r.generation_tokens for r in records),
            sum(r.prefix_queries for r in records),
            sum(r.prefix_hits for r in records),
            sum(r.running for r in records),
            sum(r.waiting for r in records),
            sum(r.kv_cache_usage for r in records) / max(1, len(records)),
        )

    def line(self, before: Totals, seconds: float) -> str | None:
        """What happened since `before`, or None if nothing did. The hit rate is that of the prompts
        of this interval, of all prompts so far if it had none."""
        prompt, generation = self.prompt - before.prompt, self.generation - before.generation
        if not (prompt or generation or self.running or self.waiting):
            return None
        queries, hits = self.queries - before.queries, self.hits - before.hits
        if queries <= 0:
            queries, hits = self.queries, self.hits
        # A restarted engine counts from 0.
        return (
            f"Avg prompt throughput: {max(0, prompt) / seconds:.1f} tokens/s, "
            f"Avg generation throughput: {max(0, generation) / seconds:.1f} tokens/s, "
            f"Running: {self.running} reqs, Waiting: {self.waiting} reqs, "
            f"GPU KV cache usage: {100 * self.usage:.1f}%, "
            f"Prefix cache hit rate: {100 * hits / max(1, queries):.1f}%"
        )


async def tell_statistics(state: ServerState, seconds: float = INTERVAL_SECONDS) -> None:
    """Log a line every `seconds` in which something happened, for ever."""
    assert state.backend is not None
    before = Totals.of(state.backend.statistics())
    while True:
        await asyncio.sleep(seconds)
        now = Totals.of(state.backend.statistics())
        if line := now.line(before, seconds):
            log.info("%s", line)
        before = now
