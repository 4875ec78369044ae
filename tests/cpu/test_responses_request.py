"""What a Responses request means as a chat completion."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from isobath.errors import RequestError
from isobath.server.responses_request import ResponsesRequest, chat_body
from isobath.server.sealed import seal


def body_of(input: Any, **fields: Any) -> dict[str, Any]:
    return chat_body(ResponsesRequest.model_validate({"model": "m", "input": input} | fields))[0]


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def said(value: str, role: str = "user") -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": value}]}


def thought(value: str) -> dict[str, Any]:
    return {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": value}],
    }


def call(id: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": id, "name": "read", "arguments": '{"path": "a"}'}


def result(id: str, output: Any = "x = 1") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": id, "output": output}


def test_a_text_is_a_users_message() -> None:
    body = body_of("Hi", instructions="Be brief.")
    assert body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ],
    }


def test_developer_means_system_and_the_type_may_be_missing() -> None:
    items = [{"role": "developer", "content": "S"}, {"role": "user", "content": "Hi"}]
    assert [m["role"] for m in body_of(items)["messages"]] == ["system", "user"]


def test_a_turns_items_become_one_message() -> None:
    items = [
        said("Go"),
        thought("Hm."),
        said("I read.", "assistant"),
        call("call_1"),
        call("call_2"),
        result("call_1"),
        result("call_2", [{"type": "input_text", "text": "y"}]),
        thought("So."),
        said("Done.", "assistant"),
        said("Thanks"),
    ]
    messages = body_of(items)["messages"]
    roles = ["user", "assistant", "tool", "tool", "assistant", "user"]
    assert [m["role"] for m in messages] == roles
    turn = messages[1]
    assert turn["reasoning_content"] == "Hm." and turn["content"] == [text("I read.")]
    assert [c["id"] for c in turn["tool_calls"]] == ["call_1", "call_2"]
    assert messages[3] == {"role": "tool", "tool_call_id": "call_2", "content": [text("y")]}
    assert messages[4] == {
        "role": "assistant",
        "content": [text("Done.")],
        "reasoning_content": "So.",
    }


def test_reasoning_never_becomes_content() -> None:
    for items in ([thought("Hm.")], [thought("Hm."), call("c")], [said("a", "assistant")] * 2):
        for message in body_of([said("Go"), *items])["messages"]:
            assert text("Hm.") not in message["content"]
    two = body_of([said("Go"), said("a", "assistant"), said("b", "assistant")])["messages"]
    assert [m["content"] for m in two[1:]] == [[text("a")], [text("b")]]


def test_reasoning_comes_back_from_our_own_sealed_word() -> None:
    def reasoning(**fields: Any) -> str | None:
        item = {"type": "reasoning", "summary": []} | fields
        return body_of([said("Go"), item, said("b", "assistant")])["messages"][1].get(
            "reasoning_content"
        )

    assert reasoning(encrypted_content=seal("Hm.")) == "Hm."
    assert reasoning(encrypted_content="theirs") is None
    assert reasoning(summary=[{"type": "summary_text", "text": "In short."}]) == "In short."


ONE = {"type": "function", "name": "a"}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", "auto"),
        ("required", "required"),
        ({"type": "function", "name": "read"}, {"type": "function", "function": {"name": "read"}}),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "a"}],
            },
            "required",
        ),
    ],
)
def test_tool_choice_is_translated(choice: Any, expected: Any) -> None:
    tools = [{"type": "function", "name": name, "parameters": {}} for name in ("read", "a")]
    body = body_of("Hi", tools=tools, tool_choice=choice, parallel_tool_calls=False)
    assert body["tool_choice"] == expected and body["parallel_tool_calls"] is False
    names = [tool["function"]["name"] for tool in body["tools"]]
    assert names == (["a"] if isinstance(choice, dict) and "tools" in choice else ["read", "a"])


def test_tools_of_other_servers_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        body = body_of("Hi", tools=[{"type": "web_search"}], tool_choice="auto")
    assert "tools" not in body and "tool_choice" not in body
    assert "web_search" in caplog.text


def test_namespaces_and_custom_tools_are_functions_and_so_are_their_calls() -> None:
    inner = [{"type": "function", "name": name} for name in ("open", "close")]
    tools = [
        {"type": "function", "name": "read"},
        {"type": "namespace", "name": "mcp__fs", "tools": [*inner, {"type": "web_search"}]},
        {
            "type": "custom",
            "name": "patch",
            "format": {"type": "grammar", "definition": "start: A"},
        },
    ]
    items = [
        said("Go"),
        {"type": "custom_tool_call", "call_id": "c1", "name": "patch", "input": "a\nb"},
        call("c2") | {"namespace": "mcp__fs", "name": "open"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "ok"},
    ]
    body = body_of(items, tools=tools, tool_choice={"type": "custom", "name": "patch"})
    functions = {tool["function"]["name"]: tool["function"] for tool in body["tools"]}
    assert list(functions) == ["read", "mcp__fs__open", "mcp__fs__close", "patch"]
    assert "start: A" in functions["patch"]["description"]
    assert functions["patch"]["parameters"]["required"] == ["input"]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "patch"}}
    _, turn, output = body["messages"]
    first, second = (one["function"] for one in turn["tool_calls"])
    assert json.loads(first["arguments"]) == {"input": "a\nb"}
    assert second["name"] == "mcp__fs__open" and output["tool_call_id"] == "c1"


@pytest.mark.parametrize(
    "tools",
    [
        [{"type": "function"}],
        [{"type": "function", "name": "a"}, {"type": "custom", "name": "a"}],
        [{"type": "namespace", "name": "n", "tools": [{"type": "function"}]}],
    ],
)
def test_tools_without_a_name_of_their_own_are_refused(tools: Any) -> None:
    with pytest.raises(RequestError, match="tools"):
        body_of("Hi", tools=tools)


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"type": "text"}, {"type": "text"}),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
            },
        ),
    ],
)
def test_a_text_format_is_a_response_format(form: Any, expected: Any) -> None:
    assert body_of("Hi", text={"format": form})["response_format"] == expected


def test_the_rest_is_handed_on() -> None:
    fields = {"temperature": 0.0, "top_p": 0.5, "ignore_eos": True, "max_output_tokens": 5}
    body = body_of(
        "Hi", **fields, reasoning={"effort": "none"}, prompt_cache_key="k", cache_salt="s"
    )
    assert body["max_completion_tokens"] == 5 and body["ignore_eos"] is True
    assert body["reasoning_effort"] == "none" and body["prompt_cache_key"] == "k"
    assert body["cache_salt"] == "s"


@pytest.mark.parametrize("name", ["previous_response_id", "conversation"])
def test_a_memory_is_refused_with_what_to_do_instead(name: str) -> None:
    with pytest.raises(RequestError, match=f"{name}: replay full input instead"):
        body_of("Hi", **{name: "resp_1"})
    assert body_of("Hi", **{name: None})


@pytest.mark.parametrize(
    ("item", "path"),
    [
        ({"type": "item_reference", "id": "msg_1"}, "input.0: replay full input"),
        ({"type": "computer_call"}, "input.0.type"),
        ({"content": "Hi"}, "input.0.role"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "input.0.content.0"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input.0.content.0.text"),
        ({"type": "function_call", "name": "a", "arguments": "{}"}, "input.0: call_id"),
        ({"type": "function_call_output", "output": "x"}, "input.0.call_id"),
    ],
)
def test_what_cannot_be_served_is_refused_with_its_path(item: Any, path: str) -> None:
    with pytest.raises(RequestError, match=path):
        body_of([item])
