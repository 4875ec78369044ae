"""What a request may ask of a completion's text is checked before the engine hears of it."""

from __future__ import annotations

import pickle

import pytest

from isobath.engine.sampling import SamplingParams
from isobath.engine.structure import MAX_DEPTH, Structure
from isobath.engine.structure_chat import structure_for_chat
from isobath.errors import RequestError

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}},
}
STRICT = {"type": "function", "function": {"name": "clock", "strict": True}}


def test_a_structure_crosses_to_the_engine_whole() -> None:
    params = SamplingParams(structure=Structure.json_schema({"type": "object"}))
    assert pickle.loads(pickle.dumps(params)) == params
    assert hash(params.structure) == hash(Structure("json_schema", '{"type":"object"}'))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("json_schema", "{"),
        ("json_schema", "3"),
        ("json_schema", "[" * 2000 + "]" * 2000),
        ("json_schema", '{"not":' * MAX_DEPTH + "{}" + "}" * MAX_DEPTH),
        ("regex", "(" * (MAX_DEPTH + 1)),
        ("regex", ""),
        ("grammar", " "),
        ("grammar", "x" * (1 << 19)),
        ("choice", "[]"),
        ("choice", '["a", 3]'),
        ("choice", '[""]'),
        ("tools", "{}"),
        ("tools", '{"tools": [{"name": "a\\"b"}], "choice": "auto"}'),
        ("tools", '{"tools": [{"name": "a"}, {"name": "a"}], "choice": "auto"}'),
        ("tools", '{"tools": [{"name": "a"}], "choice": "always"}'),
        ("music", "do re mi"),
    ],
)
def test_a_value_that_cannot_be_of_its_kind_is_refused(kind: str, value: str) -> None:
    with pytest.raises(RequestError):
        Structure(kind, value)  # type: ignore[arg-type]


def test_a_schema_that_python_cannot_write_is_refused() -> None:
    with pytest.raises(RequestError):
        Structure.json_schema({"enum": [float("nan")]})


def test_free_text_has_no_structure() -> None:
    assert structure_for_chat() is None
    assert structure_for_chat({"type": "text"}, [WEATHER], "auto") is None
    assert structure_for_chat(tools=[STRICT], tool_choice="none") is None


def test_required_named_and_strict_tools_are_structured() -> None:
    required = structure_for_chat(tools=[WEATHER, STRICT], tool_choice="required", thinking=True)
    assert required is not None and required.kind == "tools" and required.reasoning is True
    named = structure_for_chat(
        tools=[WEATHER, STRICT],
        tool_choice={"type": "function", "function": {"name": "clock"}},
    )
    assert named is not None and "weather" not in named.value and '"parallel":false' in named.value
    strict = structure_for_chat(tools=[WEATHER, STRICT])
    assert strict is not None and '"choice":"auto"' in strict.value


def test_a_tool_that_must_be_called_goes_before_the_answers_format() -> None:
    both = structure_for_chat({"type": "json_object"}, [WEATHER], "required")
    assert both is not None and "content" not in both.value
    either = structure_for_chat({"type": "json_object"}, [WEATHER])
    assert either is not None and either.kind == "tools" and '"content"' in either.value


@pytest.mark.parametrize(
    "fields",
    [
        {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": 3}}},
        {"response_format": 3},
        {"tools": [3]},
        {"tools": [{"type": "function", "function": {"name": 3}}]},
        {"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "nope"}}},
        {"tools": [WEATHER], "tool_choice": {"type": "custom"}},
        {"tools": [WEATHER], "tool_choice": "sometimes"},
        {"tool_choice": "required"},
        {"structured_outputs": {"regex": "a", "choice": ["b"]}},
        {"structured_outputs": {"regex": 3}},
        {"structured_outputs": {"choice": "abc"}},
        {"structured_outputs": {"structural_tag": {}}},
    ],
)
def test_misshapen_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        structure_for_chat(**fields)  # type: ignore[arg-type]


def test_each_structured_output_of_vllm_has_its_kind() -> None:
    for field, value, kind in (
        ("json", {"type": "array"}, "json_schema"),
        ("json", '{"type": "array"}', "json_schema"),
        ("json_object", True, "json_object"),
        ("regex", "a+", "regex"),
        ("choice", ["a", "b"], "choice"),
        ("grammar", 'root ::= "a"', "grammar"),
    ):
        found = structure_for_chat(structured_outputs={field: value})
        assert found is not None and found.kind == kind
