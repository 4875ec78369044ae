"""How a stream of events ends when something goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from fastapi import Request
from starlette.types import Message

from isobath.server.errors import ApiError
from isobath.server.sse import respond


async def broken() -> AsyncGenerator[bytes, None]:
    yield b"data: 1\n\n"
    raise ValueError("the model has said something unheard of")


async def streamed(on_error: Callable[[ApiError], bytes]) -> list[Message]:
    """What is sent of broken(), to a client that stays."""
    sent: list[Message] = []

    async def receive() -> Message:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    answer = await respond(Request(scope, receive), broken(), on_error=on_error)
    await answer(scope, receive, send)
    return sent


def test_an_error_is_the_last_frame_and_the_stream_is_whole() -> None:
    sent = asyncio.run(streamed(lambda error: b"data: %b\n\n" % error.message.encode()))
    assert [m.get("body") for m in sent[1:-1]] == [
        b"data: 1\n\n",
        b"data: internal error: ValueError\n\n",
    ]
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_an_error_that_cannot_be_told_is_not_swallowed() -> None:
    """It goes on to the server, which logs it and closes the connection: a stream that just ends
    would pass for a whole one."""

    def untold(error: ApiError) -> bytes:
        raise KeyError("no word for it")

    with pytest.raises(KeyError, match="no word for it"):
        asyncio.run(streamed(untold))
