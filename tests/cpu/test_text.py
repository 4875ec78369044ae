"""Text and back with the bundled tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isobath.engine.llm import BUNDLED
from isobath.errors import CorruptCheckpoint
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
