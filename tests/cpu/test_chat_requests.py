"""Requests in OpenAI's shape: each gives a prompt or RequestError, whatever JSON it is made of."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isobath.chat import Machine, Tool, conversation_of
from isobath.errors import RequestError
from tests.support.chat_streams import FORMAT

USER = {"role": "user", "content": "hi"}
ANY_JSON = {"type": "json_schema"}
NAME = {"type": "function", "function": {"name": "f"}}


def assistant(**call: Any) -> list[Any]:
    return [USER, {"role": "assistant", "tool_calls": [call]}]


@pytest.mark.parametrize(
    ("messages", "more", "complaint"),
    [
        (None, {}, "messages should be"),
        ([], {}, "messages should be"),
        ("hi", {}, "messages should be"),
        ([None], {}, r"messages.0 should be an object"),
        ([{"content": "x"}], {}, r"messages.0.role is unknown"),
        ([{"role": "function"}], {}, r"messages.0.role is unknown"),
        ([{"role": ["user"]}], {}, r"messages.0.role is unknown"),
        ([{"role": "user", "content": 3}], {}, r"messages.0.content should be"),
        ([{"role": "user", "content": [3]}], {}, r"content.0: not text"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], {}, r"content.0: not text"),
        ([{"role": "user", "content": [{"type": {}}]}], {}, r"content.0: not text"),
        ([{"role": "assistant", "reasoning": {}}], {}, r"reasoning should be a string"),
        ([{"role": "tool", "tool_call_id": 7}], {}, r"tool_call_id should be a string"),
        ([{"role": "user", "content": "\ud800"}], {}, "no Unicode"),
        (assistant(function=None), {}, r"tool_calls.0.function should be an object"),
        (assistant(function={"name": ""}), {}, r"function.name should be"),
        (assistant(function={"name": 'f"'}), {}, r"function.name should be"),
        (assistant(function={"name": "f", "arguments": []}), {}, "arguments should be a string"),
        ([USER], {"tools": {}}, "tools should be a list"),
        ([USER], {"tools": [{"type": "custom"}]}, r"tools.0 should be"),
        ([USER], {"tools": [{"function": {"name": "a" * 257}}]}, r"tools.0.function.name"),
        ([USER], {"tools": [{"function": {"name": "f", "parameters": 1}}]}, "parameters should"),
        ([USER], {"tools": [NAME, NAME]}, "there twice"),
        ([USER], {"reasoning_effort": "hard"}, "reasoning_effort is unknown"),
        ([USER], {"reasoning_effort": 3}, "reasoning_effort is unknown"),
        ([USER], {"thinking": {"type": "maybe"}}, "thinking is unknown"),
        ([USER], {"thinking": "yes"}, "thinking is unknown"),
        ([USER], {"chat_template_kwargs": []}, "chat_template_kwargs should be an object"),
        ([USER], {"chat_template_kwargs": {"thinking": 1}}, "thinking should be true or false"),
        ([USER], {"response_format": {"type": "xml"}}, "response_format.type should be"),
        ([USER], {"response_format": {"type": "json_schema"}}, "json_schema should be an object"),
        ([USER], {"response_format": ANY_JSON | {"json_schema": {"schema": 1}}}, "schema should"),
        ([USER], {"response_format": 1}, "response_format should be an object"),
    ],
)
def test_what_means_nothing_is_refused(messages: Any, more: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        FORMAT.render(conversation_of(messages, **more))


def test_fields_that_are_not_known_are_left_alone() -> None:
    odd = {**USER, "name": 3, "cache_control": {"type": "ephemeral"}}
    assert FORMAT.render(conversation_of([odd])) == FORMAT.render(conversation_of([USER]))


def test_deep_nesting_is_refused_or_rendered() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    call = {"id": "x", "function": {"name": "f", "arguments": deep}}
    for messages, tools in (
        ([USER], [{"function": {"name": "f", "parameters": deep}}]),
        ([USER, {"role": "assistant", "tool_calls": [call]}], None),
    ):
        with pytest.raises(RequestError, match="nested too deeply"):
            FORMAT.render(conversation_of(messages, tools))


WORDS = """role content user assistant system tool developer tool_calls id function name arguments
type text tool_call_id reasoning reasoning_content parameters thinking reasoning_effort task
properties anyOf $ref #/ enum"""
words = st.sampled_from(re.split(r"\s+", WORDS))
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words
json_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(words | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)
contents = json_values | st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": scalars}), max_size=2
)
functions = st.fixed_dictionaries(
    {"name": st.sampled_from(["f", "g"]) | json_values}, optional={"arguments": json_values}
)
calls = st.lists(
    st.fixed_dictionaries({"function": functions}, optional={"id": scalars}) | json_values,
    max_size=3,
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", "latest_reminder"])},
        optional={
            "content": contents,
            "tool_calls": calls | json_values,
            "tool_call_id": scalars,
            "reasoning": scalars,
            "reasoning_content": scalars,
            "task": scalars | st.just("title"),
        },
    )
    | json_values,
    max_size=6,
)


@settings(deadline=None)
@given(
    messages | json_values,
    st.none() | st.lists(st.fixed_dictionaries({"function": functions}) | json_values, max_size=2),
    st.fixed_dictionaries(
        {},
        optional={
            "reasoning_effort": scalars,
            "thinking": scalars | json_values,
            "chat_template_kwargs": json_values,
            "response_format": json_values,
            "continue_final_message": st.booleans(),
        },
    ),
)
def test_any_json_gives_a_prompt_or_a_refusal(
    messages: Any, tools: Any, more: dict[str, Any]
) -> None:
    try:
        conversation = conversation_of(messages, tools, **more)
        rendered = FORMAT.render(conversation)
    except RequestError:
        return
    assert rendered.token_ids[0] == FORMAT.text.bos
    Machine(FORMAT, rendered.token_ids, conversation.tools)


@settings(deadline=None)
@given(json_values)
def test_any_schema_lets_a_call_be_read(schema: Any) -> None:
    tool = Tool("f", {"name": "f", "parameters": {"properties": {"a": schema}, "a": schema}})
    machine = Machine(FORMAT, [FORMAT.ids.end_think], (tool,))
    machine.feed(FORMAT.ids.dsml, "<｜DSML｜")
    machine.feed(9, "tool_calls>")
    machine.feed(FORMAT.ids.dsml, "<｜DSML｜")
    machine.feed(9, 'invoke name="f">')
    machine.feed(FORMAT.ids.dsml, "<｜DSML｜")
    machine.feed(9, 'parameter name="a">3')
    machine.finish("stop")
    assert machine.message.calls[0].arguments in ('{"a": 3}', '{"a": "3"}')
