"""What every request passes before a route sees it: its name, its key and its size. Plain ASGI, so
that a stream costs nothing here once it has begun."""

from __future__ import annotations

import base64
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from isobath.server.errors import ANTHROPIC_PATHS, ApiError
from isobath.server.request_id import REQUEST_ID, fresh, harmless
from isobath.server.state import ServerState

SEND = "isobath.send"
"""In a scope: send() without all that a stream's later messages pass for nothing."""
OPEN = frozenset({"/health", "/metrics", "/version"})
"""Paths that need no key."""
BROWSED = frozenset({"/", "/status.json", "/plan"})
"""Paths at which a browser may show the key, in the dialog that it has for passwords. Nowhere else:
it repeats it by itself, whichever page has made it ask."""


class Guard:
    """The app's outermost middleware."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app, self._state = app, state
        self._keys = [key.encode() for key in state.config.api_key]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, path = Headers(scope=scope), scope["path"]
        number = REQUEST_ID.get() or harmless(headers.get("x-request-id")) or fresh()
        REQUEST_ID.set(number)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                told = MutableHeaders(scope=message)
                told["x-request-id"] = number
                if path.startswith(ANTHROPIC_PATHS):
                    told["request-id"] = number  # where Anthropic's clients look for it
            await send(message)

        try:
            if path not in OPEN and scope["method"] != "OPTIONS":
                self._check(headers, browsed=path in BROWSED)
            if (encoding := headers.get("content-encoding", "identity")) != "identity":
                raise ApiError(415, f"content-encoding {encoding[:40]}: send the body as it is")
            limit = self._state.config.max_body_bytes
            if _length(headers) > limit:
                raise _too_large(limit)
        except ApiError as error:
            await error.response(path)(scope, receive, named)
            return
        scope[SEND] = send
        await self._app(scope, _Limited(receive, limit), named)

    def _check(self, headers: Headers, *, browsed: bool) -> None:
        """Raise ApiError for a request without a right key."""
        shown = _presented(headers) + (_typed(headers) if browsed else [])
        if self._keys and not any(self._opens(key) for key in shown):
            challenge = 'Basic realm="isobath: any name, and a key"' if browsed else "Bearer"
            raise ApiError(
                401,
                "no API key, or a wrong one",
                code="invalid_api_key",
                headers={"WWW-Authenticate": challenge},
            )

    def _opens(self, key: bytes) -> bool:
        return any([secrets.compare_digest(key, own) for own in self._keys])


class _Limited:
    """receive() that refuses a body beyond `limit` bytes, whatever its headers said."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._left, self._limit = receive, limit, limit

    async def __call__(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self._left -= len(message.get("body", b""))
            if self._left < 0:
                error = _too_large(self._limit)
                raise HTTPException(error.status, error.message)
        return message


def _too_large(limit: int) -> ApiError:
    return ApiError(413, f"the body is larger than {limit} bytes")


def _length(headers: Headers) -> int:
    """Bytes of the body as announced; httptools has seen to it that this is a number."""
    return int(headers.get("content-length") or 0)


def _presented(headers: Headers) -> list[bytes]:
    """The keys that a request shows."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    keys = [headers.get("x-api-key", "")]
    if scheme.lower() == "bearer":
        keys.append(token.strip())
    return [key.encode() for key in keys if key]


def _typed(headers: Headers) -> list[bytes]:
    """The password of HTTP's basic scheme."""
    scheme, _, word = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return []
    try:
        return [base64.b64decode(word, validate=True).partition(b":")[2]]
    except ValueError:
        return []
