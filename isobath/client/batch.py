"""`isobath run-batch`: a file of requests in OpenAI's batch format, to a file of answers.

Each line of the input has exactly one in the output, in the order in which answers come; custom_id
says which is which. A line that is no request, and a request that fails, becomes an entry with an
error. Entries are written as they come, so that an interruption loses none that was there.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from isobath.config import ServerConfig

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses")
ATTEMPTS = 8
BUSY = (429, 503)


@dataclass(slots=True)
class Outcome:
    """How many entries were written: answers of status 200, and others."""

    good: int = 0
    bad: int = 0


@dataclass(frozen=True, slots=True)
class BadLine(Exception):
    """A line that is no request. custom_id: if it has one."""

    message: str
    custom_id: str | None = None


Line = tuple[int, str]
"""Its number in the file, from 1, and what it says."""


def requests_of(text: str) -> list[Line]:
    """The lines that say something. Only a line feed ends one: JSON may hold what else could."""
    return [(n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]


def parsed(line: str, number: int) -> tuple[str, str, dict[str, Any]]:
    """(custom_id, path, body) of a line. Raises BadLine."""
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise BadLine(f"line {number} is not JSON: {error}") from None
    if not isinstance(entry, dict):
        raise BadLine(f"line {number} is not a JSON object")
    name = entry.get("custom_id")
    if not isinstance(name, str):
        raise BadLine(f"line {number} has no custom_id")
    path, body = entry.get("url"), entry.get("body")
    if entry.get("method", "POST") != "POST":
        raise BadLine(f"line {number}: method is not POST", name)
    if path not in PATHS:
        raise BadLine(f"line {number}: url is not one of {', '.join(PATHS)}", name)
    if not isinstance(body, dict):
        raise BadLine(f"line {number} has no body", name)
    return name, path, body | {"stream": False}


async def run(
    lines: Sequence[Line],
    out: TextIO,
    client: httpx.AsyncClient,
    *,
    concurrency: int,
    advance: Callable[[], None] = lambda: None,
) -> Outcome:
    """Send every request, `concurrency` at a time, and write an entry for each line."""
    outcome, places = Outcome(), asyncio.Semaphore(concurrency)

    async def one(number: int, line: str) -> None:
        async with places:
            entry = await _entry(client, number, line)
        good = entry["response"] is not None and entry["response"]["status_code"] == 200
        outcome.good, outcome.bad = outcome.good + good, outcome.bad + (not good)
        out.write(json.dumps(entry, ensure_ascii=False) + "\n")
        out.flush()
        advance()

    async with asyncio.TaskGroup() as group:
        for number, line in lines:
            group.create_task(one(number, line))
    return outcome


async def _entry(client: httpx.AsyncClient, number: int, line: str) -> dict[str, Any]:
    """A line's entry, whatever happens."""
    entry: dict[str, Any] = {
        "id": f"batch_req_{secrets.token_hex(12)}",
        "custom_id": None,
        "response": None,
        "error": None,
    }
    try:
        entry["custom_id"], path, body = parsed(line, number)
        response = await _sent(client, path, body)
        entry["response"] = {
            "status_code": response.status_code,
            "request_id": response.headers.get("x-request-id", ""),
            "body": response.json(),
        }
    except BadLine as bad:
        entry["custom_id"] = bad.custom_id
        entry["error"] = {"code": "invalid_request", "message": bad.message}
    except (httpx.HTTPError, ValueError) as error:
        entry["error"] = {"code": "failed", "message": f"{type(error).__name__}: {error}"}
    return entry


async def _sent(client: httpx.AsyncClient, path: str, body: dict[str, Any]) -> httpx.Response:
    """The answer; a server that says it is busy is asked again."""
    for attempt in range(ATTEMPTS):
        response = await client.post(path, json=body)
        if response.status_code not in BUSY or attempt == ATTEMPTS - 1:
            return response
        await asyncio.sleep(float(response.headers.get("retry-after") or 1))
    raise AssertionError("the last attempt returns")


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be answered, where to, and how much of it at once."""

    lines: Sequence[Line]
    target: Path
    concurrency: int


def main(job: Job, config: ServerConfig, *, url: str | None, api_key: str | None) -> Outcome:
    """Answer a file by a server at `url`, or by an engine that is loaded for it. Shows a bar on a
    terminal. Raises IsobathError when that cannot be loaded."""
    console = Console(stderr=True)
    columns = (TextColumn("requests"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with (
        job.target.open("w", encoding="utf-8") as out,
        Progress(*columns, console=console, disable=not console.is_terminal) as bar,
    ):
        task = bar.add_task("requests", total=len(job.lines))

        async def work() -> Outcome:
            async with AsyncExitStack() as stack:
                if url:
                    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
                    base = url.rstrip("/").removesuffix("/v1")
                    client = httpx.AsyncClient(base_url=base, headers=headers, timeout=None)
                else:
                    client = await _loaded(config, stack)
                async with client:
                    return await run(
                        job.lines,
                        out,
                        client,
                        concurrency=job.concurrency,
                        advance=lambda: bar.advance(task),
                    )

        return asyncio.run(work())


async def _loaded(config: ServerConfig, stack: AsyncExitStack) -> httpx.AsyncClient:
    """A client of an application in this process, whose engine is closed with `stack`."""
    from isobath.server import lifecycle, startup  # only here: a client of a server needs no torch
    from isobath.server.state import ServerState

    loaded = startup.load(config)
    stack.push_async_callback(loaded.backend.close)
    state = ServerState(config, loaded.backend, loaded.chat, sampling_defaults=loaded.sampling)
    app = lifecycle.application(state)
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://isobath", timeout=None
    )
