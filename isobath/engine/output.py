"""From events to text: one completion's tokens, its text so far, and its stop texts.

The engine deals in token ids; everything about characters happens here, on the client's side. Text
is told in parts, one for each token: (its id, what it adds). A token that ends inside a character
is held back until the next one, and one whose text could still turn out to belong to a stop text
until that is certain. The end or stop token that ends a completion adds no text, and no stop text
is looked for before min_tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from isobath.engine.request import Finished, Prompt, Token
from isobath.engine.sampling import SamplingParams
from isobath.engine.statistics import Times
from isobath.model.text import Detokenizer, Text

Top = tuple[tuple[int, float], ...]
Part = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Completion:
    """One finished completion of one prompt.

    index: which of the prompt's n. finish_reason: "stop" (end token or stop text), "length" or
    "abort". stop_reason: the stop text or stop token id that ended it. logprobs: a (log-probability
    of the token, best (id, logprob)) for each token, if asked for; prompt_logprobs likewise for
    each prompt token from the second on. cached_tokens: of the prompt that came from the prefix
    cache. times: when things happened in the engine; no part of equality.
    """

    text: str
    token_ids: list[int]
    prompt_token_ids: list[int]
    finish_reason: str
    index: int = 0
    logprobs: list[tuple[float, Top]] = field(default_factory=list)
    prompt_logprobs: list[tuple[float, Top]] = field(default_factory=list)
    cached_tokens: int = 0
    stop_reason: str | int | None = None
    times: Times | None = field(default=None, compare=False)


class Output:
    """A completion on its way. text: None leaves tokens as they are. stopped: a stop text was met,
    so later tokens, which the engine made before it heard of that, do not belong to it."""

    def __init__(self, prompt: list[int], index: int, params: SamplingParams, text: Text | None):
        self.prompt, self.index, self.params = prompt, index, params
        self.token_ids: list[int] = []
        self.logprobs: list[tuple[float, Top]] = []
        self.prompt_logprobs: list[tuple[float, Top]] = []
        self.stopped = False
        self._pieces = Detokenizer(text, skip_special=params.skip_special_tokens) if text else None
        self._ends = set(params.stop_token_ids)
        if text and not params.ignore_eos:
            self._ends.add(text.eos)
        self._stop_reason: str | int | None = None
        self._text: list[str] = []
        self._held: list[Part] = []  # their texts are not certain

    def add(self, token: Token) -> tuple[tuple[Part, ...], bool]:
        """Take one token: (parts that have become certain, whether a stop text was met). The caller
        then ends the completion, and calls completion() when it has ended."""
        assert not self.stopped
        number, pieces = token.token_id, self._pieces
        self.token_ids.append(number)
        if token.logprob is not None:
            self.logprobs.append((token.logprob, token.top))
        if number in self._ends:
            if number in self.params.stop_token_ids:
                self._stop_reason = number
            if not self.params.include_stop_str_in_output:
                self._held.append((number, ""))
                return (), False
        if pieces is None:
            return (), False
        piece = pieces.add(number)
        if not (self._held or self.params.stop or pieces.pending):  # nearly every token
            self._text.append(piece)
            return ((number, piece),), False
        self._held.append((number, piece))
        return self._take(pieces.pending)

    def add_prompt(self, prompt: Prompt) -> None:
        """Take a prompt token's record; one that is told again, after preemption, counts once."""
        if prompt.position == len(self.prompt_logprobs) + 1:
            self.prompt_logprobs.append((prompt.logprob, prompt.top))

    def finish(self) -> tuple[Part, ...]:
        """The parts that were still held back."""
        rest = self._pieces.finish() if self._pieces else ""
        if rest and not self._held:
            self._held.append((self.token_ids[-1], ""))
        if rest:
            # An end token that adds nothing comes after the character that it cut off.
            last = next((i for i, part in enumerate(self._held) if part[0] in self._ends), -1)
            last = max(last - 1, 0) if last >= 0 else len(self._held) - 1
            number, piece = self._held[last]
            self._held[last] = (number, piece + rest)
        return self._release(len(self._held))

    def completion(self, finished: Finished) -> Completion:
        """The finished completion; call finish() first. A stop text overrules the engine's
        reason."""
        return Completion(
            "".join(self._text),
            self.token_ids,
            self.prompt,
            "stop" if self.stopped else finished.reason,
            self.index,
            self.logprobs,
            self.prompt_logprobs,
            finished.cached_tokens,
            self._stop_reason,
            finished.times,
        )

    def _take(self, pending: bool) -> tuple[tuple[Part, ...], bool]:
        """Look for a stop text in what is held, and release what is certain. pending: the last
        token ends inside a character."""
        if len(self.token_ids) <= self.params.min_tokens:
            return self._release(len(self._held) - pending), False
        held = "".join(piece for _, piece in self._held)
        found = [(at, -len(s), s) for s in self.params.stop if (at := held.find(s)) >= 0]
        if found:
            at, _, stop = min(found)
            self._cut(at + len(stop) if self.params.include_stop_str_in_output else at)
            self._stop_reason, self._pieces, self.stopped = stop, None, True
            return self._release(len(self._held)), True
        certain = len(held) - max((_overlap(held, s) for s in self.params.stop), default=0)
        count = 0
        for _, piece in self._held[: len(self._held) - pending]:
            certain -= len(piece)
            if certain < 0:
                break
            count += 1
        return self._release(count), False

    def _cut(self, length: int) -> None:
        """Let the held texts end after `length` characters; all tokens stay."""
        for place, (number, piece) in enumerate(self._held):
            self._held[place] = (number, piece[:length])
            length = max(0, length - len(piece))

    def _release(self, count: int) -> tuple[Part, ...]:
        released = tuple(self._held[:count])
        del self._held[:count]
        self._text.extend(piece for _, piece in released)
        return released


def joined(parts: tuple[Part, ...]) -> str:
    """The text of parts."""
    return "".join(piece for _, piece in parts)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop` without being all of it."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
