"""Tools and schemas under /v1/responses with OpenAI's own SDK; the tiny model has to be forced."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.clients.test_responses import asked, output_of, sdk
from tests.support.http_server import Served

PAGE = 128
"""Tokens; the prefix cache keeps whole pages."""
MAX_TOKENS = 120
"""A call of READ takes about 60 tokens of the bundled vocabulary; the model may cut them finer."""
READ = {
    "type": "function",
    "name": "read",
    "description": "Read a part of the file.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"part": {"enum": [1, 2]}},
        "required": ["part"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def client(server: Served) -> Iterator[openai.OpenAI]:
    with sdk(server) as client:
        yield client


def test_a_forced_call_fits_its_schema_and_streams_to_the_same(client: openai.OpenAI) -> None:
    choice = {"type": "function", "name": "read"}
    fields = asked(
        tools=[READ], tool_choice=choice, parallel_tool_calls=False, max_output_tokens=MAX_TOKENS
    )
    whole = client.responses.create(**fields)
    call = whole.output[-1]
    assert whole.status == "completed" and call.type == "function_call" and call.name == "read"
    assert set(json.loads(call.arguments)) == {"part"}
    with client.responses.stream(**fields) as stream:
        names = [event.type for event in stream]
        streamed = stream.get_final_response()
    assert output_of(streamed) == output_of(whole)
    assert names[-3:] == [
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_five_turns_of_calls_find_more_and_more_of_the_prompt_in_the_cache(
    client: openai.OpenAI,
) -> None:
    page_of_text = " ".join(f"Line {number} says little." for number in range(20))
    items: list[Any] = [{"role": "user", "content": "Read the file, part by part."}]
    before, cached = 0, -1
    for turn in range(5):
        response = client.responses.create(
            **asked(
                input=items,
                tools=[READ, {"type": "web_search"}],
                tool_choice="required",
                parallel_tool_calls=False,
                max_output_tokens=MAX_TOKENS,
                instructions="You read files with responses.",
            )
        )
        usage, call = response.usage, response.output[-1]
        assert call.type == "function_call", response
        found = usage.input_tokens_details.cached_tokens
        if turn > 1:  # the first prompt may be shorter than a page
            assert found > cached
        assert found >= before // PAGE * PAGE, "the transcript grows at its end alone"
        cached, before = found, usage.input_tokens
        items += [item.to_dict() for item in response.output]
        output = {"type": "function_call_output", "call_id": call.call_id, "output": page_of_text}
        items.append(output)
    assert cached > 4 * PAGE


def test_a_json_schema_shapes_the_answer(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"module": {"enum": ["json", "re"]}},
        "required": ["module"],
        "additionalProperties": False,
    }
    form = {"format": {"type": "json_schema", "name": "module", "schema": schema, "strict": True}}
    response = client.responses.create(**asked(text=form, max_output_tokens=40))
    assert json.loads(response.output_text)["module"] in ("json", "re")
    assert response.text.format.type == "json_schema"
