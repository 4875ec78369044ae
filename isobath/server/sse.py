"""Server-sent events, written to the socket as they come.

A frame is `data: `, JSON and an empty line, with LF alone: benchmark clients split at two of them,
and read every other line as JSON, so no comment goes out where the caller does not ask for it.
Three characters that many readers take for the end of a line are escaped; all others are plain
UTF-8.
The first frame is awaited before anything is sent, so what is wrong with a request is an ordinary
error; an error after it is a frame of its own, and the last.

How the bytes are framed is uvicorn's affair: a client of HTTP/1.0 gets chunks, too, which it may
not know (curl -0 does), and ASGI has no word against it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec
from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from isobath.errors import IsobathError
from isobath.server.cancel import cancelled, gone, unless_gone
from isobath.server.errors import ApiError, api_error
from isobath.server.guard import SEND

log = logging.getLogger(__name__)
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"
BREAKS = {"\x85": b"\\u0085", "\u2028": b"\\u2028", "\u2029": b"\\u2029"}
"""What str.splitlines() and the readers made with it break at, and JSON does not escape."""
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_encode = msgspec.json.encode

Frames = AsyncGenerator[bytes, None]


def frame(payload: Any) -> bytes:
    """One event. payload: a msgspec struct or plain JSON values, without NaN."""
    return b"data: %b\n\n" % _encode(payload)


def openai_error(error: ApiError) -> bytes:
    """How a stream of OpenAI's shape ends when it goes wrong."""
    return frame(error.as_openai()) + DONE


async def respond(
    request: Request,
    frames: Frames,
    *,
    keep_alive: float = 0,
    beat: bytes = COMMENT,
    on_error: Callable[[ApiError], bytes] = openai_error,
) -> Response:
    """A stream of `frames`. keep_alive: seconds of silence after which `beat` is sent (0: never);
    the answer then begins at the first of them at the latest. on_error: the last bytes when an
    exception ends the frames."""
    first = asyncio.ensure_future(anext(frames, b""))
    answered = False
    try:

        async def begun() -> Response | None:
            await asyncio.wait({first}, timeout=keep_alive or None)
            if first.done():
                first.result()  # raises: an ordinary error, nothing has been sent
            return None

        refused = await unless_gone(request, begun())
        answered = refused is None
        return refused or EventStream(first, frames, keep_alive, beat, on_error)
    finally:
        if not answered:
            await cancelled(first)
            await frames.aclose()


class EventStream(Response):
    """See respond(). Frames are written from the task of the request; when the client goes, that
    is cancelled and the frames are closed before the request ends."""

    media_type = "text/event-stream"

    def __init__(
        self,
        first: asyncio.Future[bytes],
        frames: Frames,
        keep_alive: float,
        beat: bytes,
        on_error: Callable[[ApiError], bytes],
    ) -> None:
        self.status_code, self.background, self.body = 200, None, b""
        self.init_headers(HEADERS)
        del self.headers["content-length"]
        self._first, self._frames = first, frames
        self._keep_alive, self._beat, self._on_error = keep_alive, beat, on_error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        writer = asyncio.ensure_future(self._write(send, scope.get(SEND, send)))
        watch = asyncio.ensure_future(gone(receive))
        try:
            await asyncio.wait({writer, watch}, return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                writer.result()  # raises what could not be told: the server closes the connection
        finally:
            await cancelled(writer)
            await cancelled(watch)
            await cancelled(self._first)
            await self._frames.aclose()

    async def _write(self, start: Send, send: Send) -> None:
        await start({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for data in self._alive() if self._keep_alive else self._plain():
                body = data if data.isascii() else _in_lines(data)
                await send({"type": "http.response.body", "body": body, "more_body": True})
        except Exception as error:
            told = api_error(error)
            if told.status >= 500:
                ours = not isinstance(error, ApiError | IsobathError)
                log.error("a stream ends with an error: %s", told.message, exc_info=ours)
            last = self._on_error(told)
            await send({"type": "http.response.body", "body": last, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _plain(self) -> Frames:
        yield await self._first
        async for data in self._frames:
            yield data

    async def _alive(self) -> Frames:
        """The frames, and a beat wherever they are silent for too long."""
        following = self._first
        try:
            while True:
                await asyncio.wait({following}, timeout=self._keep_alive)
                if not following.done():
                    yield self._beat
                    continue
                if not (data := following.result()):
                    return
                yield data
                following = asyncio.ensure_future(anext(self._frames, b""))
        finally:
            await cancelled(following)


def _in_lines(data: bytes) -> bytes:
    """Frames without BREAKS, which stand nowhere in them but in JSON's strings."""
    for character, escape in BREAKS.items():
        data = data.replace(character.encode(), escape)
    return data
