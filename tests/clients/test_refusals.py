"""When the server cannot or will not answer: keys, a full queue, a dead engine."""

from __future__ import annotations

import json
import os
import signal
import threading

import httpx
import pytest

from isobath import AsyncLLM, EngineConfig
from isobath.config import ServerConfig
from isobath.server.state import Load, ServerState
from tests.support.http_server import Served, running, until

ENDLESS = {"prompt": [5, 6, 7], "max_tokens": 8000, "ignore_eos": True, "stream": True}
SHORT = {"prompt": "Hi", "max_tokens": 2}
LIMIT_S = 120


@pytest.fixture
def keyed(llm: AsyncLLM):
    with running(ServerState(ServerConfig(api_key=("one", "two")), llm)) as server:
        yield server


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer one"}, {"authorization": "bearer two"}, {"x-api-key": "two"}],
)
def test_any_of_the_keys_opens(keyed: Served, headers: dict[str, str]) -> None:
    assert httpx.get(keyed.url + "/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"authorization": "Bearer three"}, {"x-api-key": ""}, {"authorization": "Basic one"}],
)
@pytest.mark.parametrize("path", ["/v1/models", "/tokenizer_info", "/load", "/openapi.json", "/no"])
def test_without_a_key_almost_nothing_opens(
    keyed: Served, path: str, headers: dict[str, str]
) -> None:
    answer = httpx.get(keyed.url + path, headers=headers)
    assert answer.status_code == 401 and answer.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("path", ["/health", "/version"])
def test_probes_need_no_key(keyed: Served, path: str) -> None:
    assert httpx.get(keyed.url + path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/status.json", "/plan"])
def test_a_browser_is_asked_for_the_key_of_what_it_shows(keyed: Served, path: str) -> None:
    """It asks in a dialog of its own, and any user name will do."""
    refused = httpx.get(keyed.url + path)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == 'Basic realm="isobath: any name, and a key"'
    answers = [httpx.get(keyed.url + path, auth=("me", key)) for key in ("two", "three")]
    assert [answer.status_code for answer in answers] == [200, 401]
    assert httpx.get(keyed.url + path, headers={"authorization": "Bearer one"}).status_code == 200


def test_a_browsers_memory_of_the_key_opens_nothing_else(keyed: Served) -> None:
    """It would send it with what pages of others make it ask for."""
    me = ("me", "two")
    assert httpx.post(keyed.url + "/v1/completions", json=SHORT, auth=me).status_code == 401
    assert httpx.get(keyed.url + "/v1/models", auth=me).status_code == 401


def test_a_full_queue_is_told_with_a_time_to_come_back(llm: AsyncLLM) -> None:
    """As many run as can (16), two wait; the nineteenth is refused, and nobody is disturbed."""
    config = ServerConfig(max_num_queued_reqs=2)
    state = ServerState(config, llm)
    with running(state) as server, httpx.Client(base_url=server.url, timeout=LIMIT_S) as http:
        body = ENDLESS | {"prompt": [[5, 6, i] for i in range(18)]}
        with http.stream("POST", "/v1/completions", json=body) as running_one:
            chunks = running_one.iter_bytes()  # kept: without it httpx closes the connection
            next(chunks)
            refused = http.post("/v1/completions", json=SHORT)
            assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["type"] == "overloaded_error"
        until(lambda: state.load == Load(), LIMIT_S)
        assert http.post("/v1/completions", json=SHORT).status_code == 200


def test_prompts_that_wait_are_bounded_in_tokens(llm: AsyncLLM) -> None:
    state = ServerState(ServerConfig(max_num_queued_tokens=1000), llm)
    with running(state) as server, httpx.Client(base_url=server.url, timeout=LIMIT_S) as http:
        long = {"prompt": [7 * i % 4000 for i in range(1500)], "max_tokens": 1}
        answers: list[httpx.Response] = []
        first = threading.Thread(
            target=lambda: answers.append(http.post("/v1/completions", json=long))
        )
        first.start()
        until(lambda: state.load.queued_tokens == 1500, LIMIT_S)
        assert http.post("/v1/completions", json=SHORT).status_code == 503
        first.join()
        assert answers[0].status_code == 200  # alone, it was welcome
        assert http.post("/v1/completions", json=SHORT).status_code == 200


def test_a_dead_engine_is_told_to_those_who_wait_and_to_those_who_come() -> None:
    llm = AsyncLLM(engine=EngineConfig(max_num_seqs=4))
    try:
        with running(ServerState(ServerConfig(), llm)) as server:
            http = httpx.Client(base_url=server.url, timeout=LIMIT_S)
            whole: list[httpx.Response] = []
            body = ENDLESS | {"stream": False}
            waiting = threading.Thread(
                target=lambda: whole.append(http.post("/v1/completions", json=body))
            )
            with http.stream("POST", "/v1/completions", json=ENDLESS) as stream:
                lines = stream.iter_lines()
                next(lines)
                waiting.start()
                until(lambda: server.state.load.sequences == 2, LIMIT_S)
                os.kill(llm.process.pid, signal.SIGKILL)
                told = [line for line in lines if line][-2:]
            error = json.loads(told[0].removeprefix("data: "))["error"]
            assert error["code"] == "engine_died" and told[1] == "data: [DONE]"
            waiting.join()
            assert whole[0].status_code == 500 and whole[0].json()["error"]["code"] == "engine_died"
            assert http.get("/health").status_code == 503
            later = http.post("/v1/completions", json=SHORT)
            assert later.status_code == 503 and later.headers["retry-after"]
            assert server.state.load == Load()
            http.close()
    finally:
        llm.process.close()
