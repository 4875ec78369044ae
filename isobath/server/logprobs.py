"""Log-probabilities as clients read them.

A token is named by its text where that is UTF-8 by itself, else by its bytes, `bytes:\\xe6\\xbc`:
many tokens are parts of characters, and all would otherwise be the same U+FFFD. Where two tokens
still share a name, the likelier one has it. Minus infinity, which JSON does not have, is LEAST.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isobath.engine.output import Top
from isobath.model.text import Detokenizer, Text

LEAST = -9999.0
Record = tuple[float, Top]
"""(log-probability of a token, the best (id, log-probability) at its place)."""


class Names:
    """How tokens are called in one answer. as_ids: token_id:N, whatever their text."""

    def __init__(self, text: Text, *, as_ids: bool) -> None:
        self._text, self._as_ids = text, as_ids

    def __call__(self, token: int) -> str:
        return f"token_id:{token}" if self._as_ids else token_name(self._text, token)


def token_name(text: Text, token: int) -> str:
    """The text of a token that is UTF-8 by itself, else its bytes."""
    data = text.token_bytes(token)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def finite(value: float) -> float:
    """A number that JSON has."""
    return value if value > LEAST else LEAST


class Listing:
    """The `logprobs` of /v1/completions, token by token. count: best tokens wanted at each place.
    Offsets count characters of the choice's text, to which each token contributes what it adds."""

    def __init__(self, text: Text, names: Names, count: int, *, skip_special: bool) -> None:
        self._names, self._count = names, count
        self._pieces, self._offset = Detokenizer(text, skip_special=skip_special), 0

    def take(self, tokens: Sequence[int], records: Sequence[Record | None]) -> dict[str, Any]:
        """Of the next tokens; None where nothing precedes a token."""
        names = self._names
        told: dict[str, list[Any]] = {
            "text_offset": [],
            "token_logprobs": [],
            "tokens": [],
            "top_logprobs": [],
        }
        for token, record in zip(tokens, records, strict=True):
            told["tokens"].append(names(token))
            told["text_offset"].append(self._offset)
            self._offset += len(self._pieces.add(token))
            told["token_logprobs"].append(None if record is None else finite(record[0]))
            told["top_logprobs"].append(record and self._best(token, record))
        return told

    def _best(self, token: int, record: Record) -> dict[str, float]:
        own, top = record
        best: dict[str, float] = {}
        for other, value in (*top[: self._count], (token, own)):
            best.setdefault(self._names(other), finite(value))
        return best


def prompt_records(
    text: Text, tokens: Sequence[int], records: Sequence[Record], count: int
) -> list[dict[str, Any] | None]:
    """vLLM's `prompt_logprobs`: for each prompt token but the first, by id."""
    told: list[dict[str, Any] | None] = [None]
    for token, (own, top) in zip(tokens[1:], records, strict=True):
        ranks = {number: place for place, (number, _) in enumerate(top, 1)}
        told.append(
            {
                str(number): {
                    "logprob": finite(value),
                    "rank": ranks.get(number),
                    "decoded_token": token_name(text, number),
                }
                for number, value in {token: own, **dict(top[:count])}.items()
            }
        )
    return told
