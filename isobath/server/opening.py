"""When a stream is opened: with its first item, or when waiting for it has taken too long.

Until then an error still has a status of its own; afterwards it can only be an event. A long
prefill must not leave a client without a sign of life, so there is a limit to that patience.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

T = TypeVar("T")


async def opened(items: AsyncGenerator[T, None], patience: float) -> AsyncGenerator[T | None, None]:
    """None when the stream is to be opened, then the items.

    patience: seconds to wait for the first item before that; 0 waits as long as it takes. What
    goes wrong before the first item is raised in place of the None, if it was not given already.
    """
    first = asyncio.ensure_future(anext(items, None))
    try:
        await asyncio.wait({first}, timeout=patience or None)
        if first.done():
            first.result()
        yield None
        if (item := await first) is not None:
            yield item
        async for item in items:
            yield item
    finally:
        first.cancel()
        await asyncio.wait({first})
        await items.aclose()
