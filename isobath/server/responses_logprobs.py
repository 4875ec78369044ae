"""Log-probabilities of what /v1/responses says as output text: its tokens, and no others.

A chat completion tells them of every token. Here they belong to a text, so tokens of reasoning, of
calls, and those that only end something have none. The machine that reads an answer says texts, in
the order of the tokens but perhaps later, and leaves some out: which tokens a text is of is found
by looking for it in theirs. A token that reaches into two pieces of text is told with the first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isobath.chat import Content, Reasoning
from isobath.model.text import Text
from isobath.server.chat_answer import logprobs_of
from isobath.server.logprobs import Names, Record
from isobath.server.turns import Step

Listed = list[dict[str, Any]]


@dataclass(slots=True)
class _Token:
    """A token and what it adds to the answer, which begins at character `start`."""

    number: int
    record: Record
    start: int
    text: str

    @property
    def end(self) -> int:
        return self.start + len(self.text)


class ContentLogprobs:
    """Of one answer. count: best tokens wanted beside each.

    see() takes every step; next() then gives the tokens of each piece of content, in order.
    """

    def __init__(self, text: Text, count: int) -> None:
        self._count, self._names, self._vocabulary = count, Names(text, as_ids=False), text
        self._unsaid: deque[tuple[int, Record]] = deque()  # tokens whose text is not certain
        self._tokens: list[_Token] = []
        self._next = 0  # the first of them that belongs to nothing yet
        self._rest, self._at = "", 0  # the text after what has been found, and where it begins
        self._told: deque[Listed] = deque()

    def see(self, step: Step) -> None:
        """Take a step of the turn."""
        piece = step.piece
        self._unsaid.extend(zip(piece.token_ids, piece.logprobs, strict=True))
        for token, text in piece.parts:
            end = self._at + len(self._rest)
            if self._unsaid and self._unsaid[0][0] == token:
                self._tokens.append(_Token(*self._unsaid.popleft(), end, text))
            elif self._tokens:  # an end that was held back: more of the last one
                self._tokens[-1].text += text
            self._rest += text
        for delta in step.deltas:
            if isinstance(delta, Content | Reasoning) and delta.text:
                found = self._found(delta.text)
                if isinstance(delta, Content):
                    self._told.append(self._listed(found))

    def next(self) -> Listed:
        """Of the next piece of content."""
        return self._told.popleft()

    def join(self) -> None:
        """All content so far is one piece."""
        self._told = deque([[entry for piece in self._told for entry in piece]])

    def _found(self, text: str) -> Sequence[_Token]:
        """The tokens that a text is of, without those that an earlier one was of."""
        at = self._rest.find(text)
        if at < 0:
            return self._again(text)
        start, end = self._at + at, self._at + at + len(text)
        self._rest, self._at = self._rest[at + len(text) :], end
        first = self._next
        while first < len(self._tokens) and not _within(self._tokens[first], start, end):
            first += 1
        last = first
        while last < len(self._tokens) and _within(self._tokens[last], start, end):
            last += 1
        self._next = last
        return self._tokens[first:last]

    def _again(self, text: str) -> Sequence[_Token]:
        """The same of what was said before: reasoning that turned out to be the answer."""
        start = "".join(token.text for token in self._tokens).find(text)
        end = start + len(text)
        return [token for token in self._tokens if start >= 0 and _within(token, start, end)]

    def _listed(self, tokens: Sequence[_Token]) -> Listed:
        numbers, records = [t.number for t in tokens], [t.record for t in tokens]
        return logprobs_of(self._vocabulary, self._names, numbers, records, self._count)


def _within(token: _Token, start: int, end: int) -> bool:
    """Whether a token adds to these characters; one that begins a character adds nothing yet, and
    stands where it will be."""
    return token.start < end and (token.end > start or token.start >= start)
