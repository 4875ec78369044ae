"""A request whose client has gone ends, also when nothing has been sent to it yet.

uvicorn tells that a client is gone through receive() alone, and nobody calls receive() while a
plain handler runs. So a handler is raced against it. The body must have been read before, which
FastAPI does for every route that takes one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.types import Receive

T = TypeVar("T")
CLIENT_GONE = 499
"""nginx's status for it; only the log sees it."""


async def gone(receive: Receive) -> None:
    """Return when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def unless_gone(request: Request, handler: Coroutine[Any, Any, T]) -> T | Response:
    """What `handler` returns; it is cancelled, and waited for, when the client goes first."""
    work = asyncio.ensure_future(handler)
    watch = asyncio.ensure_future(gone(request.receive))
    try:
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            return work.result()
        return Response(status_code=CLIENT_GONE)
    finally:
        await cancelled(work)
        await cancelled(watch)


async def cancelled(task: asyncio.Future[Any]) -> None:
    """Cancel a task and wait until it has come to its end, whatever that is."""
    if not task.done():
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # seen: an error nobody can be told any more
