"""Every kind of error under /v1/messages, as the class that Anthropic's SDK makes of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest

from isobath import AsyncLLM
from isobath.chat import ChatFormat
from isobath.config import ServerConfig
from isobath.server.state import ServerState
from tests.clients.test_anthropic import asked, sdk
from tests.clients.test_malformed import BROKEN
from tests.support.http_server import Served, running

IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}


@pytest.fixture
def client(server: Served) -> Iterator[anthropic.Anthropic]:
    with sdk(server) as client:
        yield client


def refused(client: anthropic.Anthropic, **fields: Any) -> anthropic.APIStatusError:
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(**asked(**fields))
    body = caught.value.body
    assert isinstance(body, dict) and body["type"] == "error"
    assert set(body["error"]) == {"type", "message"}
    assert caught.value.request_id == caught.value.response.headers["x-request-id"]
    return caught.value


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content.0: image"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages.0.role"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"extra_body": {"temperature": 9}}, "temperature"),
        ({"tools": [{"type": "web_search_20260209", "name": "web_search"}]}, "tools.0.type"),
        ({"output_config": {"effort": "enormous"}}, "output_config.effort is unknown; 'enormous'"),
        ({"stop_sequences": ["x"] * 65}, "stop_sequences: "),
    ],
)
def test_a_bad_request_says_what_is_wrong(
    client: anthropic.Anthropic, fields: dict[str, Any], words: str, stream: bool
) -> None:
    error = refused(client, **fields, stream=stream)
    assert isinstance(error, anthropic.BadRequestError)
    assert error.type == "invalid_request_error" and words in str(error)


def test_an_unknown_model_is_not_found(client: anthropic.Anthropic) -> None:
    error = refused(client, model="claude-unknown")
    assert isinstance(error, anthropic.NotFoundError) and error.type == "not_found_error"


def test_a_prompt_that_is_too_long_is_told_so_with_numbers(client: anthropic.Anthropic) -> None:
    error = refused(client, messages=[{"role": "user", "content": "word " * 9000}])
    numbers = re.search(r"prompt is too long: (\d+) tokens > (\d+) maximum", str(error))
    assert isinstance(error, anthropic.BadRequestError) and numbers
    assert int(numbers[1]) > int(numbers[2]) == 8192


SURROGATE = (
    b'{"max_tokens": 1, "messages": [{"role": "user", "content": "a"}], '
    b'"tools": [{"name": "a", "input_schema": {"title": "\\ud800"}}]}'
)


@pytest.mark.parametrize("content", [*BROKEN.values(), SURROGATE], ids=[*BROKEN, "in a schema"])
def test_a_body_that_is_no_request_is_a_bad_request(http: httpx.Client, content: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = http.post("/v1/messages", content=content, headers=headers)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_an_unknown_path_and_a_wrong_method_have_the_same_shape(server: Served) -> None:
    missing = httpx.post(server.url + "/v1/messages/batches", json={})
    assert missing.status_code == 404 and missing.json()["error"]["type"] == "not_found_error"
    wrong = httpx.get(server.url + "/v1/messages")
    assert wrong.status_code == 405 and wrong.json()["type"] == "error"


def test_a_body_that_is_too_large_is_refused(llm: AsyncLLM, chat: ChatFormat) -> None:
    config = ServerConfig(max_body_bytes=1000)
    with running(ServerState(config, llm, chat)) as served, sdk(served) as client:
        error = refused(client, messages=[{"role": "user", "content": "word " * 900}])
    assert isinstance(error, anthropic.RequestTooLargeError)
    assert error.type == "request_too_large"


def test_a_full_queue_is_an_overloaded_server(llm: AsyncLLM, chat: ChatFormat) -> None:
    state = ServerState(ServerConfig(max_num_queued_reqs=0), llm, chat)
    state.load.sequences = llm.limits.max_num_seqs  # as many as can run are running
    with running(state) as served, sdk(served) as client:
        error = refused(client, stream=True)
    assert isinstance(error, anthropic.OverloadedError) and error.type == "overloaded_error"
    assert error.response.headers["retry-after"]
