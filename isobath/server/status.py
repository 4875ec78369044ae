"""The status page at /, what it shows as JSON, and the plan.

The page is one answer: HTML, style, script and picture in it, nothing fetched from elsewhere. It is
rendered here, complete without a script; with one it asks for /status.json every second. History
for its lines is kept here, so that a page that was just opened has one.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any

from fastapi import APIRouter
from starlette.responses import HTMLResponse, JSONResponse

from isobath import __version__
from isobath.engine.statistics import EngineFacts
from isobath.server.server_log import Totals
from isobath.server.state import ServerState
from isobath.server.status_html import page

SAMPLES, SECONDS = 90, 1.0
"""Of history: a minute and a half."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Sums over the engines, and when."""

    at: float
    totals: Totals


class History:
    """The last SAMPLES seconds. Nothing runs while nobody looks: a sample is taken when somebody
    asks, and time that nobody saw is drawn as its mean."""

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES + 1)

    def take(self, state: ServerState) -> None:
        """Add a sample, if the last one is SECONDS old."""
        now = time.monotonic()
        due = not self._samples or now - self._samples[-1].at >= 0.9 * SECONDS
        if state.backend is not None and due:
            self._samples.append(Sample(now, Totals.of(state.backend.statistics())))

    def rates(self) -> list[tuple[float, float]]:
        """(prompt, generation) tokens a second between neighbours, oldest first."""
        pairs = zip(self._samples, list(self._samples)[1:], strict=False)
        return [
            (
                max(0.0, (b.totals.prompt - a.totals.prompt) / (b.at - a.at)),
                max(0.0, (b.totals.generation - a.totals.generation) / (b.at - a.at)),
            )
            for a, b in pairs
        ]


def status_of(state: ServerState, history: History, started: float) -> dict[str, Any]:
    """Everything that the page shows."""
    backend, config = state.backend, state.config
    records = backend.statistics() if backend else []
    totals, rates = Totals.of(records), history.rates()
    alive = backend is not None and backend.alive
    return {
        "phase": state.phase if state.phase != "ready" or alive else "dead",
        "model": state.models.first,
        "version": __version__,
        "uptime_seconds": round(time.monotonic() - started, 1),
        "max_model_len": backend.limits.context if backend else None,
        "chat_format": state.chat.variant if state.chat else None,
        "running": totals.running,
        "waiting": totals.waiting,
        "kv_cache_usage": round(totals.usage, 4),
        "prompt_tokens": totals.prompt,
        "generation_tokens": totals.generation,
        "prefix_hit_rate": round(totals.hits / totals.queries, 4) if totals.queries else None,
        "preemptions": sum(r.preemptions for r in records),
        "prompt_rates": [round(p, 1) for p, _ in rates],
        "generation_rates": [round(g, 1) for _, g in rates],
        "engines": [asdict(r) for r in records] if config.data_parallel_size > 1 else [],
    }


def plan_of(state: ServerState) -> dict[str, Any]:
    """What was decided at start: the machine, the cache, and each op's backend with the reason."""
    facts = state.backend.limits.facts if state.backend else None
    return asdict(facts) if facts else {}


def router(state: ServerState) -> APIRouter:
    """/, /status.json and /plan."""
    routes, history, started = APIRouter(), History(), time.monotonic()

    def current() -> dict[str, Any]:
        history.take(state)
        return status_of(state, history, started)

    @routes.get("/", include_in_schema=False)
    def front_page() -> HTMLResponse:
        facts: EngineFacts | None = state.backend.limits.facts if state.backend else None
        return HTMLResponse(page(current(), facts))

    @routes.get("/status.json", include_in_schema=False)
    def status() -> JSONResponse:
        return JSONResponse(current(), headers={"Cache-Control": "no-store"})

    @routes.get("/plan")
    def plan() -> JSONResponse:
        return JSONResponse(plan_of(state))

    return routes
