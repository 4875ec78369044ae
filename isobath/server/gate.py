"""Before everything else: whether the server takes requests now, how many are open, and when each
arrived. Plain ASGI, so that a stream costs nothing here once it has begun.

A path that still has the prefix of --root-path loses it here, so that everything further in knows
paths as the routes spell them, whether a proxy strips the prefix or not.

Answers of every part, refusals included, carry what a browser needs to show them to a page of
--allowed-origins; its questions beforehand are answered here, in every phase and without a key.

While the model loads and while the server drains, what can be looked at is still shown (the status
page, metrics, the version); /health and all work are answered with 503 and Retry-After.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from time import perf_counter

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from isobath.server.errors import unavailable
from isobath.server.state import ServerState

SHOWN = frozenset({"/", "/status.json", "/plan", "/metrics", "/version"})
"""Paths that answer in every phase."""
LOOKS = SHOWN | {"/health"}
"""Paths whose requests nobody waits for at the end."""
RETRY_SECONDS = {"loading": 5, "draining": 1}


@dataclass(frozen=True, slots=True)
class Arrived:
    """An HTTP request as it came. at: on time.perf_counter's clock. traceparent: W3C's header, of
    the trace that it is part of."""

    path: str
    at: float
    traceparent: str | None = None


ARRIVED: ContextVar[Arrived | None] = ContextVar("ARRIVED", default=None)
"""The request whose task this is."""


class Gate:
    """The outermost layer. open: requests that are being answered, but those that only look."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app, self._state, self.open = app, state, 0
        named = state.config.root_path.strip("/")
        self._prefix = f"/{named}" if named else ""
        self._way: ASGIApp = self._pass
        if origins := state.config.allowed_origins:
            self._way = CORSMiddleware(
                self._pass,
                allow_origins=list(origins),
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["retry-after", "x-request-id"],
            )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        way = self._way if scope["type"] == "http" else self._app
        await way(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, phase = self._unprefixed(scope["path"]), self._state.phase
        scope = {**scope, "path": path, "root_path": self._prefix}
        if phase != "ready" and path not in SHOWN:
            error = unavailable(f"the server is {phase}", retry_after=RETRY_SECONDS[phase])
            await error.response(path)(scope, receive, send)
            return
        trace = next((v for k, v in scope["headers"] if k == b"traceparent"), None)
        ARRIVED.set(Arrived(path, perf_counter(), trace.decode("latin-1") if trace else None))
        counts = path not in LOOKS
        self.open += counts
        try:
            await self._app(scope, receive, send)
        finally:
            self.open -= counts

    def _unprefixed(self, path: str) -> str:
        rest = path.removeprefix(self._prefix)
        return rest if rest.startswith("/") else path
