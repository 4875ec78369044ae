"""Log-probabilities of /v1/responses: of the output text's tokens, however they are told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import openai
import pytest

from isobath import AsyncLLM
from isobath.chat import ChatFormat
from isobath.config import ServerConfig
from isobath.server.state import ServerState
from tests.clients.test_responses import ON, QUESTION, TOOL, asked, sdk
from tests.support.chat_answers import CLOSE, OPEN, invoke, par
from tests.support.http_server import Served, running
from tests.support.scripted import Scripted

WANTED = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
CALL = f"{OPEN}\n{invoke('read', par('path', 'a'))}\n{CLOSE}"


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with sdk(server) as client:
        yield client


@contextmanager
def saying(
    llm: AsyncLLM, chat: ChatFormat, *answers: str, **config: Any
) -> Iterator[openai.OpenAI]:
    backend = Scripted(llm.text, llm.limits, answers)
    with (
        running(ServerState(ServerConfig(**config), backend, chat)) as served,
        sdk(served) as client,
    ):
        yield client


def entries(told: Any) -> list[dict[str, Any]]:
    """As plain objects, whichever of the SDK's types they came in."""
    return [entry.to_dict() for entry in told or ()]


def text_of(told: list[dict[str, Any]]) -> str:
    return bytes(byte for entry in told for byte in entry["bytes"]).decode()


def part_of(response: Any) -> Any:
    """The one output text of a response."""
    [part] = [p for item in response.output if item.type == "message" for p in item.content]
    return part


def streamed(client: openai.OpenAI, **fields: Any) -> list[dict[str, Any]]:
    """The entries of all deltas; checks that what is told at the ends is the same."""
    told: list[dict[str, Any]] = []
    with client.responses.create(**asked(**WANTED, **fields), stream=True) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                told += entries(event.logprobs)
            elif event.type == "response.output_text.done":
                assert entries(event.logprobs) == told and text_of(told) == event.text
            elif event.type == "response.content_part.done":
                assert entries(event.part.logprobs) == told
            elif event.type in ("response.completed", "response.incomplete"):
                assert entries(part_of(event.response).logprobs) == told
    return told


def test_they_are_those_of_a_chat_completion(client: openai.OpenAI) -> None:
    whole = client.responses.create(**asked(**WANTED))
    chat = client.chat.completions.create(
        model="isobath-tiny",
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=6,
        temperature=0,
        logprobs=True,
        top_logprobs=2,
        reasoning_effort="none",
    )
    own = entries(part_of(whole).logprobs)
    assert chat.choices[0].logprobs and own == entries(chat.choices[0].logprobs.content)
    assert len(own) == 6 and all(len(entry["top_logprobs"]) == 2 for entry in own)
    assert text_of(own) == whole.output_text and whole.top_logprobs == 2
    assert streamed(client) == own


def test_nobody_gets_them_unasked(client: openai.OpenAI) -> None:
    response = client.responses.create(**asked(include=["reasoning.encrypted_content"]))
    assert part_of(response).logprobs == [] and response.top_logprobs == 0


@pytest.mark.parametrize("fields", [{"top_logprobs": 2}, {**WANTED, "top_logprobs": 21}])
def test_counts_that_cannot_be_are_refused(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError, match="top_logprobs"):
        client.responses.create(**asked(**fields))


ANSWERS = {
    "after reasoning": ("Thus I see.</think>Yes: 🙂 née!", "Yes: 🙂 née!"),
    "with its words in the reasoning": ("Yes, a.</think>Yes", "Yes"),
    "before a call": (f"I look. 🙂 {CALL}", "I look. 🙂"),
    "what only looks like a call": ("See <x> and\n\n < y", "See <x> and\n\n < y"),
    "ended": ("All said.<｜end▁of▁sentence｜>", "All said."),
    "reasoning that was the answer": ("It is 🙂.<｜end▁of▁sentence｜>", "It is 🙂."),
}


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("name", ANSWERS)
def test_they_are_of_the_output_text_alone(
    llm: AsyncLLM, chat: ChatFormat, name: str, interval: int
) -> None:
    answer, text = ANSWERS[name]
    fields: dict[str, Any] = {"max_output_tokens": 99, "tools": [TOOL]}
    if "reasoning" in name:
        fields["reasoning"] = ON
    with saying(llm, chat, answer, answer, stream_interval=interval) as client:
        whole = client.responses.create(**asked(**WANTED, **fields))
        own = entries(part_of(whole).logprobs)
        assert whole.output_text.rstrip() == text and text_of(own) == whole.output_text
        assert streamed(client, **fields) == own
    ids = llm.text.encode(text, bos=False)
    assert [entry["logprob"] for entry in own] == [-number / 1000 for number in ids]


def test_a_stop_text_ends_them(llm: AsyncLLM, chat: ChatFormat) -> None:
    """The token that the stop text begins in is told if it adds to the text before."""
    with saying(llm, chat, "one two STOP three", "one two STOP three") as client:
        fields = {"max_output_tokens": 99, "extra_body": {"stop": ["STOP"]}}
        own = entries(part_of(client.responses.create(**asked(**WANTED, **fields))).logprobs)
        told = streamed_loosely(client, **fields)
    assert text_of(own).startswith("one two") and "three" not in text_of(own) and told == own


def streamed_loosely(client: openai.OpenAI, **fields: Any) -> list[dict[str, Any]]:
    with client.responses.create(**asked(**WANTED, **fields), stream=True) as stream:
        deltas = [event for event in stream if event.type == "response.output_text.delta"]
    return [entry for event in deltas for entry in entries(event.logprobs)]
