"""Constrained output from an engine in a process of its own: grammars are compiled there while
others go on, a bad one fails alone, and clients that leave free everything."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest

from isobath import AsyncLLM, Completion, RequestError, SamplingParams
from isobath.config import EngineConfig
from isobath.engine.structure import Structure

PROMPT = "The json module"
DRAWN = SamplingParams(temperature=1.0, max_tokens=60, seed=1)
CHOICE = replace(DRAWN, structure=Structure.choice(["yes", "no"]))


@pytest.fixture(scope="module")
def llm() -> Iterator[AsyncLLM]:
    """Pages and slots are counted after every step: a leak would end the process."""
    options = EngineConfig(num_pages=80, max_num_seqs=4, check="step")
    llm = AsyncLLM(max_batched_tokens=64, engine=options)
    yield llm
    llm.process.close()


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 120))


async def whole(llm: AsyncLLM, params: SamplingParams) -> Completion:
    async for piece in llm.generate(PROMPT, params):
        if piece.completion is not None:
            return piece.completion
    raise AssertionError("no end")


def test_neighbours_are_what_they_are_alone(llm: AsyncLLM) -> None:
    async def work() -> tuple[list[Completion], list[Completion]]:
        asked = [replace(DRAWN, max_tokens=12), CHOICE, replace(CHOICE, seed=2)]
        asked.append(replace(DRAWN, structure=Structure.regex("[a-c]{4}x")))
        together = await asyncio.gather(*(whole(llm, params) for params in asked))
        return list(together), [await whole(llm, params) for params in asked]

    together, alone = run(work())
    assert [c.token_ids for c in together] == [c.token_ids for c in alone]
    assert {c.text for c in together[1:3]} <= {"yes", "no"}
    assert together[0].finish_reason == "length"


def test_a_bad_structure_fails_before_any_piece(llm: AsyncLLM) -> None:
    async def work() -> Completion:
        bad = replace(DRAWN, structure=Structure.json_schema({"type": "banana"}))
        good = asyncio.create_task(whole(llm, CHOICE))
        with pytest.raises(RequestError, match="banana"):
            await anext(llm.generate(PROMPT, bad))
        return await good

    assert run(work()).text in ("yes", "no")


def test_a_client_that_leaves_frees_everything(llm: AsyncLLM) -> None:
    async def work() -> None:
        fresh = replace(DRAWN, structure=Structure.regex("([a-z]{3} )+"), ignore_eos=True)
        for pieces in (0, 3):
            stream = llm.generate(PROMPT, fresh)
            task = asyncio.create_task(anext(stream))
            await asyncio.sleep(0)
            if pieces:
                await task
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await stream.aclose()
        assert (await whole(llm, CHOICE)).text in ("yes", "no")
        [told] = llm.statistics()
        while told.running or told.waiting:
            await asyncio.sleep(0.02)
            [told] = llm.statistics()

    run(work())


def test_an_engine_that_drains_finishes_what_waits_for_its_grammar() -> None:
    async def work() -> Completion:
        options = EngineConfig(num_pages=20, max_num_seqs=2, structured_outputs="guidance")
        llm = AsyncLLM(engine=options)
        done = asyncio.create_task(whole(llm, CHOICE))
        await asyncio.sleep(0.05)
        await llm.close(drain=True, timeout=100)
        return await done

    assert run(work()).text in ("yes", "no")
