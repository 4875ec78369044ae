"""isobath under Ray Serve: two engines on one local Ray node.

Ray lives in an environment of its own (scripts/clients/venv.sh ray), and with it the server; the
tests are its HTTP clients. Its processes are found as children of the one that was started.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from isobath import LLM, SamplingParams
from tests.support.client_venv import program
from tests.support.router_load import one_after_another, with_a_kill
from tests.support.serve_command import ServeCommand, started

pytestmark = pytest.mark.nightly

START_S = 300
"""Ray starts six processes of its own and imports torch four times."""
ENGINE = "ray::ServeReplica:isobath:Engine"


@pytest.fixture(scope="module")
def server() -> Iterator[ServeCommand]:
    flags = ("--ray", "--data-parallel-size", "2", "--max-num-seqs", "4", "--device", "cpu")
    flags += ("--server-dev-mode",)
    env = {"RAY_USAGE_STATS_ENABLED": "0"}
    with started(*flags, python=program("ray"), env=env) as server:
        server.wait_for(lambda: bool(server.matching("isobath ready on")), START_S)
        yield server
        server.signal(signal.SIGTERM)
        assert server.wait_exit(60) == 0
        assert not descendants(server.process.pid)


def descendants(pid: int) -> dict[int, str]:
    """What a process has started, and what that has: (pid, command line)."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # it has just ended
    found, level = {}, [pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        for child in level:
            found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def engines(server: ServeCommand) -> list[int]:
    """Processes of Ray's that hold an engine."""
    return [p for p, line in descendants(server.process.pid).items() if line.startswith(ENGINE)]


def prompt_tokens(server: ServeCommand) -> dict[str, float]:
    """By engine, of those that live."""
    text = httpx.get(server.url + "/metrics").text
    found = re.findall(r'^vllm:prompt_tokens_total\{engine="(\d+)".*\} (\S+)$', text, re.M)
    return {engine: float(value) for engine, value in found}


def prompt(seed: int, size: int) -> list[int]:
    return [(17 * seed + 7 * i + 3) % 500 + 100 for i in range(size)]


def test_equal_beginnings_go_to_one_engine_until_all_forget_them(server: ServeCommand) -> None:
    """By what came from caches, each engine's own."""
    prompts = [[*prompt(seed, 150), end] for end in (1, 2, 3) for seed in (0, 1, 2, 3)]
    outcomes = asyncio.run(one_after_another(server.url, prompts, 2))
    assert [o.end for o in outcomes] == ["done"] * 12
    assert [o.cached for o in outcomes] == [0] * 4 + [128] * 8
    assert httpx.post(server.url + "/reset_prefix_cache", timeout=60).status_code == 200
    outcomes = asyncio.run(one_after_another(server.url, prompts, 2))
    assert [o.cached for o in outcomes] == [0] * 4 + [128] * 8


def test_answers_are_those_of_one_engine(server: ServeCommand) -> None:
    prompts = [prompt(seed, 20) for seed in (5, 6)]
    outcomes = asyncio.run(one_after_another(server.url, prompts, 8))
    params = SamplingParams(max_tokens=8, temperature=0, ignore_eos=True)
    alone = LLM(device="cpu").generate(prompts, params)
    assert [o.text for o in outcomes] == [c.text for c in alone]


def test_a_client_that_leaves_ends_its_request(server: ServeCommand) -> None:
    body = {"prompt": prompt(7, 9), "max_tokens": 4000, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", server.url + "/v1/completions", json=body, timeout=60) as response:
        assert next(response.iter_lines()).startswith("data: ")
    running = re.compile(r"^vllm:num_requests_running\{.*\} 0\.0$", re.M)
    server.wait_for(lambda: len(running.findall(httpx.get(server.url + "/metrics").text)) == 2)


def test_bad_requests_are_refused_as_by_one_engine(server: ServeCommand) -> None:
    for wrong, status in (({"prompt": []}, 400), ({"prompt": "x", "model": "nope"}, 404)):
        answer = httpx.post(server.url + "/v1/completions", json=wrong, timeout=60)
        assert answer.status_code == status and answer.json()["error"]["message"]


@pytest.mark.parametrize("victim", ["replica", "engine"])
def test_a_replica_killed_under_load_loses_no_request_without_an_error(
    server: ServeCommand, victim: str
) -> None:
    """victim: Ray's process, or the engine's that belongs to it."""
    server.wait_for(lambda: len(prompt_tokens(server)) == 2, START_S)
    before = engines(server)

    def kill() -> None:
        pid = before[0]
        if victim == "engine":
            [pid] = [p for p, line in descendants(pid).items() if "spawn_main" in line]
        os.kill(pid, signal.SIGKILL)

    prompts = [prompt(10 + seed, 9) for seed in range(6)]
    outcomes = asyncio.run(with_a_kill(server.url, prompts, 60, kill))
    assert {o.end for o in outcomes} == {"done", "told"}, outcomes  # both had some of them
    assert all(o.tokens >= 60 for o in outcomes if o.end == "done")
    killed = time.monotonic()
    after = asyncio.run(one_after_another(server.url, prompts[:2], 2))
    assert [o.end for o in after] == ["done"] * 2  # by the other one
    server.wait_for(lambda: set(engines(server)) - set(before) != set(), START_S)
    server.wait_for(lambda: len(prompt_tokens(server)) == 2, START_S)
    print(f"a new engine {time.monotonic() - killed:.0f} s after the {victim} was killed")
