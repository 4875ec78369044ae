"""POST /v1/responses, stateless: the dialect of OpenAI's newer clients over the chat flow.

responses_request.py says what a request means, responses_events.py what is answered, dialect.py
what happens between. Nothing is kept: every request brings its whole conversation.
"""

from __future__ import annotations

import time

import msgspec
from fastapi import APIRouter, Request, Response

from isobath.server.cancel import unless_gone
from isobath.server.dialect import News, deltas_of, framed, keep_alive, prepared, whole
from isobath.server.errors import RESPONSES, STREAMED, ApiError
from isobath.server.request_id import REQUEST_ID
from isobath.server.responses_events import ResponseEvents, frame, response_of
from isobath.server.responses_logprobs import ContentLogprobs
from isobath.server.responses_request import ResponsesRequest, chat_body, wants_logprobs
from isobath.server.sse import COMMENT, respond
from isobath.server.state import ServerState
from isobath.server.turns import Ended, Prepared

SEALED = "reasoning.encrypted_content"
"""What a client asks to be included when reasoning is to come back with its next request."""


NAMES = {
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "response_format": "text.format",
}
"""What this dialect calls some fields of chat."""


def router(state: ServerState) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["responses"], responses=RESPONSES)

    @routes.post("/v1/responses", responses=STREAMED)
    async def create_response(body: ResponsesRequest, request: Request) -> Response:
        chat, origins = chat_body(body)
        ready = await prepared(state, chat, request, NAMES)
        name = state.models.resolve(body.model).name
        asked = response_of(body, ready.params, f"resp_{REQUEST_ID.get()}", name, time.time())
        logprobs = None
        if wants_logprobs(body):
            logprobs = ContentLogprobs(state.engine.text, body.top_logprobs or 0)
        sealed = SEALED in (body.include or ())
        events = ResponseEvents(asked, origins, sealed=sealed, logprobs=logprobs)
        if not body.stream:
            return await unless_gone(request, _whole(state, ready, events, logprobs))

        def say(news: News) -> bytes:
            if news is None:
                told = events.start()
            elif isinstance(news, Ended):
                told = events.end(news, time.time())
            else:
                told = events.take(news)
            return b"".join(map(frame, told))

        def failed(error: ApiError) -> bytes:
            return b"".join(map(frame, events.fail(_code(error), error.message)))

        return await respond(
            request,
            framed(state, ready, say, logprobs.see if logprobs else None),
            keep_alive=keep_alive(state),
            beat=COMMENT,
            on_error=failed,
        )

    return routes


def _code(error: ApiError) -> str:
    """The code by which clients decide whether to shorten, to wait, or to give up."""
    return error.code or ("rate_limit_exceeded" if error.status in (429, 503) else "server_error")


async def _whole(
    state: ServerState, ready: Prepared, events: ResponseEvents, logprobs: ContentLogprobs | None
) -> Response:
    ended = await whole(state, ready, logprobs.see if logprobs else None)
    if logprobs:
        logprobs.join()
    events.take(deltas_of(ended.message))
    events.end(ended, time.time())
    return Response(msgspec.json.encode(events.response), media_type="application/json")
