"""What Anthropic's and the Responses dialect share: a translated request through the chat flow.

Each dialect turns its request into the body of a chat completion, and what comes back into its own
events. Between the two lies the flow of turns.py, and nothing of it is done again here. A stream is
opened with the first step, or when that keeps the client waiting too long.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import Request
from pydantic import ValidationError

from isobath.chat import Answer, CallArguments, CallBegin, Content, Delta, Reasoning
from isobath.errors import RequestError
from isobath.server.chat_body import ChatRequest
from isobath.server.errors import ApiError, api_error, check_unicode, of_validation, unavailable
from isobath.server.opening import opened
from isobath.server.state import ServerState
from isobath.server.turns import Ended, Prepared, Step, Usage, prepare, turn

KEEP_ALIVE = 10.0
"""Seconds of silence after which these dialects' clients hear a sign of life, unless configured."""

See = Callable[[Step], None]
"""Looks at every step of a turn, before what comes of it is told."""
News = Sequence[Delta] | Ended | None
"""What a stream has to tell: that it is opened (None), what is new, how it ended."""


def keep_alive(state: ServerState) -> float:
    """Seconds between signs of life; 0 sends none."""
    asked = state.config.sse_keep_alive_interval
    return KEEP_ALIVE if asked is None else asked


async def prepared(
    state: ServerState, body: dict[str, Any], request: Request, names: Mapping[str, str]
) -> Prepared:
    """The turn that a chat body asks for. names: what the client calls the fields of chat that it
    calls otherwise. Raises what a chat completion would, about the client's fields."""
    check_unicode(await request.body())
    try:
        chat = ChatRequest.model_validate(body)
        served = state.models.resolve(chat.model)

        def make() -> Prepared:
            return prepare(state, chat.ask(state, served, request))

        return await asyncio.to_thread(make) if chat.long else make()
    except ValidationError as error:
        raise of_validation(error.errors(), body).renamed(names) from None
    except (ApiError, RequestError) as error:
        raise api_error(error).renamed(names) from error


def begun(ready: Prepared) -> Usage:
    """What is known of the usage when nothing has been generated."""
    return Usage(len(ready.prompt), 0, 0, 0)


async def whole(state: ServerState, ready: Prepared, see: See | None = None) -> Ended:
    """The end of a turn, with everything that was generated."""
    ended: Ended | None = None
    async with aclosing(turn(state, ready)) as items:
        async for item in items:
            ended = _uncut(item) if isinstance(item, Ended) else None
            if see and isinstance(item, Step):
                see(item)
    assert ended is not None, "a turn that neither ended nor failed"
    return ended


async def framed(
    state: ServerState, ready: Prepared, say: Callable[[News], bytes], see: See | None = None
) -> AsyncGenerator[bytes, None]:
    """The bytes of a stream. say: those of a piece of news."""
    interval = state.config.stream_interval
    patience = keep_alive(state) / 2  # so that no sign of life comes before the first event
    waiting: list[Delta] = []
    async with aclosing(opened(turn(state, ready), patience)) as items:
        async for item in items:
            news: News = None
            if isinstance(item, Ended):
                news = _uncut(item)
            elif item is not None:
                waiting += item.deltas
                if see:
                    see(item)
                ends = item.piece.completion is not None
                if not ends and item.usage.completion_tokens % interval:
                    continue
                news, waiting = waiting, []
            if data := say(news):
                yield data


def deltas_of(answer: Answer) -> Iterator[Delta]:
    """The fewest deltas that make up a finished answer."""
    yield Reasoning(answer.reasoning)
    yield Content(answer.content)
    for index, call in enumerate(answer.calls):
        yield CallBegin(index, call.id, call.name)
        yield CallArguments(index, call.arguments)


def _uncut(ended: Ended) -> Ended:
    """Raise ApiError 503 for an answer that the server itself has cut off."""
    if ended.reason == "abort":
        raise unavailable("the server stops, and has cut off this answer")
    return ended
