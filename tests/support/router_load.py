"""Load on whatever stands in front of several engines, and what became of every request.

A request ends in one of the ways of `Outcome.end`; whichever it is, it ends: none is lost.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import httpx

LIMIT_S = 180


@dataclass(slots=True)
class Outcome:
    """One streamed completion. tokens: chunks that had a choice. cached: prompt tokens from the
    cache. end: "" while it runs; then "done", "told" (an error in the stream, or a status in
    `status`), or "cut" (the connection ended before the stream did)."""

    tokens: int = 0
    cached: int = 0
    end: str = ""
    status: int = 0
    text: str = field(default="", repr=False)


async def complete(
    client: httpx.AsyncClient, prompt: list[int] | str, max_tokens: int, outcome: Outcome
) -> None:
    """Stream one completion into `outcome`."""
    body = {
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    try:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            outcome.status = response.status_code
            if response.status_code != 200:
                outcome.end, outcome.text = "told", (await response.aread()).decode()
                return
            async for line in response.aiter_lines():
                _read(line, outcome)
            outcome.end = outcome.end or "cut"
    except (httpx.TransportError, httpx.StreamError) as error:
        outcome.end, outcome.text = outcome.end or "cut", repr(error)


def _read(line: str, outcome: Outcome) -> None:
    if not line.startswith("data: "):
        return
    if line == "data: [DONE]":
        outcome.end = outcome.end or "done"
        return
    chunk = json.loads(line.removeprefix("data: "))
    if "error" in chunk:
        outcome.end, outcome.text = "told", chunk["error"]["message"]
        return
    for choice in chunk["choices"]:
        outcome.tokens += 1
        outcome.text += choice["text"]
    if chunk.get("usage"):
        outcome.cached = chunk["usage"]["prompt_tokens_details"]["cached_tokens"]


async def one_after_another(
    url: str, prompts: Sequence[list[int] | str], max_tokens: int
) -> list[Outcome]:
    """Each when the one before has ended."""
    outcomes = [Outcome() for _ in prompts]
    async with httpx.AsyncClient(base_url=url, timeout=LIMIT_S) as client:
        for prompt, outcome in zip(prompts, outcomes, strict=True):
            await complete(client, prompt, max_tokens, outcome)
    return outcomes


async def with_a_kill(
    url: str, prompts: Sequence[list[int] | str], max_tokens: int, kill: Callable[[], None]
) -> list[Outcome]:
    """All at once; `kill` is called when each of them has begun to answer."""
    outcomes = [Outcome() for _ in prompts]
    async with httpx.AsyncClient(base_url=url, timeout=LIMIT_S) as client:
        tasks = [
            asyncio.create_task(complete(client, prompt, max_tokens, outcome))
            for prompt, outcome in zip(prompts, outcomes, strict=True)
        ]
        async with asyncio.timeout(LIMIT_S):
            while not all(o.tokens or o.end for o in outcomes):
                await asyncio.sleep(0.02)
            kill()
            await asyncio.gather(*tasks)
    return outcomes
