"""Vocabulary: the tokens as a grammar library sees them, and those that no text may hold.

Owns which tokens are text (ordinary ones, as bytes), which are control tokens (every added one),
and how `｜DSML｜` is told from its letters: a client finds a tool call by the token, so text that
merely spells the marker after a `<` must not pass for one. Looks tokens up by name; a missing one
matters only to who needs it. Compiles nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isobath.errors import RequestError
from isobath.model.text import Text

MARKER, THINK, END_THINK = "｜DSML｜", "<think>", "</think>"
_BAR = "｜".encode()
_BAR_BEGINS = tuple(_BAR[:size] for size in range(1, len(_BAR)))


Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary:
    """pieces: bytes of each token by id, none for control tokens but the marker. encode: text to
    ids, names of control tokens in it being text. marker, think, end_think: ids, -1 if there is
    none. Sets of tokens are int32 [(vocab + 31) // 32], bit i % 32 of word i // 32 for token i.
    unspelled: tokens that do not begin to spell the marker after a `<` or `</` of their own;
    unopened: those that do not after one already written."""

    pieces: tuple[bytes, ...]
    encode: Callable[[str], list[int]]
    eos: int
    marker: int
    think: int
    end_think: int
    unspelled: Tokens
    unopened: Tokens

    @property
    def size(self) -> int:
        """Of the model's logits."""
        return len(self.pieces)

    def reasons(self, prompt: tuple[int, ...]) -> bool:
        """Whether a completion of this prompt begins inside <think>."""
        for token in reversed(prompt):
            if token in (self.think, self.end_think):
                return token == self.think
        return False


def vocabulary_of(text: Text, size: int) -> Vocabulary:
    """The vocabulary of a tokenizer for a model with `size` logits. Raises RequestError when the
    tokenizer is another model's."""
    if text.vocab_size > size:
        raise RequestError(
            "structured output",
            found=f"a tokenizer of {text.vocab_size} tokens and a model of {size}",
            do="serve the checkpoint with its own tokenizer",
        )
    marker, think, end_think = (_id(text, name) for name in (MARKER, THINK, END_THINK))
    pieces = [b"" if i in text.added_ids else text.token_bytes(i) for i in range(size)]
    unspelled = [not _spells(piece) for piece in pieces]
    unopened = [not (piece.startswith(_BAR) or piece in _BAR_BEGINS) for piece in pieces]
    if marker >= 0:
        pieces[marker] = MARKER.encode()
    return Vocabulary(
        tuple(pieces),
        text.encode_plain,
        text.eos,
        marker,
        think,
        end_think,
        packed(unspelled),
        packed(unopened),
    )


def packed(chosen: Sequence[bool]) -> Tokens:
    """A set of tokens from whether each is in it."""
    padded = np.zeros(-(-len(chosen) // 32) * 32, dtype=np.bool_)
    padded[: len(chosen)] = chosen
    return np.packbits(padded, bitorder="little").view(np.int32)


def _id(text: Text, name: str) -> int:
    try:
        return text.token_id(name)
    except RequestError:
        return -1


def _spells(piece: bytes) -> bool:
    """Whether a `<` or `</` in the piece is followed by the marker's bar, or by all of its first
    bytes that the piece has room for."""
    for opening in (b"<", b"</"):
        if opening + _BAR in piece or piece.endswith(tuple(opening + b for b in _BAR_BEGINS)):
            return True
    return False
