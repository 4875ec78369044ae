"""1,024 clients at once, for a minute: everybody is answered or told to come back, and when they
are gone the server holds what it held before.

The real command, in its process; the clients are sockets on one event loop. A tenth of them goes
away in the middle.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import resource
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx
import pytest

from tests.support.http_server import until
from tests.support.serve_command import ServeCommand, started

CLIENTS = 1024
LEAVES = 0.1
PATIENCE_S = 300
"""For one answer: with nobody refused, 960 requests stand before it."""
GROWTH_KIB = 32 << 10
"""Of the server's own process from the end of one load to the end of the next, what its allocator
keeps included. A leak of what a request holds (100 KB of connection, tasks and prompt) would be
three times that with every wave of clients, of which a minute has several."""
ENGINE_GROWTH_KIB = 100 << 10
"""Of the engine's process, between the same two moments. Its pages are there from the start; what
comes is machine code for new shapes of batches, of which there can be 200 MB: 32 numbers of rows
(torch_gemm.filled), eleven shapes of weights, 0.58 MB each. The first load makes most of it, and
half of it is let pass. Before rows were filled up 208 MB came in this minute, and no end."""


@dataclass
class Tally:
    """What came of all requests."""

    answers: Counter[str] = field(default_factory=Counter)
    tokens: int = 0


async def request(port: int, draw: random.Random, tally: Tally) -> None:
    """One streaming request, to its end or until the client has enough."""
    body = {
        "prompt": [draw.randrange(100, 4000) for _ in range(draw.randint(1, 16))],
        "max_tokens": draw.randint(1, 4),
        "ignore_eos": True,
        "stream": True,
    }
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        head += f"Connection: close\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        if draw.random() < LEAVES:
            await asyncio.sleep(draw.random())
            tally.answers["left"] += 1
            return
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.close()
    status = answer.split(b" ", 2)[1].decode()
    if status == "200":
        assert answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"), answer[-200:]
        told = answer.count(b'data: {"id"')
        assert told == body["max_tokens"], (told, body["max_tokens"])
        tally.tokens += told
    else:
        assert status == "503", answer[:300]
        [after] = re.findall(rb"retry-after: (\d+)", answer.lower())
        await asyncio.sleep(int(after) + 2 * draw.random())
    tally.answers[status] += 1


async def load(port: int, seconds: float) -> Tally:
    """CLIENTS that ask one thing after the other for so long, and wait for their last answer."""
    tally, end = Tally(), time.monotonic() + seconds

    async def client(number: int) -> None:
        draw = random.Random(number)
        while time.monotonic() < end:
            await request(port, draw, tally)

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    return tally


def memory(server: ServeCommand) -> tuple[int, int]:
    """Resident KiB of the server and of its engine, which is its largest child."""
    children = (resident(child) for child in server.children())
    return resident(server.process.pid), max(children)


def resident(process: int) -> int:
    """Resident KiB of a process."""
    with open(f"/proc/{process}/status", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def idle(server: ServeCommand) -> bool:
    """Nothing runs or waits, and no page is in use."""
    lines = httpx.get(server.url + "/metrics").text.splitlines()
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
    values = [float(line.split()[-1]) for line in lines if line.startswith(names)]
    assert len(values) >= 3, values
    return not any(values) and httpx.get(server.url + "/load").json() == {"server_load": 0}


@pytest.mark.nightly
@pytest.mark.parametrize("flags", [(), ("--max-num-queued-reqs", "200")], ids=["queue", "refuse"])
def test_a_thousand_clients_are_answered_or_refused(flags: Sequence[str]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    try:
        with started("--max-num-seqs", "64", *flags) as server:
            server.wait_ready()
            port = int(server.url.rsplit(":", 1)[1])
            asyncio.run(load(port, 10))
            until(lambda: idle(server), 30)
            before = memory(server)
            tally = asyncio.run(load(port, 60))
            until(lambda: idle(server), 30)
            after = memory(server)
            print(dict(tally.answers), tally.tokens, "tokens,", before, "->", after, "KiB")
            assert tally.answers["200"] > CLIENTS / 4
            assert bool(tally.answers["503"]) == bool(flags)
            assert after[0] - before[0] < GROWTH_KIB, (before, after)
            assert after[1] - before[1] < ENGINE_GROWTH_KIB, (before, after)
            assert server.process.poll() is None
            assert not server.matching("Traceback|ERROR")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
