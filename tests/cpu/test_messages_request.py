"""What an Anthropic request means as a chat completion."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from isobath.errors import RequestError
from isobath.server.messages_request import (
    CountTokensRequest,
    MessagesRequest,
    chat_body,
    plain_model,
)
from isobath.server.sealed import seal

CONTEXT = 4096


def body_of(messages: list[dict[str, Any]], **fields: Any) -> dict[str, Any]:
    request = {"model": "m", "max_tokens": 64, "messages": messages} | fields
    return chat_body(MessagesRequest.model_validate(request), CONTEXT)


def said(text: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def test_fields_left_open_are_absent() -> None:
    body = body_of([said("Hi")])
    assert body == {"model": "m", "max_completion_tokens": 64, "messages": [said("Hi")]}


def test_more_tokens_than_the_context_are_cut_to_it() -> None:
    assert body_of([said("Hi")], max_tokens=32000)["max_completion_tokens"] == CONTEXT


def test_a_system_block_with_a_billing_header_is_dropped() -> None:
    header = "x-anthropic-billing-header: cc_version=2.1; cch=0f3a1;"
    system = [text(header), text("Be brief."), text("Be kind.")]
    first = body_of([said("Hi")], system=system)["messages"][0]
    assert first == {"role": "system", "content": system[1:]}
    assert body_of([said("Hi")], system=f"{header}\nBe brief.")["messages"][0] == {
        "role": "system",
        "content": [text("Be brief.")],
    }
    assert body_of([said("Hi")], system=[text(header)])["messages"] == [said("Hi")]


def test_system_messages_between_turns_stay_in_their_place() -> None:
    turns = [said("a"), said("b", "assistant"), said("4000 left", "system"), said("c")]
    roles = [m["role"] for m in body_of(turns, system="S")["messages"]]
    assert roles == ["system", "user", "assistant", "system", "user"]
    longer = [*turns, said("d", "assistant"), said("3000 left", "system"), said("e")]
    before, after = body_of(turns, system="S"), body_of(longer, system="S")
    assert after["messages"][: len(before["messages"])] == before["messages"]


def test_a_system_message_after_a_users_stands_apart_from_it() -> None:
    turns = [said("a"), said("4000 left", "system"), said("b", "assistant"), said("S", "system")]
    _, apart, _, alone = body_of(turns)["messages"]
    assert apart["content"] == [text(""), text("4000 left")]  # parts are joined by an empty line
    assert alone["content"] == [text("S")]


def test_tool_results_become_messages_and_keep_their_order() -> None:
    use = {"type": "tool_use", "id": "call_1", "name": "read", "input": {"path": "ä.py"}}
    result = {"type": "tool_result", "tool_use_id": "call_1"}
    turns = [
        said("Read"),
        {"role": "assistant", "content": [text("I read."), use]},
        {"role": "user", "content": [result | {"content": [text("x = 1")]}, text("Now?")]},
    ]
    _, assistant, tool, user = body_of(turns)["messages"]
    (call,) = assistant["tool_calls"]
    assert assistant["content"] == [text("I read.")] and call["id"] == "call_1"
    assert json.loads(call["function"]["arguments"]) == {"path": "ä.py"}
    assert "ä" in call["function"]["arguments"], "arguments are kept as text, not as escapes"
    assert tool == {"role": "tool", "tool_call_id": "call_1", "content": [text("x = 1")]}
    assert user == {"role": "user", "content": [text("Now?")]}


@pytest.mark.parametrize(
    ("content", "is_error", "expected"),
    [
        ("done", False, ["done"]),
        ("no such file", True, ["Error: no such file"]),
        ("<tool_use_error>no</tool_use_error>", True, ["<tool_use_error>no</tool_use_error>"]),
        (None, False, []),
        (None, True, ["Error: "]),
        ([text("a"), text("b")], False, ["a", "b"]),
    ],
)
def test_a_failed_tool_says_so(content: Any, is_error: bool, expected: list[str]) -> None:
    result = {"type": "tool_result", "tool_use_id": "c", "content": content, "is_error": is_error}
    (message,) = body_of([{"role": "user", "content": [result]}])["messages"]
    assert [part["text"] for part in message["content"]] == expected


def test_thinking_comes_back_as_reasoning_whatever_its_signature() -> None:
    def reasoning(block: dict[str, Any]) -> str | None:
        turns = [said("a"), {"role": "assistant", "content": [block, text("b")]}, said("c")]
        message = body_of(turns)["messages"][1]
        assert message["content"] == [text("b")]
        return message.get("reasoning_content")

    for word in ("", "EqQBCgIYAhIM", None):
        assert reasoning({"type": "thinking", "thinking": "Hm.", "signature": word}) == "Hm."
    assert reasoning({"type": "thinking", "thinking": "", "signature": seal("Hm.")}) == "Hm."
    assert reasoning({"type": "thinking", "thinking": "", "signature": "theirs"}) is None
    assert reasoning({"type": "redacted_thinking", "data": "theirs"}) is None


@pytest.mark.parametrize(
    ("thinking", "expected"),
    [
        ({"type": "disabled"}, "disabled"),
        ({"type": "enabled", "budget_tokens": 1024}, "enabled"),
        ({"type": "adaptive"}, "enabled"),
    ],
)
def test_thinking_is_switched(thinking: dict[str, Any], expected: str) -> None:
    body = body_of([said("Hi")], thinking=thinking, output_config={"effort": "max"})
    assert body["thinking"] == {"type": expected} and body["reasoning_effort"] == "max"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, "auto"),
        ({"type": "any"}, "required"),
        ({"type": "none"}, "none"),
        ({"type": "tool", "name": "read"}, {"type": "function", "function": {"name": "read"}}),
    ],
)
@pytest.mark.parametrize("alone", [False, True])
def test_tool_choice_is_translated(choice: dict[str, Any], expected: Any, alone: bool) -> None:
    schema = {"type": "object", "properties": {"path": {"type": "string"}}}
    tool = {"name": "read", "description": "Reads.", "input_schema": schema}
    choice = choice | {"disable_parallel_tool_use": alone}
    body = body_of([said("Hi")], tools=[tool], tool_choice=choice)
    function = {"name": "read", "description": "Reads.", "parameters": schema}
    assert body["tools"] == [{"type": "function", "function": function}]
    assert body["tool_choice"] == expected and body["parallel_tool_calls"] is not alone


def test_an_output_schema_is_a_response_format() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    for fields in ({"output_config": {"format": form}}, {"output_format": form}):
        asked = body_of([said("Hi")], **fields)["response_format"]
        assert asked["json_schema"]["schema"] == {"type": "object"}


def test_an_assistant_message_at_the_end_is_gone_on_with() -> None:
    body = body_of([said("Hi"), said("{", "assistant")])
    assert body["continue_final_message"] and not body["add_generation_prompt"]


def test_sampling_fields_are_handed_on() -> None:
    fields = {"temperature": 0.0, "top_p": 0.9, "top_k": 5, "stop_sequences": ["\n"], "seed": 7}
    body = body_of([said("Hi")], **fields, ignore_eos=True, metadata={"user_id": "u"})
    assert body["temperature"] == 0.0 and body["stop"] == ["\n"] and body["top_k"] == 5
    assert body["ignore_eos"] is True and body["prompt_cache_key"] == "u" and body["seed"] == 7


def test_counting_sees_the_same_prompt() -> None:
    fields = {
        "model": "m",
        "system": "S",
        "messages": [said("Hi")],
        "thinking": {"type": "disabled"},
    }
    counted = chat_body(CountTokensRequest.model_validate(fields), CONTEXT)
    asked = chat_body(MessagesRequest.model_validate(fields | {"max_tokens": 9}), CONTEXT)
    assert asked == counted | {"max_completion_tokens": 9}


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
PDF = {"type": "document", "source": {"type": "base64", "data": "AA"}}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"messages": [{"role": "user", "content": [text("a"), IMAGE]}]}, "messages.0.content.1"),
        ({"messages": [{"role": "user", "content": [PDF]}]}, "messages.0.content.0"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "tool_use_id": "c", "content": [IMAGE]}
                        ],
                    }
                ]
            },
            "messages.0.content.0.content.0",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "content.0.text"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "tool_use_id"),
        ({"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]}, "content.0.id"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0.type"),
        ({"tools": [{"name": "read"}]}, "tools.0.input_schema"),
        (
            {"tools": [{"name": "a", "input_schema": {}}], "tool_choice": {"type": "tool"}},
            "tool_choice.name",
        ),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_path(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(RequestError, match=path):
        body_of(**({"messages": [said("Hi")]} | fields))


def test_max_tokens_is_required_and_messages_are_not_empty() -> None:
    for wrong in ({"messages": [said("Hi")]}, {"messages": [], "max_tokens": 1}):
        with pytest.raises(ValidationError):
            MessagesRequest.model_validate({"model": "m"} | wrong)


@pytest.mark.parametrize(
    ("given", "plain"),
    [("m", "m"), ("m[1m]", "m"), ("m[1m", "m[1m"), (None, None), ("org/m-1[2m]", "org/m-1")],
)
def test_what_clients_append_to_a_model_name_is_stripped(given: str, plain: str) -> None:
    assert plain_model(given) == plain
