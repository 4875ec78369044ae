"""A completion's text by token: stop texts, end tokens, characters that span tokens."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from isobath.engine.llm import BUNDLED
from isobath.engine.output import Completion, Output, Part, joined
from isobath.engine.request import Finished, Prompt, Token
from isobath.engine.sampling import SamplingParams
from isobath.model.text import Text

TEXT = Text(BUNDLED)
LETTERS = [TEXT.encode(letter, bos=False)[0] for letter in "ab "]
PIECES = [*LETTERS, *TEXT.encode("🙂é", bos=False), TEXT.eos, TEXT.bos]
WIDE = SamplingParams(max_tokens=99, ignore_eos=True)


def run(ids: list[int], params: SamplingParams) -> tuple[Completion, list[Part], list[list[Part]]]:
    """(the completion, all parts, parts by piece) of tokens that come one by one."""
    output = Output([0], 0, params, TEXT)
    told: list[list[Part]] = []
    for token in ids:
        parts, stopped = output.add(Token(0, 0, token))
        told.append([*parts])
        if stopped:
            break
    told.append([*output.finish()])
    done = output.completion(Finished(0, 0, "length"))
    return done, [part for piece in told for part in piece], told


tokens = st.lists(st.sampled_from(PIECES), min_size=1, max_size=24)
stops = st.lists(st.text(alphabet="ab é", min_size=1, max_size=4), max_size=3).map(tuple)


@given(tokens, stops, st.booleans(), st.integers(0, 6), st.booleans())
@settings(max_examples=400)
def test_parts_are_the_text_and_each_token_once(
    ids: list[int], stop: tuple[str, ...], keep: bool, least: int, special: bool
) -> None:
    params = replace(
        WIDE,
        stop=stop,
        include_stop_str_in_output=keep,
        min_tokens=least,
        skip_special_tokens=not special,
    )
    done, parts, _ = run(ids, params)
    assert joined(tuple(parts)) == done.text
    assert [token for token, _ in parts] == done.token_ids == ids[: len(done.token_ids)]


@given(tokens, stops)
@settings(max_examples=400)
def test_a_text_ends_before_the_first_stop_text(ids: list[int], stop: tuple[str, ...]) -> None:
    """The first to be complete, and the earliest of those that become so with the same token."""
    done, _, _ = run(ids, replace(WIDE, stop=stop))
    whole = TEXT.decode(ids)
    if done.stop_reason is None:
        assert done.text == whole and not any(s in whole for s in stop)
    else:
        assert whole.startswith(done.text + str(done.stop_reason))
        assert not any(s in done.text for s in stop) and done.finish_reason == "stop"
        kept = run(ids, replace(WIDE, stop=stop, include_stop_str_in_output=True))[0]
        assert kept.text == done.text + str(done.stop_reason)


@given(tokens)
def test_text_is_told_with_the_token_that_completes_it(ids: list[int]) -> None:
    """Without stop texts nothing waits longer than for the end of its character."""
    _, _, told = run(ids, WIDE)
    sent = ""
    for place, piece in enumerate(told[:-1], 1):
        sent += joined(tuple(piece))
        sure = TEXT.decode(ids[:place]).rstrip("\ufffd")
        assert sent == sure or len(sure) - len(sent) <= 1  # a token that begins a character waits


def test_no_stop_text_is_looked_for_before_min_tokens() -> None:
    a, b, _ = LETTERS
    done, _, _ = run([a, b, a, b], replace(WIDE, stop=("a",), min_tokens=2))
    assert done.text == "ab" and done.token_ids == [a, b, a] and done.stop_reason == "a"


def test_the_token_that_ends_a_completion_adds_no_text() -> None:
    a, b, _ = LETTERS
    params = replace(WIDE, ignore_eos=False, stop_token_ids=(b,))
    done, parts, _ = run([a, b], params)
    assert (done.text, done.stop_reason, parts) == ("a", b, [(a, "a"), (b, "")])
    kept, _, _ = run([a, b], replace(params, include_stop_str_in_output=True))
    assert kept.text == "ab"
    ended, _, _ = run([a, TEXT.eos], replace(params, skip_special_tokens=False))
    assert (ended.text, ended.stop_reason) == ("a", None)


def test_a_character_that_is_cut_off_is_told_with_its_token() -> None:
    first = TEXT.encode("🙂", bos=False)[0]
    done, parts, _ = run([LETTERS[0], first, TEXT.eos], replace(WIDE, ignore_eos=False))
    assert done.text == "a\ufffd"
    assert parts == [(LETTERS[0], "a"), (first, "\ufffd"), (TEXT.eos, "")]


def test_a_prompt_token_that_is_told_again_counts_once() -> None:
    """An engine that was preempted begins again at the first."""
    output = Output([5, 6, 7], 0, WIDE, TEXT)
    for position in (1, 1, 2, 1, 2):
        output.add_prompt(Prompt(0, position, -float(position), ()))
    assert output.prompt_logprobs == [(-1.0, ()), (-2.0, ())]
