"""POST /v1/messages and /v1/messages/count_tokens: Anthropic's dialect of the chat flow.

messages_request.py says what a request means, messages_events.py what is answered, dialect.py what
happens between. Errors under this path have Anthropic's shape (errors.py).
"""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request, Response

from isobath.server.cancel import unless_gone
from isobath.server.dialect import News, begun, deltas_of, framed, keep_alive, prepared, whole
from isobath.server.errors import ANTHROPIC_RESPONSES, STREAMED
from isobath.server.messages_events import PING, MessageEvents, frame
from isobath.server.messages_request import (
    CountTokensRequest,
    MessagesRequest,
    chat_body,
    plain_model,
)
from isobath.server.request_id import REQUEST_ID
from isobath.server.sse import respond
from isobath.server.state import ServerState
from isobath.server.turns import Ended, Prepared

NAMES = {
    "max_completion_tokens": "max_tokens",
    "reasoning_effort": "output_config.effort",
    "response_format": "output_config.format",
    "stop": "stop_sequences",
}
"""What this dialect calls some fields of chat."""


def router(state: ServerState) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["messages"], responses=ANTHROPIC_RESPONSES)

    @routes.post("/v1/messages", responses=STREAMED)
    async def create_message(body: MessagesRequest, request: Request) -> Response:
        ready = await _prepared(state, body, request)
        events = _events(state, body)
        if not body.stream:
            return await unless_gone(request, _whole(state, ready, events))

        def say(news: News) -> bytes:
            if news is None:
                told = events.start(begun(ready))
            else:
                told = events.end(news) if isinstance(news, Ended) else events.take(news)
            return b"".join(map(frame, told))

        return await respond(
            request,
            framed(state, ready, say),
            keep_alive=keep_alive(state),
            beat=PING,
            on_error=lambda error: frame(error.as_anthropic()),
        )

    @routes.post("/v1/messages/count_tokens")
    async def count_tokens(body: CountTokensRequest, request: Request) -> dict[str, int]:
        ready = await _prepared(state, body, request)
        return {"input_tokens": len(ready.prompt)}

    return routes


async def _prepared(state: ServerState, body: CountTokensRequest, request: Request) -> Prepared:
    return await prepared(state, chat_body(body, state.engine.limits.context), request, NAMES)


def _events(state: ServerState, body: MessagesRequest) -> MessageEvents:
    name = state.models.resolve(plain_model(body.model)).name
    hide = body.thinking is not None and body.thinking.display == "omitted"
    return MessageEvents(f"msg_{REQUEST_ID.get()}", name, hide=hide)


async def _whole(state: ServerState, ready: Prepared, events: MessageEvents) -> Response:
    ended = await whole(state, ready)
    events.start(begun(ready))
    events.take(deltas_of(ended.message))
    events.end(ended)
    return Response(msgspec.json.encode(events.message), media_type="application/json")
