"""OpenAI's own library against the server."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.support.http_server import Served

MODEL = "isobath-tiny"


@pytest.fixture
def sdk(server: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url + "/v1", api_key="any", max_retries=0) as client:
        yield client


def test_a_chat_is_answered(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is json?"}],
        max_tokens=12,
        temperature=0,
    )
    [choice] = answer.choices
    assert choice.finish_reason in ("length", "stop") and choice.message.role == "assistant"
    assert answer.usage.completion_tokens <= 12
    assert choice.message.reasoning_content == choice.message.reasoning


def test_a_chat_stream_joins_to_the_whole(sdk: openai.OpenAI) -> None:
    asked = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What is json?"}],
        "max_tokens": 24,
        "temperature": 0,
        "extra_body": {"ignore_eos": True},
    }
    whole = sdk.chat.completions.create(**asked).choices[0].message
    chunks = list(
        sdk.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    assert deltas[0].role == "assistant" and all(d.role is None for d in deltas[1:])
    reasoning = "".join(getattr(d, "reasoning_content", None) or "" for d in deltas)
    assert reasoning == (whole.reasoning_content or "")
    assert "".join(d.content or "" for d in deltas) == (whole.content or "")
    assert [c.choices[0].finish_reason for c in chunks[-2:-1]] == ["length"]
    assert chunks[-1].usage.completion_tokens == 24 and not chunks[-1].choices
