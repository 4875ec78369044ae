"""Whatever JSON a client puts where something else belongs, a request is translated or refused."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from isobath.chat import conversation_of
from isobath.engine.structure_chat import structure_for_chat
from isobath.errors import RequestError
from isobath.server import messages_request, responses_request
from isobath.server.chat_body import ChatRequest

SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
MESSAGES = {
    "model": "m",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Read"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "text", "text": "Yes."},
                {"type": "tool_use", "id": "c1", "name": "read", "input": {"path": "a"}},
            ],
        },
        {"role": "system", "content": "4000 left"},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": [], "is_error": True},
                {"type": "document", "source": {"type": "text", "data": "D"}},
            ],
        },
    ],
    "tools": [{"name": "read", "description": "R", "input_schema": SCHEMA, "strict": True}],
    "tool_choice": {"type": "tool", "name": "read", "disable_parallel_tool_use": True},
    "thinking": {"type": "adaptive", "display": "omitted"},
    "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": SCHEMA}},
    "stop_sequences": ["a"],
    "temperature": 0.5,
    "metadata": {"user_id": "u"},
}
RESPONSES = {
    "model": "m",
    "instructions": "S",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Read"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "H"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Y"}]},
        {"type": "function_call", "call_id": "c1", "name": "read", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "a"},
        {"type": "function_call_output", "call_id": "c1", "output": "x"},
    ],
    "tools": [
        {"type": "function", "name": "read", "parameters": SCHEMA, "strict": True},
        {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "read"}]},
        {"type": "custom", "name": "patch", "format": {"type": "grammar", "definition": "s: A"}},
    ],
    "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom"}]},
    "text": {"format": {"type": "json_schema", "name": "n", "schema": SCHEMA}},
    "reasoning": {"effort": "high", "summary": "auto"},
    "include": ["reasoning.encrypted_content"],
    "metadata": {"a": "b"},
    "max_output_tokens": 9,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON value, but of itself."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, one in inner if isinstance(value, dict | list) else ():
        found += [
            (*path, key),
            *(places(one, (*path, key)) if isinstance(one, dict | list) else []),
        ]
    return found


@st.composite
def broken(draw: st.DrawFn, whole: dict[str, Any]) -> dict[str, Any]:
    """A request in which up to three values were replaced or are missing."""
    body = copy.deepcopy(whole)
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from(places(body)))
        target: Any = body
        for key in way:
            target = target[key]
        if isinstance(target, dict) and draw(st.booleans()):
            del target[last]
        else:
            target[last] = draw(JSON)
    return body


def rendered(body: dict[str, Any]) -> None:
    """What a route does with a chat body before the engine is asked."""
    chat = ChatRequest.model_validate(body)
    structure_for_chat(chat.response_format, chat.tools, chat.tool_choice)
    conversation_of(
        chat.messages,
        chat.tools,
        reasoning_effort=chat.reasoning_effort,
        thinking=chat.thinking,
        response_format=chat.response_format,
    )


def test_both_requests_are_right_as_long_as_nothing_is_broken() -> None:
    asked = messages_request.MessagesRequest.model_validate(MESSAGES)
    rendered(messages_request.chat_body(asked, 4096))
    other = responses_request.ResponsesRequest.model_validate(RESPONSES)
    rendered(responses_request.chat_body(other)[0])


@settings(max_examples=300, deadline=None)
@given(broken(MESSAGES))
def test_a_broken_message_request_is_translated_or_refused(body: dict[str, Any]) -> None:
    try:
        asked = messages_request.MessagesRequest.model_validate(body)
        rendered(messages_request.chat_body(asked, 4096))
    except (ValidationError, RequestError):
        pass


@settings(max_examples=300, deadline=None)
@given(broken(RESPONSES))
def test_a_broken_responses_request_is_translated_or_refused(body: dict[str, Any]) -> None:
    try:
        asked = responses_request.ResponsesRequest.model_validate(body)
        rendered(responses_request.chat_body(asked)[0])
    except (ValidationError, RequestError):
        pass


@pytest.mark.parametrize("depth", [100, 100_000])
def test_nesting_is_no_other_error_than_too_deep(depth: int) -> None:
    block: dict[str, Any] = {"type": "text", "text": "a"}
    for _ in range(depth):
        block = {"type": "tool_result", "tool_use_id": "c", "content": [block]}
    body = MESSAGES | {"messages": [{"role": "user", "content": [block]}]}
    with pytest.raises((ValidationError, RequestError, RecursionError)):
        messages_request.chat_body(messages_request.MessagesRequest.model_validate(body), 4096)
