"""Tool calls under a structure: whichever allowed tokens come, the machine that clients hear finds
calls of declared tools only, with arguments that follow their schema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest

from isobath.chat import Answer, ChatFormat, Machine, Tool
from isobath.engine.llm import BUNDLED
from isobath.engine.structure import Structure
from isobath.engine.structure_chat import structure_for_chat
from isobath.errors import RequestError
from isobath.model.text import Detokenizer
from tests.support.walks import BACKENDS, TEXT, VOCABULARY, constraint, text_of, walk

FORMAT = ChatFormat.load(BUNDLED, TEXT)
WEATHER: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "unit": {"enum": ["C", "F"]},
        "where": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["city", "unit"],
}
EDIT: dict[str, Any] = {"type": "object", "properties": {"old": {"type": "string"}}}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "edit", "parameters": EDIT}},
    {"type": "function", "function": {"name": "now"}},
]
SCHEMAS = {"weather": WEATHER, "edit": EDIT, "now": {"type": "object"}}
SEEDS = range(40)


def heard(tokens: list[int]) -> Answer:
    """What a client is told of a completion in chat mode."""
    tools = [Tool(t["function"]["name"], t["function"]) for t in TOOLS]
    machine = Machine(FORMAT, [VOCABULARY.end_think], tools)
    pieces = Detokenizer(TEXT, skip_special=False)
    for token in tokens:
        machine.feed(token, pieces.add(token))
    machine.finish("stop")
    return machine.message


def answers(structure: Structure | None, backend: str) -> list[Answer]:
    """Of all seeds whose walk ended."""
    assert structure is not None
    walks = [walk(constraint(structure, backend), seed) for seed in SEEDS]
    found = [heard(tokens) for tokens in walks if tokens is not None]
    assert len(found) > len(SEEDS) / 2, "too few walks end to say anything"
    return found


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_required_calls_are_of_declared_tools_and_valid(backend: str) -> None:
    found = answers(structure_for_chat(tools=TOOLS, tool_choice="required"), backend)
    for answer in found:
        assert answer.calls and not answer.content.strip()
        for call in answer.calls:
            arguments = json.loads(call.arguments)
            assert jsonschema_rs.is_valid(SCHEMAS[call.name], arguments), call
    assert len({c.name for a in found for c in a.calls}) > 1
    assert any(len(a.calls) > 1 for a in found)


def test_one_call_is_one_call(backend: str) -> None:
    one = structure_for_chat(tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    assert all(len(answer.calls) == 1 for answer in answers(one, backend))


def test_a_named_tool_is_the_one_that_is_called(backend: str) -> None:
    choice = {"type": "function", "function": {"name": "edit"}}
    for answer in answers(structure_for_chat(tools=TOOLS, tool_choice=choice), backend):
        assert [call.name for call in answer.calls] == ["edit"]


def test_a_strict_tool_is_held_to_its_schema_if_it_is_called(backend: str) -> None:
    strict = [{"type": "function", "function": TOOLS[0]["function"] | {"strict": True}}]
    structure = structure_for_chat(tools=strict)
    state = constraint(structure, backend) if structure else None
    assert state is not None and state.allowed[VOCABULARY.eos]
    opening = TEXT.encode('Here:\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="', bos=False)
    for token in opening:
        assert state.allowed[token], text_of([token])
        state.accept(token)
    assert not state.allowed[VOCABULARY.eos]
    rest = walk(state, seed=1)
    if rest is not None:
        answer = heard(opening + rest)
        assert answer.content.startswith("Here:")
        assert {call.name for call in answer.calls} == {"weather"}


def test_an_answer_beside_tools_is_a_call_or_json(backend: str) -> None:
    schema = {
        "type": "object",
        "properties": {"ok": {"type": "boolean"}},
        "required": ["ok"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    found = answers(structure_for_chat(form, TOOLS), backend)
    for answer in found:
        assert bool(answer.calls) != bool(answer.content.strip())
        assert answer.calls or jsonschema_rs.is_valid(schema, json.loads(answer.content))
    assert any(a.calls for a in found) and any(a.content for a in found)


def written(**arguments: Any) -> str:
    """A whole call of `weather`."""
    lines = ["\n\n<｜DSML｜tool_calls>", '<｜DSML｜invoke name="weather">']
    for name, value in arguments.items():
        text = isinstance(value, str)
        said = value if text else json.dumps(value)
        kind = "true" if text else "false"
        lines.append(f'<｜DSML｜parameter name="{name}" string="{kind}">{said}</｜DSML｜parameter>')
    return "\n".join([*lines, "</｜DSML｜invoke>", "</｜DSML｜tool_calls>"])


@pytest.mark.parametrize(
    ("call", "accepted"),
    [
        (written(city='a</b> | ＜｜ \n"x', unit="C"), True),
        (written(city="", days=14, unit="F", where=[True, False]), True),
        (written(city="Oslo"), False),
        (written(unit="C"), False),
        (written(city="Oslo", days=15, unit="C"), False),
        (written(city="Oslo", unit="K"), False),
        (written(city=3, unit="C"), False),
        (written(city="Oslo", unit="C", more=1), False),
        (written(city="Oslo", unit="C").replace("weather", "whether"), False),
    ],
)
def test_a_call_is_accepted_if_it_is_valid(backend: str, call: str, accepted: bool) -> None:
    structure = structure_for_chat(tools=TOOLS, tool_choice="required")
    assert structure is not None
    state = constraint(structure, backend)
    for token in TEXT.encode(call, bos=False):
        if not state.allowed[token]:
            break
        state.accept(token)
    assert bool(state.allowed[VOCABULARY.eos]) == accepted


def test_letters_that_spell_the_marker_are_no_marker(backend: str) -> None:
    structure = structure_for_chat(tools=TOOLS, tool_choice="required")
    assert structure is not None
    state = constraint(structure, backend)
    for token in TEXT.encode("\n\n<", bos=False):
        state.accept(token)
    assert state.allowed[VOCABULARY.marker] and int(state.allowed.sum()) == 1


def test_no_control_token_passes_for_text(backend: str) -> None:
    state = constraint(Structure.json_schema({"type": "string"}), backend)
    for token in TEXT.encode_plain('"a'):
        state.accept(token)
    control = sorted(TEXT.added_ids)
    assert not state.allowed[control].any()


def test_reasoning_neither_ends_nor_calls(backend: str) -> None:
    state = constraint(Structure.choice(["yes"]), backend, reasoning=True)
    assert not state.allowed[[VOCABULARY.eos, VOCABULARY.marker]].any()
    assert int(state.allowed.sum()) == VOCABULARY.size - 2
    for token in [*TEXT.encode("no yes", bos=False), VOCABULARY.end_think]:
        state.accept(token)
    assert state.allowed.nonzero().flatten().tolist()[0] in TEXT.encode_plain("y")


def test_a_strict_tool_beyond_the_backend_is_refused(backend: str) -> None:
    unique = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    tool = {"name": "f", "parameters": unique, "strict": True}
    with pytest.raises(RequestError):
        constraint(Structure.tools([tool]), backend)
