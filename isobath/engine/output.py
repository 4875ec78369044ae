"""From events to text: one completion's tokens, its text so far, and its stop texts.

The engine deals in token ids; everything about characters happens here, on the client's side. Text
that could still turn out to be the beginning of a stop text is held back until it is certain.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from isobath.engine.request import Prompt, Token
from isobath.engine.sampling import SamplingParams
from isobath.model.text import Detokenizer, Text

Top = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished completion of one prompt.

    index: which of the prompt's n. finish_reason: "stop" (end token or stop text), "length" or
    "abort". logprobs: a (log-probability of the token, best (id, logprob)) for each token, if asked
    for; prompt_logprobs likewise for each prompt token from the second on. cached_tokens: of the
    prompt that came from the prefix cache.
    """

    text: str
    token_ids: list[int]
    prompt_token_ids: list[int]
    finish_reason: str
    index: int = 0
    logprobs: list[tuple[float, Top]] = field(default_factory=list)
    prompt_logprobs: list[tuple[float, Top]] = field(default_factory=list)
    cached_tokens: int = 0


class Output:
    """A completion on its way. text: None leaves tokens as they are. stopped: a stop text was met,
    so later tokens, which the engine made before it heard of that, do not belong to it."""

    def __init__(self, prompt: list[int], index: int, params: SamplingParams, text: Text | None):
        self.prompt, self.index, self._stops = prompt, index, params.stop
        self.token_ids: list[int] = []
        self.logprobs: list[tuple[float, Top]] = []
        self.prompt_logprobs: list[tuple[float, Top]] = []
        self._pieces = Detokenizer(text) if text else None
        self._text, self._held, self.stopped = "", "", False

    def add(self, token: Token) -> tuple[str, bool]:
        """Take one token: (text that has become certain, whether a stop text was met). The caller
        then ends the completion, and calls completion() when it has ended."""
        assert not self.stopped
        self.token_ids.append(token.token_id)
        if token.logprob is not None:
            self.logprobs.append((token.logprob, token.top))
        return self._take(self._pieces.add(token.token_id)) if self._pieces else ("", False)

    def add_prompt(self, prompt: Prompt) -> None:
        self.prompt_logprobs.append((prompt.logprob, prompt.top))

    def finish(self) -> str:
        """The text that was still held back."""
        rest = self._held + (self._pieces.finish() if self._pieces else "")
        self._text, self._held = self._text + rest, ""
        return rest

    def completion(self, reason: str, cached_tokens: int) -> Completion:
        """The finished completion; call finish() first. reason: the engine's, which a stop text
        overrules."""
        return Completion(
            self._text,
            self.token_ids,
            self.prompt,
            "stop" if self.stopped else reason,
            self.index,
            self.logprobs,
            self.prompt_logprobs,
            cached_tokens,
        )

    def stop(self) -> None:
        """Drop what is held back: it belongs to the stop text."""
        self._held, self._pieces, self.stopped = "", None, True

    def _take(self, piece: str) -> tuple[str, bool]:
        held = self._held + piece
        found = [at for s in self._stops if (at := held.find(s)) >= 0]
        if found:
            certain = held[: min(found)]
            self.stop()
            self._text += certain
            return certain, True
        keep = max((_overlap(held, s) for s in self._stops), default=0)
        certain, self._held = held[: len(held) - keep], held[len(held) - keep :]
        self._text += certain
        return certain, False


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop` without being all of it."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
