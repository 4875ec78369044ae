"""Sampling is a function of logits, parameters, seed and position; stop texts one of the text."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isobath import SamplingParams
from isobath.engine.llm import BUNDLED
from isobath.engine.output import Output
from isobath.engine.request import Token
from isobath.engine.sampling import Sampler
from isobath.errors import RequestError
from isobath.model.text import Text

VOCAB, EOS = 64, 1
LOGITS = torch.randn(VOCAB, generator=torch.Generator().manual_seed(0)) * 3


def sampler(index: int = 0, prompt: tuple[int, ...] = (), **options) -> Sampler:
    return Sampler(SamplingParams(**options), prompt, index, EOS)


def draws(count: int, **options) -> list[int]:
    one = sampler(temperature=1.0, seed=7, **options)
    return [one.choose(LOGITS, [0] * n).token for n in range(count)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("max_tokens", 0),
        ("min_tokens", 500),
        ("temperature", -1.0),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("min_p", -0.1),
        ("presence_penalty", 3.0),
        ("frequency_penalty", -3.0),
        ("repetition_penalty", 0.0),
        ("stop", ("",)),
        ("bad_words", ((),)),
        ("logprobs", 21),
        ("prompt_logprobs", -1),
    ],
)
def test_a_parameter_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(RequestError, match=field):
        SamplingParams(**{field: value})


def test_the_same_seed_and_position_draw_the_same_token() -> None:
    assert draws(50) == draws(50)
    late = sampler(temperature=1.0, seed=7).choose(LOGITS, [0] * 30).token
    assert late == draws(50)[30], "a draw depends on what was drawn before"


def test_completions_of_one_prompt_draw_differently() -> None:
    first, second = (
        [sampler(i, temperature=1.0, seed=7).choose(LOGITS, [0] * n).token for n in range(40)]
        for i in (0, 1)
    )
    assert first != second


def test_draws_follow_the_softmax() -> None:
    """20,000 draws: a frequency errs by at most 5 standard deviations, 5 * sqrt(p / 20000)."""
    counts = torch.bincount(torch.tensor(draws(20_000)), minlength=VOCAB) / 20_000
    expected = LOGITS.double().softmax(0)
    assert ((counts - expected).abs() <= 5 * (expected / 20_000).sqrt() + 1e-4).all()


def test_top_k_draws_only_the_k_best() -> None:
    assert set(draws(1000, top_k=3)) == set(LOGITS.topk(3).indices.tolist())


def test_only_allowed_tokens_are_drawn() -> None:
    assert set(draws(300, allowed_token_ids=(3, 9, 40), logit_bias={5: 100.0})) == {3, 9, 40}
    assert not sampler(allowed_token_ids=(3,)).plain and not sampler(bad_words=((3,),)).plain


def test_the_last_token_of_a_bad_word_does_not_follow_the_others() -> None:
    best, second = LOGITS.topk(2).indices.tolist()
    one = sampler(bad_words=((7, 8, best),))
    assert one.choose(LOGITS, [7, 8]).token == second
    for generated in ([], [8], [8, 7], [7, 8, 9]):
        assert one.choose(LOGITS, generated).token == best
    assert sampler(bad_words=((best,),)).choose(LOGITS, []).token == second


def test_a_completion_that_may_say_nothing_ends() -> None:
    for temperature in (0.0, 1.0):
        one = sampler(temperature=temperature, allowed_token_ids=(3,), bad_words=((3,),))
        assert one.choose(LOGITS, []).token == EOS


@settings(deadline=None, max_examples=20)
@given(st.floats(0.05, 1.0))
def test_top_p_draws_only_from_the_smallest_set_that_holds_p(top_p: float) -> None:
    probabilities, ids = LOGITS.double().softmax(0).sort(descending=True)
    size = int((probabilities.cumsum(0) < top_p).sum()) + 1
    assert set(draws(200, top_p=top_p)) <= set(ids[:size].tolist())


@settings(deadline=None, max_examples=20)
@given(st.floats(0.01, 1.0))
def test_min_p_draws_only_tokens_of_that_share_of_the_best(min_p: float) -> None:
    probabilities = LOGITS.double().softmax(0)
    allowed = (probabilities >= min_p * probabilities.max()).nonzero().view(-1).tolist()
    assert set(draws(200, min_p=min_p)) <= set(allowed)


def test_greedy_ties_go_to_the_lower_id() -> None:
    row = torch.zeros(8)
    row[[3, 5]] = 1.0
    assert sampler().choose(row, []).token == 3


def test_bias_decides_and_leaves_the_logits_alone() -> None:
    row = LOGITS.clone()
    assert sampler(logit_bias={9: 100.0}).choose(row, []).token == 9
    assert torch.equal(row, LOGITS)


def test_no_end_before_min_tokens() -> None:
    row = torch.zeros(8)
    row[[1, 4]] = torch.tensor([9.0, 8.0])
    one = sampler(min_tokens=2, stop_token_ids=(4,))
    assert [one.choose(row, [5] * n).token in (1, 4) for n in range(3)] == [False, False, True]


def test_presence_is_subtracted_once_and_frequency_every_time() -> None:
    row = torch.tensor([0.0, 0.0, 1.0, 0.7])
    assert sampler(presence_penalty=0.2).choose(row, [2, 2, 2]).token == 2
    assert sampler(presence_penalty=0.4).choose(row, [2]).token == 3
    assert sampler(frequency_penalty=0.2).choose(row, [2]).token == 2
    assert sampler(frequency_penalty=0.2).choose(row, [2, 2]).token == 3


def test_repetition_counts_the_prompt_and_pushes_negative_logits_down() -> None:
    row = torch.tensor([-5.0, -5.0, -1.0, -1.5])
    assert sampler(prompt=(2,), repetition_penalty=1.2).choose(row, []).token == 2
    assert sampler(prompt=(2,), repetition_penalty=2.0).choose(row, []).token == 3
    assert sampler(repetition_penalty=2.0).choose(row, []).token == 2


def test_logprobs_are_of_the_model_not_of_the_penalties() -> None:
    choice = sampler(logit_bias={9: 100.0}, logprobs=3).choose(LOGITS, [])
    expected = LOGITS.log_softmax(0)
    assert choice.logprob == pytest.approx(float(expected[9]), abs=1e-6)  # one fp32 ulp near 8
    assert [i for i, _ in choice.top] == LOGITS.topk(3).indices.tolist()


def test_end_tokens_end_unless_ignored() -> None:
    assert sampler().ends(EOS) and not sampler(ignore_eos=True).ends(EOS)
    assert sampler(stop_token_ids=(5,), ignore_eos=True).ends(5)


TEXT = Text(BUNDLED)


def streamed(text: str, stop: tuple[str, ...]) -> tuple[str, bool]:
    """Feed `text` token by token: (text given out, whether a stop text was met)."""
    output = Output([], 0, SamplingParams(stop=stop), TEXT)
    given_out = ""
    for token in TEXT.encode(text)[1:]:
        parts, stopped = output.add(Token(0, 0, token))
        given_out += "".join(piece for _, piece in parts)
        if stopped:
            return given_out, True
    return given_out + "".join(piece for _, piece in output.finish()), False


@given(
    st.text(alphabet="ab\n", max_size=40),
    st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_text_ends_before_the_first_stop_text(text: str, stops: list[str]) -> None:
    out, stopped = streamed(text, tuple(stops))
    assert stopped == any(s in text for s in stops)
    assert not any(s in out for s in stops)
    assert text.startswith(out) and (stopped or out == text)
