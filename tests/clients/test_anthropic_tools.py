"""Tools under /v1/messages with Anthropic's own SDK; calls are forced, since the model is tiny."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from tests.clients.test_anthropic import asked, sdk, told
from tests.support.http_server import Served

PAGE = 128
"""Tokens; the prefix cache keeps whole pages."""
READ = {
    "name": "read",
    "description": "Read a part of the file.",
    "input_schema": {
        "type": "object",
        "properties": {"part": {"enum": [1, 2]}},
        "required": ["part"],
        "additionalProperties": False,
    },
}
MAX_TOKENS = 120
"""A call of READ takes about 60 tokens of the bundled vocabulary; the model may cut them finer."""


@pytest.fixture
def client(server: Served) -> Iterator[anthropic.Anthropic]:
    with sdk(server) as client:
        yield client


def is_read(block: Any) -> bool:
    call = block.type == "tool_use" and block.name == "read"
    return call and set(block.input) == {"part"} and block.input["part"] in (1, 2)


def test_a_forced_call_fits_its_schema_and_streams_to_the_same(client: anthropic.Anthropic) -> None:
    choice = {"type": "tool", "name": "read", "disable_parallel_tool_use": True}
    fields = asked(tools=[READ], tool_choice=choice, max_tokens=MAX_TOKENS)
    whole = client.messages.create(**fields)
    assert whole.stop_reason == "tool_use" and is_read(whole.content[-1])
    pieces = []
    with client.messages.stream(**fields) as stream:
        for event in stream:
            if event.type == "input_json":
                pieces.append(event.partial_json)
        streamed = stream.get_final_message()
    assert json.loads("".join(pieces)) == streamed.content[-1].input
    first, second = told(streamed), told(whole)
    for message in (first, second):
        message["content"][-1].pop("id")
    assert first == second


def test_without_a_choice_of_tools_nothing_is_called(client: anthropic.Anthropic) -> None:
    message = client.messages.create(**asked(tools=[READ], tool_choice={"type": "none"}))
    assert [block.type for block in message.content] == ["text"]


def test_five_turns_of_calls_find_more_and_more_of_the_prompt_in_the_cache(
    client: anthropic.Anthropic,
) -> None:
    page_of_text = " ".join(f"Line {number} says little." for number in range(20))
    turns: list[dict[str, Any]] = [{"role": "user", "content": "Read the file, part by part."}]
    choice = {"type": "any", "disable_parallel_tool_use": True}
    before, cached = 0, -1
    for turn in range(5):
        message = client.messages.create(
            **asked(
                messages=turns,
                tools=[READ],
                tool_choice=choice,
                max_tokens=MAX_TOKENS,
                system="You read files.",
            )
        )
        [*_, call] = message.content
        assert is_read(call), message
        found, usage = message.usage.cache_read_input_tokens or 0, message.usage
        if turn > 1:  # the first prompt may be shorter than a page
            assert found > cached
        assert found >= before // PAGE * PAGE, "the transcript grows at its end alone"
        cached, before = found, found + usage.input_tokens
        result = {"type": "tool_result", "tool_use_id": call.id, "content": page_of_text}
        turns += [
            {"role": "assistant", "content": message.content},
            {"role": "user", "content": [result]},
        ]
    assert cached > 4 * PAGE
