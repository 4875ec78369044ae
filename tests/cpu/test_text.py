"""Text and back with the bundled tokenizer; sampling as a function of logits and parameters."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from isobath import SamplingParams
from isobath.engine.llm import BUNDLED
from isobath.engine.sampling import Sampler, sample
from isobath.errors import CorruptCheckpoint, RequestError
from isobath.model.text import BOS, Detokenizer, Text

TEXT = Text(BUNDLED)


@given(st.text())
def test_any_text_survives_encoding(text: str) -> None:
    ids = TEXT.encode(text)
    assert ids[0] == TEXT.bos and TEXT.decode(ids) == text


def test_a_prompt_that_begins_with_bos_keeps_its_one() -> None:
    assert TEXT.encode(BOS + "Hi") == TEXT.encode("Hi")


@given(st.lists(st.integers(0, TEXT.vocab_size - 1), max_size=60))
def test_streamed_pieces_join_to_the_whole(ids: list[int]) -> None:
    pieces = Detokenizer(TEXT)
    streamed = "".join(pieces.add(i) for i in ids) + pieces.finish()
    assert streamed == TEXT.decode(ids)


@given(st.text(alphabet="aé漢🙂", min_size=1, max_size=8))
def test_no_streamed_piece_splits_a_character(text: str) -> None:
    pieces = Detokenizer(TEXT)
    for token in TEXT.encode(text)[1:]:
        assert "\ufffd" not in pieces.add(token)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptCheckpoint, match=r"tokenizer\.json: no tokenizer"):
        Text(tmp_path)


def test_a_damaged_tokenizer_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CorruptCheckpoint, match=r"tokenizer\.json: not a tokenizer"):
        Text(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_tokens", 0), ("temperature", -1.0), ("top_k", -1), ("top_p", 0.0), ("top_p", 1.5)],
)
def test_a_parameter_out_of_range_is_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(RequestError, match=field):
        SamplingParams(**{field: value})


LOGITS = torch.randn(64, generator=torch.Generator().manual_seed(0)) * 3


def draws(count: int = 2000, **options: float) -> list[int]:
    sampler = Sampler(SamplingParams(temperature=1.0, seed=7, **options))
    return [sampler.draw(LOGITS) for _ in range(count)]


def test_the_same_seed_draws_the_same_tokens() -> None:
    assert draws(50) == draws(50)


def test_top_k_draws_only_the_k_best() -> None:
    assert set(draws(top_k=3)) == set(LOGITS.topk(3).indices.tolist())


@settings(deadline=None, max_examples=20)
@given(st.floats(0.05, 1.0))
def test_top_p_draws_only_from_the_smallest_set_that_holds_p(top_p: float) -> None:
    probabilities, ids = LOGITS.double().softmax(0).sort(descending=True)
    size = int((probabilities.cumsum(0) < top_p).sum()) + 1
    assert set(draws(300, top_p=top_p)) <= set(ids[:size].tolist())


def test_draws_follow_the_softmax() -> None:
    """20,000 draws: a frequency errs by at most 5 standard deviations, 5 * sqrt(p / 20000)."""
    counts = torch.bincount(torch.tensor(draws(20_000)), minlength=64) / 20_000
    expected = LOGITS.double().softmax(0)
    assert ((counts - expected).abs() <= 5 * (expected / 20_000).sqrt() + 1e-4).all()


def test_greedy_ties_go_to_the_lower_id() -> None:
    row = torch.zeros(1, 8)
    row[0, [3, 5]] = 1.0
    assert sample(row, [Sampler(SamplingParams())]) == [3]
