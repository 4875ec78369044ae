"""POST /reset_prefix_cache: afterwards nothing is cached, and nobody notices anything else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from isobath import AsyncLLM
from isobath.cache.prefix import BLOCK_TOKENS
from isobath.config import ServerConfig
from isobath.server.state import ServerState
from tests.support.http_server import Served, running

PROMPT = [(7 * i) % 999 + 3 for i in range(2 * BLOCK_TOKENS + 5)]
ASKED = {"prompt": PROMPT, "max_tokens": 2, "ignore_eos": True, "temperature": 0}
CONFIG = ServerConfig(server_dev_mode=True)


@pytest.fixture
def measured(llm: AsyncLLM) -> Iterator[Served]:
    with running(ServerState(CONFIG, llm)) as served:
        yield served


def post(server: Served, path: str, body: Any = None, **headers: str) -> httpx.Response:
    answer = httpx.post(server.url + path, json=body, headers=headers, timeout=120)
    answer.raise_for_status()
    return answer


def cached(server: Served) -> int:
    """Tokens of the prompt that came from the cache."""
    usage = post(server, "/v1/completions", ASKED).json()["usage"]
    return int(usage["prompt_tokens_details"]["cached_tokens"])


def test_what_was_cached_is_not_any_more(measured: Served) -> None:
    cached(measured)
    assert cached(measured) == 2 * BLOCK_TOKENS
    reset = post(measured, "/reset_prefix_cache")
    assert reset.status_code == 200 and not reset.content
    assert [cached(measured), cached(measured)] == [0, 2 * BLOCK_TOKENS]


def test_a_request_that_runs_meanwhile_goes_on_as_if_nothing_were(measured: Served) -> None:
    """The engine counts pages after every step and would fail it."""
    asked = ASKED | {"max_tokens": 12}
    alone = post(measured, "/v1/completions", asked).json()["choices"][0]["text"]
    texts: list[str] = []

    def ask() -> None:
        texts.append(post(measured, "/v1/completions", asked).json()["choices"][0]["text"])

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    while any(asker.is_alive() for asker in askers):
        post(measured, "/reset_prefix_cache")
        time.sleep(0.05)
    assert texts == [alone] * 2


def test_without_the_flag_there_is_no_such_path(server: Served) -> None:
    assert httpx.post(server.url + "/reset_prefix_cache").status_code == 404


def test_it_wants_the_servers_key(llm: AsyncLLM) -> None:
    config = ServerConfig(server_dev_mode=True, api_key=("k",))
    with running(ServerState(config, llm)) as served:
        assert httpx.post(served.url + "/reset_prefix_cache").status_code == 401
        assert post(served, "/reset_prefix_cache", authorization="Bearer k").status_code == 200
