"""What the machine makes of answers: those of tests/support/chat_answers.py, and any other text.

Every answer is fed in ways a stream may be cut, with the same outcome; arguments are JSON always.
"""

from __future__ import annotations

from itertools import chain, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isobath.chat import CallArguments, CallBegin, Machine
from isobath.model.text import EOS, Detokenizer
from tests.support.chat_answers import (
    CASES,
    CLOSE,
    LONG,
    LS,
    MENTION,
    OPEN,
    TOOLS,
    Case,
    par,
)
from tests.support.chat_streams import (
    FORMAT,
    ORDINARY,
    TEXT,
    Heard,
    Part,
    clip,
    hear,
    named,
    parts,
    singly,
)


def judge(case: Case, stream: list[Part]) -> Heard:
    heard = hear(stream, case.tools, thinking=case.thinking, reason=case.reason)
    assert (heard.message.content, heard.message.reasoning) == (case.content, case.reasoning)
    assert named(heard) == case.calls
    assert heard.finish_reason == case.finish
    assert (heard.content, heard.reasoning) == (case.streamed or (case.content, case.reasoning))
    assert heard.arguments == tuple(call.arguments for call in heard.message.calls)
    assert [(c.id, c.name) for c in heard.begun] == [(c.id, c.name) for c in heard.message.calls]
    return heard


@pytest.mark.parametrize("name", CASES)
def test_the_meaning_of_an_answer_is_that_of_the_table(name: str) -> None:
    case = CASES[name]
    judge(case, singly(case.answer))
    judge(case, parts(case.answer, repeat(1 << 20)))  # as much in a token as there can be
    judge(case, parts(case.answer, repeat(7)))


@settings(deadline=None)
@given(st.sampled_from(sorted(CASES)), st.lists(st.integers(0, 9), min_size=1))
def test_the_meaning_does_not_depend_on_how_an_answer_is_cut(name: str, cuts: list[int]) -> None:
    case = CASES[name]
    judge(case, parts(case.answer, chain(cuts, repeat(5))))


FRAGMENTS = (
    *(case.answer for case in CASES.values()),
    *("<", "</", "｜DSML｜", ">", "\n", " ", 'name="bash"', "</think>", "<think>", "tool_calls"),
    *(OPEN, CLOSE, LS, "<｜DSML｜invoke", "</｜DSML｜parameter>", "</｜DSML｜invoke>", EOS, "é"),
    *(par("command", "a"), par("timeout", "1", "false"), par("arguments", "{}", None)),
)
answers = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=5), max_size=8).map("".join)


@settings(deadline=None)
@given(answers, st.lists(st.integers(0, 9), min_size=1), st.booleans(), st.integers(0, 999))
def test_any_answer_cut_anywhere_means_the_same(
    answer: str, cuts: list[int], thinking: bool, stop: int
) -> None:
    reason = "stop" if stop > 500 else "length"
    answer = answer if stop > 500 else clip(answer, stop)
    one = hear(singly(answer), TOOLS, thinking=thinking, reason=reason)
    other = hear(parts(answer, chain(cuts, repeat(3))), TOOLS, thinking=thinking, reason=reason)
    assert (one.message, one.finish_reason) == (other.message, other.finish_reason)
    for heard in (one, other):
        assert heard.arguments == tuple(call.arguments for call in heard.message.calls)
        assert all(isinstance(arguments, dict) for _, arguments in named(heard))
        assert [call.index for call in heard.begun] == list(range(len(heard.begun)))


@settings(deadline=None)
@given(answers)
def test_without_tools_an_answer_is_passed_on_unchanged(answer: str) -> None:
    heard = hear(singly("a" + answer))
    assert heard.message.content == "a" + answer.replace(EOS, "") and not heard.message.calls


def test_a_long_string_is_passed_on_piece_by_piece() -> None:
    stream = singly(CASES["10 a long string"].answer)
    heard = hear(stream, TOOLS)
    fragments = [d for each in heard.deltas for d in each if isinstance(d, CallArguments)]
    assert len(fragments) >= len(LONG) and max(len(d.fragment) for d in fragments) < 20


def test_a_call_begins_as_soon_as_its_name_is_known() -> None:
    machine = Machine(FORMAT, [FORMAT.ids.end_think], TOOLS)
    begun = [machine.feed(*part) for part in singly(OPEN + '<｜DSML｜invoke name="bash">')]
    assert not any(begun[:-1]) and isinstance(begun[-1][0], CallBegin)
    assert begun[-1][0].id.startswith("call_") and len(begun[-1][0].id) == 5 + 24


def test_prose_is_held_no_longer_than_it_may_become_a_call() -> None:
    machine = Machine(FORMAT, [FORMAT.ids.end_think], TOOLS)
    fed, held = 0, 0
    for token, text in singly(MENTION * 3):
        machine.feed(token, text)
        fed += len(text)
        held = max(held, fed - len(machine.message.content))
    # the longest that may begin a call: the blank before, the tag, and the blank behind it
    assert held == len(' <｜DSML｜invoke name="bash"> ')


@pytest.mark.parametrize(
    ("end", "reasoning"),
    [("<think>", True), ("</think>", False), ("<think>go on", True), ("<think>a</think>b", False)],
)
def test_the_beginning_is_read_off_the_prompt(end: str, reasoning: bool) -> None:
    prompt = TEXT.encode("<｜User｜><think>Hi<｜Assistant｜>" + end)
    machine = Machine(FORMAT, prompt)
    machine.feed(ORDINARY, "so")
    assert bool(machine.message.reasoning) is reasoning
    assert machine.reasoning_tokens == reasoning


def test_reasoning_tokens_are_counted() -> None:
    machine = Machine(FORMAT, [FORMAT.ids.think])
    for part in parts("abc</think>def", repeat(2)):  # ab, c, </think>, de, f
        machine.feed(*part)
    assert machine.reasoning_tokens == 3


@pytest.mark.parametrize("name", CASES)
def test_the_tokenizers_own_cuts_are_as_good_as_any(name: str) -> None:
    case = CASES[name]
    pieces = Detokenizer(TEXT)
    stream = [(i, pieces.add(i)) for i in TEXT.encode(case.answer, bos=False)]
    judge(case, [*stream, (ORDINARY, pieces.finish())])
