"""When a stream is opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from isobath.server.opening import opened


async def collected(items: AsyncGenerator[int, None], patience: float) -> list[int | None]:
    return [item async for item in opened(items, patience)]


async def numbers(before: float = 0.0, fail: bool = False) -> AsyncGenerator[int, None]:
    await asyncio.sleep(before)
    if fail:
        raise ValueError("bad prompt")
    for number in range(3):
        yield number


@pytest.mark.parametrize("patience", [0.0, 5.0])
def test_a_stream_is_opened_by_its_first_item(patience: float) -> None:
    assert asyncio.run(collected(numbers(0.01), patience)) == [None, 0, 1, 2]


def test_a_stream_of_nothing_is_opened_too() -> None:
    async def nothing() -> AsyncGenerator[int, None]:
        for number in ():
            yield number

    assert asyncio.run(collected(nothing(), 0)) == [None]


def test_an_early_error_comes_before_the_opening() -> None:
    async def run() -> None:
        items = opened(numbers(fail=True), 5.0)
        with pytest.raises(ValueError, match="bad prompt"):
            await anext(items)

    asyncio.run(run())


def test_a_late_error_comes_after_the_opening() -> None:
    async def run() -> None:
        items = opened(numbers(0.05, fail=True), 0.01)
        assert await anext(items) is None
        with pytest.raises(ValueError, match="bad prompt"):
            await anext(items)

    asyncio.run(run())


@pytest.mark.parametrize("opened_first", [False, True])
def test_leaving_closes_the_source(opened_first: bool) -> None:
    closed = []

    async def forever() -> AsyncGenerator[int, None]:
        try:
            await asyncio.sleep(60)
            yield 0
        finally:
            closed.append(True)

    async def run() -> None:
        items = opened(forever(), 0.01 if opened_first else 0.0)
        if opened_first:
            assert await anext(items) is None
            await items.aclose()
        else:
            waiting = asyncio.ensure_future(anext(items))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.wait({waiting})

    asyncio.run(run())
    assert closed == [True]
