"""vllm-router in front of two plain servers: the recipe of docs/replicas.md, with its flags.

The router lives in an environment of its own (scripts/clients/venv.sh vllm-router).
"""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.support.client_venv import program
from tests.support.router_load import one_after_another, with_a_kill
from tests.support.serve_command import ServeCommand, free_port, started

pytestmark = pytest.mark.nightly

RECIPE = Path(__file__).parents[2] / "docs" / "replicas.md"
WORKER = ("--max-num-seqs", "4", "--device", "cpu")
NOTICED_S = 30
"""A dead worker is looked at every 2 s, and given up after one failure."""


def recipe() -> list[str]:
    """The router's flags as documented, but for addresses."""
    [command] = re.findall(r"^vllm-router (?:.*\\\n)*.*$", RECIPE.read_text(), re.M)
    words = command.replace("\\\n", " ").split()
    return words[words.index("--policy") :]


class Front:
    """Two workers and the router before them."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.workers = [stack.enter_context(started(*WORKER)) for _ in range(2)]
        for worker in self.workers:
            worker.wait_ready()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        where = ("--host", "127.0.0.1", "--port", str(port))
        prometheus = ("--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port()))
        urls = [worker.url for worker in self.workers]
        command = [program("vllm-router", "vllm-router"), *where, *prometheus, *recipe()]
        router = stack.enter_context(
            subprocess.Popen([*command, "--worker-urls", *urls], stdout=subprocess.DEVNULL)
        )
        stack.callback(router.terminate)
        self.wait_until_up()

    def wait_until_up(self) -> None:
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            try:
                if httpx.get(self.url + "/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.2)
        raise AssertionError("the router does not come up")

    def restart(self, index: int) -> None:
        """A new server where worker `index` was."""
        port = int(self.workers[index].url.rsplit(":", 1)[1])
        self.workers[index] = self._stack.enter_context(started(*WORKER, port=port))
        self.workers[index].wait_ready()


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with ExitStack() as stack:
        yield Front(stack)


def prompt_tokens(server: ServeCommand) -> float:
    [line] = re.findall(
        r"^vllm:prompt_tokens_total\{.*\} (\S+)$", httpx.get(server.url + "/metrics").text, re.M
    )
    return float(line)


def prompt(seed: int, size: int) -> list[int]:
    return [(17 * seed + 7 * i + 3) % 500 + 100 for i in range(size)]


def test_equal_beginnings_go_to_one_server(front: Front) -> None:
    prompts = [[*prompt(seed, 150), end] for end in (1, 2) for seed in (0, 1, 2)]
    outcomes = asyncio.run(one_after_another(front.url, prompts, 2))
    assert [(o.end, o.cached) for o in outcomes] == [("done", 0)] * 3 + [("done", 128)] * 3


def test_chats_pass_through(front: Front) -> None:
    body = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    answer = httpx.post(front.url + "/v1/chat/completions", json=body, timeout=60)
    assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == 3


def test_a_server_killed_under_load_loses_no_request_without_an_error(front: Front) -> None:
    prompts = [prompt(10 + seed, 9) for seed in range(6)]
    victim, other = front.workers

    def kill() -> None:
        victim.process.kill()
        victim.process.wait()

    outcomes = asyncio.run(with_a_kill(front.url, prompts, 60, kill))
    ends = Counter(o.end for o in outcomes)
    assert 0 < ends["done"] < 6 and ends["done"] + ends["told"] + ends["cut"] == 6, outcomes
    assert all(o.tokens >= 60 for o in outcomes if o.end == "done")
    before = prompt_tokens(other)
    after = asyncio.run(one_after_another(front.url, prompts, 2))
    assert [o.end for o in after] == ["done"] * 6, after  # tried again with the other one
    assert prompt_tokens(other) == before + 6 * 9

    front.restart(0)
    limit = time.monotonic() + NOTICED_S
    other.process.kill()
    while time.monotonic() < limit:  # nobody but the new one is left
        [outcome] = asyncio.run(one_after_another(front.url, prompts[:1], 2))
        if outcome.end == "done":
            return
        time.sleep(1)
    raise AssertionError("the new server gets nothing")
