"""The bytes of a stream, read the two ways in which benchmark clients read them."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import pytest

from isobath import AsyncLLM
from isobath.chat import ChatFormat
from isobath.config import ServerConfig
from isobath.engine.llm import BUNDLED
from isobath.model.text import EOS
from isobath.server.state import ServerState
from tests.support.http_server import Served, running
from tests.support.scripted import Scripted

COMPLETION = {"prompt": "The json module", "max_tokens": 12, "ignore_eos": True, "seed": 3}
CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 12, "ignore_eos": True}
ROUTES = [("/v1/completions", COMPLETION), ("/v1/chat/completions", CHAT)]
USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def by_line(data: bytes) -> list[Any]:
    """Every line that is not empty is JSON behind `data: `, or the end: no comments."""
    lines = [line for line in data.decode().split("\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def by_blank_line(data: bytes) -> list[Any]:
    """Messages end with two line feeds."""
    messages = data.split(b"\n\n")
    assert messages[-2:] == [b"data: [DONE]", b""]
    return [json.loads(message.removeprefix(b"data: ")) for message in messages[:-2]]


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_both_kinds_of_reader_read_the_same(
    http: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    answer = http.post(path, json=body | USAGE)
    assert b"\r" not in answer.content
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-accel-buffering"] == "no"
    chunks = by_line(answer.content)
    assert chunks == by_blank_line(answer.content)
    *told, usage = chunks
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 12
    assert [c["choices"][0]["finish_reason"] for c in told[-1:]] == ["length"]
    assert len({c["id"] for c in chunks}) == 1


def test_characters_of_several_tokens_are_never_split(http: httpx.Client, llm: AsyncLLM) -> None:
    """A bias makes the model say bytes of four-byte characters, and of nothing else."""
    ids = llm.text.encode("🙂", bos=False)
    assert len(ids) == 4
    bias = {str(token): 100 for token in ids}
    body = COMPLETION | {"max_tokens": 24, "logit_bias": bias, "temperature": 1}
    chunks = by_line(http.post("/v1/completions", json=body | {"stream": True}).content)
    texts = [c["choices"][0]["text"] for c in chunks]
    assert len(texts) == 24
    whole = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
    assert "".join(texts) == whole


SEPARATED = "a\u2028b\u2029c\x85d"
ASKS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {"prompt": "Hi"}),
    ("/v1/chat/completions", {"messages": CHAT["messages"]}),
    ("/v1/messages", {"messages": CHAT["messages"]}),
    ("/v1/responses", {"input": "Hi"}),
]


@pytest.mark.parametrize(("path", "body"), ASKS)
def test_what_unicode_takes_for_the_end_of_a_line_is_none(
    llm: AsyncLLM, chat: ChatFormat, path: str, body: dict[str, Any]
) -> None:
    """httpx, by which guidellm and others read, splits lines at these characters."""
    backend = Scripted(llm.text, llm.limits, ["</think>" + SEPARATED + EOS])
    with running(ServerState(ServerConfig(), backend, chat)) as server:
        asked = body | {"max_tokens": 100, "stream": True}
        with httpx.stream("POST", server.url + path, json=asked, timeout=120) as stream:
            lines = [line for line in stream.iter_lines() if line.startswith("data: {")]
    told = [json.loads(line.removeprefix("data: ")) for line in lines]
    text = "".join(_delta(one) for one in told)
    assert text.removeprefix("</think>") == SEPARATED


def _delta(told: dict[str, Any]) -> str:
    """The text that a chunk or event of any route adds."""
    if "choices" in told:
        return "".join(_text(choice) for choice in told["choices"])
    delta = told.get("delta", "")
    return delta if isinstance(delta, str) else delta.get("text", "")


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_nothing_comes_before_the_first_token(
    server: Served, path: str, body: dict[str, Any]
) -> None:
    """Neither headers nor the role: a client measures the time to them."""
    long = "json " * 300
    prompt = (
        {"prompt": long} if "prompt" in body else {"messages": [{"role": "user", "content": long}]}
    )
    with httpx.Client(base_url=server.url, timeout=120) as client:
        began = time.monotonic()
        with client.stream(
            "POST", path, json=body | prompt | {"stream": True, "logprobs": None}
        ) as answer:
            headers = time.monotonic() - began
            answer.read()
    with httpx.Client(base_url=server.url, timeout=120) as client:
        began = time.monotonic()
        client.get("/health")
        unloaded = time.monotonic() - began
    assert headers > unloaded  # the prompt's tokens take far longer than an empty answer


def test_a_beat_is_told_only_where_it_is_asked_for(llm: AsyncLLM) -> None:
    """With an interval the answer begins before the first token, with a comment."""
    config = ServerConfig(sse_keep_alive_interval=0.05)
    prompt = [1000 + i % 2000 for i in range(800)]
    with running(ServerState(config, llm)) as server:
        body = {"prompt": prompt, "max_tokens": 2, "stream": True}
        data = httpx.post(server.url + "/v1/completions", json=body, timeout=120).content
    assert data.startswith(b": keep-alive\n\n")
    assert data.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(("path", "body"), ROUTES)
def test_counts_come_where_they_are_asked_for(
    http: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    """As vLLM has it: in every chunk only if there is to be a chunk for them."""
    for last, each in [(False, False), (True, False), (True, True), (False, True)]:
        options = {"include_usage": last, "continuous_usage_stats": each}
        data = http.post(path, json=body | {"stream": True, "stream_options": options}).content
        *told, end = by_line(data)
        assert bool(end["choices"]) != last and ("usage" in end) == last
        assert all(("usage" in chunk) == (last and each) for chunk in told)


def test_tokens_can_be_told_several_at_once(llm: AsyncLLM) -> None:
    config = ServerConfig(stream_interval=5)
    with running(ServerState(config, llm, ChatFormat.load(BUNDLED, llm.text))) as server:
        for path, body in ROUTES:
            asked = body | {"temperature": 0, "max_tokens": 12}
            data = httpx.post(server.url + path, json=asked | USAGE, timeout=120).content
            chunks = by_line(data)
            assert chunks[-1]["usage"]["completion_tokens"] == 12
            assert len(chunks) <= 8  # 1, 5, 10 and 12 tokens at most; role, finish and usage
            text = "".join(_text(c) for one in chunks for c in one["choices"])
            whole = httpx.post(server.url + path, json=asked, timeout=120).json()["choices"][0]
            assert text == _text(whole | {"delta": whole.get("message")})


def _text(choice: dict[str, Any]) -> str:
    if "text" in choice:
        return choice["text"]
    delta = choice["delta"]
    return (delta.get("reasoning") or "") + (delta.get("content") or "")
