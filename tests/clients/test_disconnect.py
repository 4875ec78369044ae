"""A client that goes away: whenever it does so, its request ends and its pages come back.

Everything is a raw socket, since libraries tidy up behind themselves.
"""

from __future__ import annotations

import json
import random
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

import pytest

from isobath import AsyncLLM
from isobath.server.state import Load
from tests.support.http_server import Served, until

LIMIT_S = 120
DELAY_S = 0.1
"""From the end of the step that was running to the pages being back: the promise."""
TRIES = 3
"""The best of them counts: the machine may have other work, the program has not."""

Body = dict[str, Any]


def opened(server: Served, path: str, body: Body) -> socket.socket:
    data = json.dumps(body).encode()
    client = socket.create_connection((server.host, server.port))
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    client.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    return client


def fresh_prompt(size: int) -> list[int]:
    """One that no cache knows."""
    return [random.randrange(100, 4000) for _ in range(size)]


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def ended(client: socket.socket) -> None:
    client.close()


def in_prefill(llm: AsyncLLM, client: socket.socket) -> None:
    """It runs, and nothing has been sent."""
    until(lambda: llm.statistics()[0].running > 0, LIMIT_S)


def in_decode(llm: AsyncLLM, client: socket.socket) -> None:
    """Three chunks have come."""
    read = b""
    while read.count(b"data: ") < 3:
        read += client.recv(4096)


LONG = {"max_tokens": 4000, "ignore_eos": True}
CASES: dict[str, tuple[str, Callable[[], Body], Callable[[AsyncLLM, socket.socket], None]]] = {
    "stream before its first byte": (
        "/v1/completions",
        lambda: {"prompt": fresh_prompt(1000), "stream": True} | LONG,
        in_prefill,
    ),
    "stream": (
        "/v1/completions",
        lambda: {"prompt": fresh_prompt(8), "stream": True} | LONG,
        in_decode,
    ),
    "no stream": ("/v1/completions", lambda: {"prompt": fresh_prompt(8)} | LONG, in_prefill),
    "no stream, in prefill": (
        "/v1/completions",
        lambda: {"prompt": fresh_prompt(1000)} | LONG,
        in_prefill,
    ),
    "many prompts, two completions each": (
        "/v1/completions",
        lambda: {"prompt": [fresh_prompt(8) for _ in range(12)], "n": 2} | LONG,
        in_prefill,
    ),
    "chat stream": (
        "/v1/chat/completions",
        lambda: {"messages": [{"role": "user", "content": "Hi"}], "n": 2, "stream": True} | LONG,
        in_decode,
    ),
    "chat": (
        "/v1/chat/completions",
        lambda: {"messages": [{"role": "user", "content": "Hi"}]} | LONG,
        in_prefill,
    ),
    "messages stream": (
        "/v1/messages",
        lambda: {"messages": [{"role": "user", "content": "Hi"}], "stream": True} | LONG,
        in_decode,
    ),
    "messages": (
        "/v1/messages",
        lambda: {"messages": [{"role": "user", "content": "Hi"}]} | LONG,
        in_prefill,
    ),
    "responses stream": (
        "/v1/responses",
        lambda: {"input": "Hi", "stream": True, "ignore_eos": True},
        in_decode,
    ),
    "responses": ("/v1/responses", lambda: {"input": "Hi", "ignore_eos": True}, in_prefill),
}


def pace(llm: AsyncLLM) -> float:
    """Seconds between two records of the engine's work: of a step at least, or 50 ms of them."""

    def moved() -> float:
        seen = llm.statistics()[0].computed_tokens
        return until(lambda: llm.statistics()[0].computed_tokens != seen, LIMIT_S)

    moved()
    return moved()


@pytest.mark.parametrize("leave", [ended, reset])
@pytest.mark.parametrize("case", CASES)
def test_pages_are_back_at_once(
    server: Served, llm: AsyncLLM, case: str, leave: Callable[[socket.socket], None]
) -> None:
    path, body, moment = CASES[case]

    def idle() -> bool:
        now = llm.statistics()[0]
        return now.idle and now.kv_cache_usage == 0

    delays = []
    for _ in range(TRIES):
        until(idle, LIMIT_S)
        client = opened(server, path, body())
        moment(llm, client)
        step = pace(llm)
        left = time.monotonic()
        leave(client)
        until(lambda: server.state.load == Load() and idle(), LIMIT_S)
        delays.append(time.monotonic() - left - step)
        if delays[-1] < DELAY_S:
            return
    raise AssertionError(f"pages came back {delays} s after the step's end")
