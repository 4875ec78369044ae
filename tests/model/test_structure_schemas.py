"""JSON schemas at random: what a backend takes, it holds; what xgrammar would let pass is known."""

from __future__ import annotations

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isobath.engine.grammar_schema import beyond, beyond_pattern, closed
from isobath.engine.structure import Structure
from isobath.errors import RequestError
from tests.support.walks import BACKENDS, constraint, text_of, walk

NAMES = st.sampled_from(["a", "b", "xa", "xb"])
SCALARS = st.sampled_from([None, True, 0, 7, -3, "", "x", "yes", 1.5])
PATTERNS = st.sampled_from(["^[ab]{1,3}$", "b", "^x|y$", "(?=a)b", "x^y", "^.{2}$", r"^\d+$"])


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the keywords, beside each other."""
    return st.fixed_dictionaries({}, optional=fields)


def of(kind: str, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return some(**fields).map(lambda said: {"type": kind} | said)


small = st.integers(0, 4)
LEAVES = st.one_of(
    of("integer", minimum=st.integers(-9, 9), maximum=st.integers(-9, 30), multipleOf=st.just(3)),
    of("number", minimum=st.just(0.5), exclusiveMaximum=st.just(7)),
    of("string", minLength=small, maxLength=small, pattern=PATTERNS, format=st.just("date")),
    st.lists(SCALARS, min_size=1, max_size=3).map(lambda values: {"enum": values}),
    st.tuples(SCALARS, st.sampled_from(["integer", "string"])).map(
        lambda said: {"const": said[0], "type": said[1]}
    ),
    st.sampled_from([True, {"type": "null"}, {"type": "boolean"}, {"type": ["string", "null"]}]),
    some(minimum=st.just(3), minLength=st.just(2)),
)


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    named = st.dictionaries(NAMES, inner, max_size=3)
    return st.one_of(
        of(
            "object",
            properties=named,
            required=st.lists(NAMES, max_size=2, unique=True),
            additionalProperties=st.one_of(st.booleans(), inner),
            patternProperties=st.dictionaries(st.sampled_from(["^x", "b"]), inner, max_size=1),
            minProperties=small,
            maxProperties=small,
        ),
        of("array", items=inner, minItems=small, maxItems=small, uniqueItems=st.booleans()),
        of("array", prefixItems=several, items=inner, minItems=small),
        some(anyOf=several, properties=named),
        several.map(lambda schemas: {"oneOf": schemas}),
        several.map(lambda schemas: {"allOf": schemas}),
        inner.map(lambda schema: {"type": "string", "not": schema}),
    )


SCHEMAS = st.recursive(LEAVES, larger, max_leaves=5)


@pytest.mark.parametrize("backend", sorted(BACKENDS))
@pytest.mark.parametrize("number", [60, pytest.param(1500, marks=pytest.mark.nightly)])
def test_what_a_backend_compiles_it_enforces(backend: str, number: int) -> None:
    seen = {"compiled": 0, "refused": 0, "judged": 0}

    @settings(max_examples=number, deadline=None, derandomize=number == 60, database=None)
    @given(schema=SCHEMAS, seed=st.integers(0, 5))
    def check(schema: Any, seed: int) -> None:
        try:
            state = constraint(Structure.json_schema(schema), backend)
        except RequestError:
            seen["refused"] += 1
            return
        seen["compiled"] += 1
        if state.stuck:
            return  # no text is of this schema
        tokens = walk(state, seed)
        if tokens is not None:
            seen["judged"] += 1
            text = text_of(tokens)
            assert jsonschema_rs.is_valid(schema, json.loads(text)), text

    check()
    assert min(seen.values()) >= number / 10, seen


def test_an_object_is_closed_unless_it_speaks_of_others() -> None:
    one = {"type": "object", "properties": {"a": True}}
    assert closed(one)["additionalProperties"] is False
    assert closed({"items": one})["items"]["additionalProperties"] is False
    for kept in (True, {}, {"type": "object"}, one | {"additionalProperties": True}):
        assert closed(kept) == kept


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"items": {"uniqueItems": True}}, "uniqueItems"),
        ({"$defs": {"a": {"not": {}}}}, "not"),
        ({"required": ["a"]}, "required"),
        ({"$ref": "https://example.com/"}, "$ref"),
        ({"anyOf": [{}], "type": "string"}, "anyOf"),
        ({"minimum": 3}, "minimum"),
        ({"type": "string", "pattern": "a", "minLength": 1}, "minLength"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
    ],
)
def test_what_xgrammar_would_let_pass_is_named(schema: dict[str, Any], named: str) -> None:
    assert named in (beyond(schema) or "")


def test_ordinary_schemas_and_patterns_are_not_beyond_it() -> None:
    assert beyond({"oneOf": [{"type": "integer"}, {"type": "string"}]}) is None
    assert beyond({"$ref": "#/$defs/a", "$defs": {"a": {"enum": [1]}}, "title": "t"}) is None
    assert beyond_pattern("^[^ab]{1,3}(?:x|\\$)$") is None
    assert beyond_pattern("(?!x)y") and beyond_pattern("a^b")
