"""What is asked of the engine, what it is told back, and one sequence's state in between."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from isobath.engine.sampling import Sampler, SamplingParams
from isobath.engine.statistics import Times
from isobath.errors import RequestError


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to complete. id: unique among open requests. token_ids: not empty, ids in range."""

    id: int
    token_ids: tuple[int, ...]
    params: SamplingParams


@dataclass(frozen=True, slots=True)
class Token:
    """One more token of a request. index: which of its n completions. logprob: of the token, and
    top: the best (id, logprob) pairs, when asked for."""

    request_id: int
    index: int
    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """Log-probability of the prompt token at `position`, and the best (id, logprob) there."""

    request_id: int
    position: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """A completion's end. reason: "stop" (end token), "length" or "abort". cached_tokens: how much
    of the prompt came from the prefix cache. times: None for one that made no token."""

    request_id: int
    index: int
    reason: str
    cached_tokens: int = 0
    times: Times | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that cannot be completed; nothing more comes of it. error: text for its client.
    kind: "invalid_request" if the request itself is at fault, "error" if anything else is."""

    request_id: int
    error: str
    kind: str = "error"


Event = Token | Prompt | Finished | Failed


@dataclass(slots=True)
class Sequence:
    """One completion on its way.

    tokens: prompt, then what was generated. computed: how many of them the caches hold. slot: its
    rings, 0 while it waits. pages: its compressed entries. keys: of its whole blocks so far.
    order: place in first-come order, kept across preemption. queued, scheduled, first, last: as in
    Times, 0 before they happened.
    """

    request: Request
    index: int
    order: int
    sampler: Sampler
    tokens: list[int]
    prompt_len: int
    computed: int = 0
    slot: int = 0
    pages: list[int] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    cached_tokens: int = 0
    preemptions: int = 0
    queued: float = 0.0
    scheduled: float = 0.0
    first: float = 0.0
    last: float = 0.0

    @property
    def times(self) -> Times | None:
        return Times(self.queued, self.scheduled, self.first, self.last) if self.first else None

    @property
    def pending(self) -> int:
        """Tokens still to be computed; 1 in decode."""
        return len(self.tokens) - self.computed

    @property
    def generated(self) -> int:
        return len(self.tokens) - self.prompt_len

    @property
    def tells_prompt(self) -> bool:
        """Whether the log-probabilities of its prompt are still wanted: once for all n."""
        wanted = self.request.params.prompt_logprobs is not None
        return wanted and self.index == 0 and not self.generated


def checked_prompt(
    token_ids: Iterable[int], new_tokens: int, vocab_size: int, context: int
) -> list[int]:
    """The ids as a list, if the model can take them and `new_tokens` more. context: most tokens of
    a sequence. Raises RequestError for an empty or too long prompt or an id out of range."""
    ids = list(token_ids)
    if not ids:
        raise RequestError("an empty prompt", do="pass at least one token")
    if len(ids) + new_tokens > context:
        raise RequestError(
            f"a prompt of {len(ids)} tokens and {new_tokens} new ones",
            found=f"this model's context is {context} tokens",
            do="shorten the prompt or lower max_tokens",
        )
    for position, token in enumerate(ids):
        if not 0 <= token < vocab_size:
            raise RequestError(
                f"token id {token} at position {position}",
                found=f"the vocabulary has ids 0 to {vocab_size - 1}",
                do="encode the prompt with this checkpoint's tokenizer",
            )
    return ids
