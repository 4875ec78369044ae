"""Constraint: what one completion may still say, token by token.

Follows exactly the tokens that were accepted, so it lives as long as the sequence does and neither
preemption nor recomputation touches it. While the completion reasons, text is free, but it may
neither end nor call a tool; from </think> on the grammar's matcher decides. Control tokens never
pass for text. The end token is allowed where the grammar may end. Knows no grammar library.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from isobath.engine.grammar_vocabulary import Tokens, Vocabulary
from isobath.errors import RequestError


class Matcher(Protocol):
    """A grammar's state after some tokens. Raises RequestError when it cannot go on, a limit of
    the library's having been met."""

    def accept(self, token: int) -> bool:
        """Go on by one token, which is not the end token; False if the grammar refuses it."""

    def fill(self, words: torch.Tensor) -> None:
        """Set the bits of the tokens that may come next, the end token's among them. words: int32
        [(vocab + 31) // 32] on the CPU, bit i % 32 of word i // 32 for token i."""


class Grammar(Protocol):
    """A structure, compiled. cost: bytes it keeps, about."""

    @property
    def cost(self) -> int: ...

    def matcher(self) -> Matcher:
        """A new state, at the beginning."""


class Constraint:
    """One completion's. reasoning: it begins inside <think>. calls: DSML calls are part of it.

    complete: nothing may follow, only the end token. stuck: why nothing at all may follow, which a
    grammar of ours does not let happen.
    """

    def __init__(
        self, grammar: Grammar, vocabulary: Vocabulary, *, reasoning: bool, calls: bool
    ) -> None:
        self._beginning = (grammar, vocabulary, reasoning, calls)
        self._matcher, self._vocabulary = grammar.matcher(), vocabulary
        self._reasoning, self._calls = reasoning, calls
        self._tail = b""
        self._words = torch.zeros((vocabulary.size + 31) // 32, dtype=torch.int32)
        self._tokens: Tokens = self._words.numpy()  # the same memory
        self.complete, self.stuck = False, ""
        self._advance()

    def again(self) -> Constraint:
        """The same for another completion of the prompt, at its beginning."""
        grammar, vocabulary, reasoning, calls = self._beginning
        return Constraint(grammar, vocabulary, reasoning=reasoning, calls=calls)

    def accept(self, token: int) -> None:
        """Go on by the token that was chosen, which does not end the completion."""
        if self._reasoning:
            self._reasoning = token != self._vocabulary.end_think
            if self._reasoning:
                return
        else:
            self._tail = (self._tail + self._vocabulary.pieces[token])[-2:]
            try:
                if not self._matcher.accept(token):
                    self.stuck = f"the grammar refuses token {token}, which it had allowed"
                    return
            except RequestError as error:
                self.stuck = str(error)
                return
        self._advance()

    @property
    def allowed(self) -> torch.Tensor:
        """bool [vocab]: what the next token may be."""
        bits = np.unpackbits(self._tokens.view(np.uint8), bitorder="little")
        return torch.from_numpy(bits.view(np.bool_))[: self._vocabulary.size]

    def _advance(self) -> None:
        """Find what may come next."""
        known, tokens = self._vocabulary, self._tokens
        if self._reasoning:
            tokens[:] = -1
            _drop(tokens, known.eos)
            _drop(tokens, known.marker)
            return
        try:
            self._matcher.fill(self._words)
        except RequestError as error:
            self.stuck = str(error)
            return
        if self._calls:
            tokens &= known.unspelled
            if self._tail[-1:] == b"<" or self._tail == b"</":
                tokens &= known.unopened
        else:
            _drop(tokens, known.marker)
        ends = _drop(tokens, known.eos)
        goes_on = bool(tokens.any())
        self.complete = ends and not goes_on
        if ends:
            tokens[known.eos // 32] |= _bit(known.eos)
        elif not goes_on:
            self.stuck = "no token continues the grammar"


def _bit(token: int) -> np.int32:
    return np.uint32(1 << token % 32).view(np.int32)


def _drop(tokens: Tokens, token: int) -> bool:
    """Take a token out of the set; whether it was in it. A negative one is none."""
    if token < 0:
        return False
    word = tokens[token // 32]
    tokens[token // 32] = word & ~_bit(token)
    return bool(word & _bit(token))
