"""Machine: from an answer's tokens to reasoning, content and calls, while they arrive.

One machine belongs to one completion. It is fed (token id, text) parts, knows control tokens by
their ids, and says the same whatever the text was cut into.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from isobath.chat.conversation import Tool
from isobath.chat.deltas import Answer, Delta
from isobath.chat.format import ChatFormat
from isobath.chat.replay import Replay, call_id


class Machine:
    """Reads one completion. prompt_ids: the rendered prompt, whose last token says whether the
    answer begins inside reasoning. tools: those that may be called; without any, nothing is parsed
    as a call. replay: remembers the calls as they were written."""

    def __init__(
        self,
        format: ChatFormat,
        prompt_ids: Sequence[int],
        tools: Sequence[Tool] = (),
        ids: Callable[[], str] = call_id,
        replay: Replay | None = None,
    ) -> None:
        self.reasoning_tokens = 0
        raise AssertionError("lands next")

    def feed(self, token_id: int, text: str) -> list[Delta]:
        """Take one part of a Piece: what has become certain with it."""
        raise AssertionError("lands next")

    def finish(self, reason: str) -> list[Delta]:
        """The answer has ended; reason is the engine's "stop", "length" or "abort". Call once."""
        raise AssertionError("lands next")

    @property
    def message(self) -> Answer:
        """The message so far; the whole one after finish()."""
        raise AssertionError("lands next")

    @property
    def finish_reason(self) -> str:
        """After finish(): "stop", "length", "tool_calls" (an answer with calls that was not cut
        off) or "abort"."""
        raise AssertionError("lands next")
