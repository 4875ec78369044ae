"""Constrained output with the bundled model: whatever the sampler draws, the text is of its
structure, and nobody else notices."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jsonschema_rs
import pytest

from isobath import LLM, RequestError, SamplingParams
from isobath.cache.pool import PAGE_TOKENS
from isobath.config import EngineConfig
from isobath.engine.grammar_schema import beyond
from isobath.engine.output import Completion
from isobath.engine.request import Event, Failed, Finished, Request, Token
from isobath.engine.structure import Structure

PROMPT = "The json module"
SCHEMAS: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 3},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2},
            "more": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/pair"}]},
        },
        "required": ["name", "more"],
        "$defs": {
            "pair": {
                "type": "object",
                "properties": {"left": {"type": "boolean"}},
                "required": ["left"],
                "additionalProperties": False,
            }
        },
        "additionalProperties": False,
    },
    {"type": "array", "prefixItems": [{"type": "boolean"}, {"const": "x"}], "items": False},
    {"type": "string", "pattern": "^[a-f]{2,4}$"},
    {"enum": [1, "two", None, {"three": [3]}]},
    {"type": "integer", "minimum": -20, "maximum": 20},
]
GUIDANCE_ONLY: list[dict[str, Any]] = [
    {
        "type": "object",
        "properties": {"k": {"enum": [1, 2]}, "z": {"type": "null"}},
        "required": ["k"],
        "allOf": [{"required": ["z"]}],
        "additionalProperties": False,
    },
    {"type": "string", "pattern": "^a+$", "maxLength": 5, "minLength": 2},
    {"type": "integer", "multipleOf": 7, "minimum": 10, "maximum": 99},
]
DRAWN = SamplingParams(temperature=1.0, max_tokens=400)


@pytest.fixture(scope="module", params=["xgrammar", "guidance"])
def llm(request: pytest.FixtureRequest) -> Iterator[LLM]:
    yield _llm(request.param)


@pytest.fixture(scope="module")
def auto() -> LLM:
    return _llm("auto")


def _llm(backend: str, **options: Any) -> LLM:
    fixed: dict[str, Any] = {"num_pages": 80, "max_num_seqs": 8, "check": "step"}
    engine = EngineConfig(structured_outputs=backend, **fixed | options)
    return LLM(max_batched_tokens=64, engine=engine)


def _drawn(llm: LLM, structure: Structure, seeds: int = 2) -> list[Completion]:
    """Completions at temperature 1, as many as seeds, each with its own draws."""
    params = replace(DRAWN, structure=structure, n=seeds, seed=1)
    done = llm.generate([PROMPT], params)
    assert all(c.finish_reason == "stop" for c in done), [c.text for c in done]
    return done


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_every_output_validates_against_its_schema(llm: LLM, schema: dict[str, Any]) -> None:
    for completion in _drawn(llm, Structure.json_schema(schema)):
        assert jsonschema_rs.is_valid(schema, json.loads(completion.text)), completion.text


def test_any_json_object_is_one(llm: LLM) -> None:
    params = replace(DRAWN, structure=Structure.json_object(), n=4, seed=5, max_tokens=60)
    for completion in llm.generate([PROMPT], params):
        if completion.finish_reason == "stop":
            assert isinstance(json.loads(completion.text), dict)
        else:
            assert completion.text.startswith("{")


@pytest.mark.parametrize("pattern", ["[a-c]{3}-[0-9]{1,4}x", "^(yes|no), (é|ß){1,3}!{2}$"])
def test_the_whole_text_matches_its_pattern(llm: LLM, pattern: str) -> None:
    for completion in _drawn(llm, Structure.regex(pattern)):
        assert re.fullmatch(pattern, completion.text), completion.text


def test_a_choice_is_one_of_its_texts(llm: LLM) -> None:
    texts = ["yes", "no", 'a "quoted"\nline', "né", "yesterday", "</think>"]
    for completion in _drawn(llm, Structure.choice(texts), seeds=8):
        assert completion.text in texts


def test_a_grammar_derives_the_text(llm: LLM) -> None:
    structure = Structure.grammar('root ::= "<" word ">" | "(" root ")"\nword ::= [a-z]{1,5}')
    for completion in _drawn(llm, structure):
        assert re.fullmatch(r"\(*<[a-z]{1,5}>\)*", completion.text), completion.text


@pytest.mark.parametrize("schema", GUIDANCE_ONLY, ids=range(len(GUIDANCE_ONLY)))
def test_what_xgrammar_would_not_enforce_goes_to_llguidance(
    auto: LLM, schema: dict[str, Any]
) -> None:
    assert beyond(schema)
    for completion in _drawn(auto, Structure.json_schema(schema)):
        assert jsonschema_rs.is_valid(schema, json.loads(completion.text)), completion.text


@pytest.mark.parametrize(
    "structure",
    [
        Structure.json_schema({"type": "array", "uniqueItems": True}),
        Structure.json_schema({"type": "banana"}),
        Structure.json_schema({"$ref": "#/nowhere"}),
        Structure.json_schema({"properties": 3, "allOf": 4}),
        Structure.regex("(?=a)b"),
        Structure.regex("[z-a]"),
        Structure.grammar("root ::= missing"),
        Structure.grammar("root ::= root"),
    ],
)
def test_a_bad_structure_fails_alone(auto: LLM, structure: Structure) -> None:
    engine, ids = auto.engine, tuple(auto.text.encode(PROMPT))
    params = SamplingParams(max_tokens=5, ignore_eos=True)
    engine.submit(Request(901, ids, replace(params, structure=structure)))
    engine.submit(Request(902, ids, params))
    events = _run(auto)
    [failed] = [e for e in events if isinstance(e, Failed)]
    assert failed.request_id == 901 and failed.kind == "invalid_request" and failed.error
    [finished] = [e for e in events if isinstance(e, Finished)]
    assert finished.request_id == 902 and finished.reason == "length"
    assert not any(isinstance(e, Token) and e.request_id == 901 for e in events)


def test_a_completion_is_the_same_alone_and_in_a_batch(llm: LLM) -> None:
    structures = [
        None,
        Structure.json_schema(SCHEMAS[0]),
        Structure.regex("[a-c]{3}-[0-9]{1,4}x"),
        None,
        Structure.choice(["yes", "no"]),
    ]
    requests = [
        Request(
            number,
            tuple(llm.text.encode(f"{PROMPT} {number}")),
            replace(DRAWN, structure=structure, seed=number, n=2, max_tokens=16, logprobs=2),
        )
        for number, structure in enumerate(structures)
    ]
    alone = [_tokens(llm, [request]) for request in requests]
    together = _tokens(llm, requests)
    assert together == {key: told for single in alone for key, told in single.items()}


def test_a_preempted_completion_keeps_its_state() -> None:
    structure = Structure.regex("[a-z]{9} [a-z]{9} [a-z]{9} [a-z]{9}")
    params = replace(DRAWN, structure=structure, seed=2, max_tokens=60, n=3)
    tight, roomy = (_llm("auto", num_pages=pages, prefix_caching=False) for pages in (3, 80))
    prompt = (tight.text.encode(PROMPT) * PAGE_TOKENS)[: PAGE_TOKENS - 8]
    got, wanted = (llm.generate([prompt], params) for llm in (tight, roomy))
    assert [c.token_ids for c in got] == [c.token_ids for c in wanted]
    assert tight.engine.scheduler.num_preemptions > 0


def test_log_probabilities_are_the_models_own(auto: LLM) -> None:
    params = replace(DRAWN, structure=Structure.choice(["yes", "no"]), seed=3, logprobs=1)
    [done] = auto.generate([PROMPT], params)
    free = auto.score([*done.prompt_token_ids, *done.token_ids]).log_softmax(-1)
    for place, (told, _) in enumerate(done.logprobs):
        at = len(done.prompt_token_ids) - 1 + place
        assert told == float(free[at, done.token_ids[place]])


def test_the_grammar_goes_before_min_tokens_and_ignore_eos(llm: LLM) -> None:
    many = replace(DRAWN, structure=Structure.regex("a{2,9}"), ignore_eos=True, max_tokens=50)
    [done] = llm.generate([PROMPT], many)
    assert done.text == "a" * 9 and done.finish_reason == "stop"
    few = replace(DRAWN, structure=Structure.choice(["yes"]), min_tokens=20, max_tokens=50)
    [done] = llm.generate([PROMPT], few)
    assert done.text == "yes" and done.finish_reason == "stop"


def test_the_end_comes_when_the_grammar_lets_it(llm: LLM) -> None:
    eos = {llm.text.eos: 100.0}
    params = SamplingParams(structure=Structure.regex("a+"), logit_bias=eos)
    [done] = llm.generate([PROMPT], params)
    assert done.text == "a" * len(done.text) and done.finish_reason == "stop"
    assert done.token_ids[-1] == llm.text.eos and len(done.token_ids) == 2


def test_reasoning_is_free_and_the_structure_follows_it(llm: LLM) -> None:
    think, end = llm.text.token_id("<think>"), llm.text.token_id("</think>")
    prompt = [*llm.text.encode(PROMPT), think]
    structure = Structure.choice(["yes", "no"])
    free = replace(DRAWN, structure=structure, seed=4, max_tokens=12)
    plain = replace(free, structure=None, ignore_eos=True)
    [reasoned], [unbound] = llm.generate([prompt], free), llm.generate([prompt], plain)
    assert reasoned.token_ids == unbound.token_ids and reasoned.finish_reason == "length"
    [done] = llm.generate([prompt], replace(free, logit_bias={end: 1000.0}))
    assert done.token_ids[0] == end and done.finish_reason == "stop"
    assert done.text in ("</think>yes", "</think>no")
    [at_once] = llm.generate([[*prompt, end]], free)
    assert at_once.text in ("yes", "no")
    told = replace(free, structure=replace(structure, reasoning=False))
    assert llm.generate([prompt], told)[0].text in ("yes", "no")


def test_an_aborted_request_leaves_nothing(auto: LLM) -> None:
    engine, ids = auto.engine, tuple(auto.text.encode(PROMPT))
    fresh = Structure.json_schema({"type": "string", "title": "never compiled before"})
    params = replace(DRAWN, structure=fresh, n=2, max_tokens=50)
    engine.submit(Request(911, ids, params))
    assert engine.busy
    engine.abort(911)
    assert [type(e) for e in _run(auto)] == [Finished] and not engine.busy
    engine.submit(Request(912, ids, params))
    for _ in range(4):
        engine.step()
    engine.abort(912)
    _run(auto)
    assert not engine.busy and engine.slots.num_free == 8


def test_a_request_waits_for_its_grammar_and_others_do_not(auto: LLM) -> None:
    engine, ids = auto.engine, tuple(auto.text.encode(PROMPT))
    slow = Structure.regex("|".join(f"x{i}y" for i in range(3000)))
    engine.submit(Request(921, ids, replace(DRAWN, structure=slow)))
    engine.submit(Request(922, ids, SamplingParams(max_tokens=3, ignore_eos=True)))
    events = _run(auto)
    ends = [e.request_id for e in events if isinstance(e, Finished)]
    assert ends == [922, 921]


def test_what_takes_too_long_to_compile_is_given_up() -> None:
    llm = _llm("guidance")
    grammars = llm.engine.grammars
    assert grammars is not None
    llm.generate([PROMPT], replace(DRAWN, structure=Structure.choice(["yes"])))
    grammars._limit = 0.05
    endless = Structure.json_schema({"type": "integer", "multipleOf": 200_003})
    with pytest.raises(RequestError, match="to compile"):
        llm.generate([PROMPT], replace(DRAWN, structure=endless))
    assert (
        llm.generate([PROMPT], replace(DRAWN, structure=Structure.choice(["no"])))[0].text == "no"
    )


def _run(llm: LLM) -> list[Event]:
    """All events until there is nothing to do."""
    events: list[Event] = []
    while llm.engine.busy:
        events += llm.engine.step()
    return events


def _tokens(llm: LLM, requests: list[Request]) -> dict[tuple[int, int], list[Token]]:
    """Tokens and their log-probabilities by request and completion."""
    for request in requests:
        llm.engine.submit(request)
    told: dict[tuple[int, int], list[Token]] = {}
    for event in _run(llm):
        assert not isinstance(event, Failed), event
        if isinstance(event, Token):
            told.setdefault((event.request_id, event.index), []).append(event)
    return told
