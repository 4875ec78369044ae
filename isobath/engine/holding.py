"""Holding: requests that wait for their grammar, before the scheduler hears of them.

They hold no slot and no pages, and nobody waits behind them: a request joins the line when its
grammar is done, so one that compiles for long is overtaken. Knows tickets, not libraries.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from isobath.engine.grammar import Ticket
from isobath.engine.request import Request


class Held(NamedTuple):
    """A request and the compilation it waits for. since: time.monotonic()."""

    request: Request
    ticket: Ticket
    since: float


class Holding:
    """The holding place."""

    def __init__(self) -> None:
        self._held: list[Held] = []

    def __len__(self) -> int:
        return len(self._held)

    @property
    def ready(self) -> bool:
        """Whether take() has anything to give."""
        return any(held.ticket.done for held in self._held)

    def add(self, request: Request, ticket: Ticket) -> None:
        self._held.append(Held(request, ticket, time.monotonic()))

    def remove(self, request_id: int) -> bool:
        """Forget a request; False if it is not here."""
        before = len(self._held)
        self._held = [held for held in self._held if held.request.id != request_id]
        return len(self._held) < before

    def take(self) -> list[Held]:
        """Those whose compilation is done, first come first."""
        done = [held for held in self._held if held.ticket.done]
        self._held = [held for held in self._held if not held.ticket.done]
        return done

    def wait(self) -> None:
        """Until the first is ready: compilations are done in the order in which they began."""
        self._held[0].ticket.wait()
