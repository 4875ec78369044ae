"""The one way from a route to the backend: admission, and many prompts as one stream.

A request is refused with 503 when more completions are open than can run and may wait together
(max_num_queued_reqs), or when the prompts that wait are too long together (max_num_queued_tokens).
An idle server takes any request. Closing a generator ends its requests in the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from isobath.engine.async_llm import Piece
from isobath.engine.sampling import SamplingParams
from isobath.server.backend import Route
from isobath.server.cancel import cancelled
from isobath.server.errors import unavailable
from isobath.server.state import Load, ServerState

Pieces = AsyncGenerator[Piece, None]


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt to complete."""

    ids: Sequence[int]
    params: SamplingParams


@dataclass(slots=True)
class _Place:
    """What a job takes of the server's load, until it leaves."""

    load: Load
    sequences: int
    waiting: int

    def begun(self) -> None:
        """Its first token is there."""
        self.load.queued_tokens -= self.waiting
        self.waiting = 0

    def leave(self) -> None:
        """May be called again."""
        self.begun()
        self.load.sequences -= self.sequences
        self.sequences = 0


async def generate(state: ServerState, job: Job, route: Route | None = None) -> Pieces:
    """Pieces of one prompt's completions. Raises ApiError 503 when the queue is full."""
    [place] = _enter(state, [job])
    async with aclosing(_followed(state, job, route, place)) as pieces:
        async for piece in pieces:
            yield piece


async def together(
    state: ServerState, jobs: Sequence[Job], route: Route | None = None
) -> AsyncGenerator[tuple[int, Piece], None]:
    """(which job, piece) of all of them, as they come. All are admitted or none is."""
    places = _enter(state, jobs)
    if len(jobs) == 1:  # needs no tasks and no queue
        async with aclosing(_followed(state, jobs[0], route, places[0])) as pieces:
            async for only in pieces:
                yield 0, only
        return
    arrived: asyncio.Queue[tuple[int, Piece | None]] = asyncio.Queue()

    async def follow(which: int) -> None:
        try:
            async with aclosing(_followed(state, jobs[which], route, places[which])) as pieces:
                async for piece in pieces:
                    arrived.put_nowait((which, piece))
        finally:
            arrived.put_nowait((which, None))

    tasks = [asyncio.ensure_future(follow(which)) for which in range(len(jobs))]
    try:
        left = len(tasks)
        while left:
            which, piece = await arrived.get()
            if piece is not None:
                yield which, piece
                continue
            left -= 1
            await tasks[which]  # raises what went wrong
    finally:
        for task in tasks:
            task.cancel()
        for task, place in zip(tasks, places, strict=True):
            await cancelled(task)
            place.leave()  # for a task that was cancelled before it began


def joined_pieces(first: Piece, second: Piece) -> Piece:
    """Two pieces of one completion as one."""
    return Piece(
        first.index,
        first.text + second.text,
        first.token_ids + second.token_ids,
        first.logprobs + second.logprobs,
        second.completion,
        first.parts + second.parts,
        first.prompt_logprobs or second.prompt_logprobs,
    )


def _enter(state: ServerState, jobs: Sequence[Job]) -> list[_Place]:
    """Count the jobs as open, or raise ApiError 503."""
    config, load, backend = state.config, state.load, state.engine
    places = [_Place(load, job.params.n, len(job.ids)) for job in jobs]
    sequences, tokens = sum(p.sequences for p in places), sum(p.waiting for p in places)
    most, queued = config.max_num_queued_reqs, config.max_num_queued_tokens
    if most is not None and load.sequences:
        most += backend.limits.max_num_seqs
        if load.sequences + sequences > most:
            raise unavailable(f"{load.sequences} completions are open, and {most} may be")
    if queued is not None and load.queued_tokens and load.queued_tokens + tokens > queued:
        raise unavailable(f"prompts of {load.queued_tokens} tokens are waiting already")
    load.sequences += sequences
    load.queued_tokens += tokens
    return places


async def _followed(state: ServerState, job: Job, route: Route | None, place: _Place) -> Pieces:
    """The pieces of a job that has its place; it leaves at the end."""
    try:
        async with aclosing(state.engine.generate(job.ids, job.params, route)) as pieces:
            async for piece in pieces:
                if place.waiting:
                    place.begun()
                yield piece
    finally:
        place.leave()
