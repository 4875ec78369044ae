"""One line in the log for each call that ends, and what only those who ask for it see: texts.

A line never holds a prompt or an answer. With --enable-log-requests the prompt is logged when a
call begins, with --enable-log-outputs also the answer when it ends.
"""

from __future__ import annotations

import logging
from time import perf_counter

from isobath.engine.async_llm import Piece
from isobath.server.observe import Call
from isobath.server.state import ServerState

log = logging.getLogger(__name__)


class RequestLog:
    """An Observer that writes."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def started(self, call: Call) -> Line:
        """A call begins."""
        config, backend = self._state.config, self._state.backend
        if config.enable_log_requests and backend is not None:
            prompt = backend.text.decode(list(call.prompt))
            number, params = call.request_id, call.params
            log.info("Received request %s: prompt: %r, params: %s", number, prompt, params)
        return Line(call, outputs=config.enable_log_outputs)


class Line:
    """One call as it goes on."""

    __slots__ = ("_cached", "_call", "_first", "_outputs", "_reasons", "_tokens")

    def __init__(self, call: Call, *, outputs: bool) -> None:
        self._call, self._outputs = call, outputs
        self._first, self._tokens, self._cached = 0.0, 0, 0
        self._reasons: list[str] = []

    def piece(self, piece: Piece) -> None:
        """Something new of a completion."""
        self._tokens += len(piece.token_ids)
        self._first = self._first or perf_counter()
        if done := piece.completion:
            self._reasons.append(done.finish_reason)
            self._cached = max(self._cached, done.cached_tokens)
            if self._outputs:
                log.info("Generated response %s: %r", self._call.request_id, done.text)

    def ended(self, error: BaseException | None) -> None:
        """Nothing more comes."""
        call, now = self._call, perf_counter()
        end = ", ".join(sorted(set(self._reasons)))
        if len(self._reasons) < call.params.n:
            failed = isinstance(error, Exception)
            end = f"failed: {type(error).__name__}" if failed else "its client went away"
        log.info(
            "%s %s: %d prompt tokens (%d cached), %d generated, %s, first after %.3f s, %.3f s "
            "in all",
            call.request_id,
            call.path,
            len(call.prompt),
            self._cached,
            self._tokens,
            end,
            (self._first or now) - call.arrival,
            now - call.arrival,
        )
