"""Places in the queue: whoever took one gives it back, however he ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from isobath import SamplingParams
from isobath.engine.async_llm import Piece
from isobath.engine.llm import BUNDLED
from isobath.engine.process import Limits
from isobath.model.text import Text
from isobath.server.backend import Route
from isobath.server.generation import Job, together
from isobath.server.state import Load, ServerState
from tests.support.scripted import Scripted


class Reluctant(Scripted):
    """Says nothing, and takes a while to stop."""

    async def generate(
        self, prompt: Sequence[int], params: SamplingParams, route: Route | None = None
    ) -> AsyncGenerator[Piece, None]:
        try:
            await asyncio.sleep(60)
            yield Piece(0, "")
        finally:
            await asyncio.sleep(0.05)


def test_a_client_that_is_cancelled_twice_leaves_no_place_taken() -> None:
    backend = Reluctant(Text(BUNDLED), Limits(4096, 8192, max_num_seqs=16), [])
    state = ServerState(backend=backend)

    async def client() -> None:
        async for _ in together(state, [Job([1, 2, 3], SamplingParams())] * 3):
            pass

    async def run() -> None:
        task = asyncio.ensure_future(client())
        await asyncio.sleep(0.02)
        assert state.load == Load(sequences=3, queued_tokens=9)
        task.cancel()
        await asyncio.sleep(0.01)  # it waits for the first of its three requests to end
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(run())
    assert state.load == Load()
