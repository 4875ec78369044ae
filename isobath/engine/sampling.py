"""How the next token is chosen: penalties and bias, then greedy or a draw, and log-probabilities.

A draw depends on the request's seed, which of its n completions this is, and the position, and on
nothing else: neither on what else is in the batch, nor on how often the sequence was preempted.
The order of steps is vLLM's: bias, minimum length, penalties, what a structure allows, temperature,
min-p, top-k, top-p.
Log-probabilities are of the model's own distribution, before any of these.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from isobath.engine.constraint import Constraint
from isobath.engine.structure import Structure
from isobath.errors import RequestError

MAX_LOGPROBS = 20
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """What a request asks of generation.

    n: completions of the prompt. max_tokens, min_tokens: bounds on their length; before
    min_tokens no end or stop token is chosen. temperature: 0 is greedy. top_k: keep this many
    tokens (0: all). top_p: keep the smallest set with this probability. min_p: keep tokens at
    least this share of the best one's probability. presence_penalty, frequency_penalty:
    subtracted once, or for every time, a token was generated. repetition_penalty: divides
    (multiplies, if negative) the logit of tokens in the prompt or generated. logit_bias: added,
    by token id. seed: makes draws repeatable; None draws a fresh one. stop: texts that end a
    completion and are not part of it, unless include_stop_str_in_output, which keeps a stop token's
    text, too. stop_token_ids: ids that end it. ignore_eos: go on after the end-of-sentence token.
    skip_special_tokens: leave names of special tokens out of the text. logprobs,
    prompt_logprobs: how many of the best tokens to report beside each generated, or prompt, token
    (None: none at all). structure: what the text must be; it decides when the completion may end,
    before ignore_eos and min_tokens do. allowed_token_ids: no others are chosen (none: all may be).
    bad_words: sequences of token ids that are not generated; neither goes with a structure.
    cache_salt: computed beginnings of prompts are shared among requests with the same one.
    Raises RequestError for a value out of range.
    """

    n: int = 1
    max_tokens: int = 128
    min_tokens: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    structure: Structure | None = None
    include_stop_str_in_output: bool = False
    skip_special_tokens: bool = True
    allowed_token_ids: tuple[int, ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    cache_salt: str = ""

    def __post_init__(self) -> None:
        counts = (self.logprobs or 0, self.prompt_logprobs or 0)
        free = self.structure is None
        checks = {
            "n": (1 <= self.n <= 128, "from 1 to 128"),
            "max_tokens": (self.max_tokens >= 1, "at least 1"),
            "min_tokens": (0 <= self.min_tokens <= self.max_tokens, "from 0 to max_tokens"),
            "temperature": (0 <= self.temperature < float("inf"), "0 or more, and finite"),
            "top_k": (self.top_k >= 0, "0 (all) or more"),
            "top_p": (0 < self.top_p <= 1, "above 0, at most 1"),
            "min_p": (0 <= self.min_p <= 1, "from 0 to 1"),
            "presence_penalty": (-2 <= self.presence_penalty <= 2, "from -2 to 2"),
            "frequency_penalty": (-2 <= self.frequency_penalty <= 2, "from -2 to 2"),
            "repetition_penalty": (0 < self.repetition_penalty < float("inf"), "above 0"),
            "stop": (all(self.stop), "texts that are not empty"),
            "allowed_token_ids": (free or not self.allowed_token_ids, "empty with a structure"),
            "bad_words": (
                all(self.bad_words) and (free or not self.bad_words),
                "sequences of one token or more, and none with a structure",
            ),
            "logprobs": (0 <= counts[0] <= MAX_LOGPROBS, f"from 0 to {MAX_LOGPROBS}"),
            "prompt_logprobs": (0 <= counts[1] <= MAX_LOGPROBS, f"from 0 to {MAX_LOGPROBS}"),
        }
        for name, (holds, rule) in checks.items():
            if not holds:
                raise RequestError(
                    f"{name}: must be {rule}", found=repr(getattr(self, name)), param=name
                )


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token. logprob and top ((id, logprob), best first) only if they were asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the tokens of one completion. eos: the end-of-sentence id. constraint: of a
    completion with a structure, told of every token by who accepts it."""

    def __init__(
        self,
        params: SamplingParams,
        prompt: Sequence[int],
        index: int,
        eos: int,
        constraint: Constraint | None = None,
    ) -> None:
        self.params, self.constraint, self._eos = params, constraint, eos
        seed = secrets.randbits(64) if params.seed is None else params.seed
        self._seed = _mix(_mix(seed & _MASK) + index)
        ends = set(params.stop_token_ids) | (set() if params.ignore_eos else {eos})
        self._ends = ends
        self._end_ids = torch.tensor(sorted(ends), dtype=torch.int64)
        bias = sorted(params.logit_bias.items())
        self._bias_ids = torch.tensor([i for i, _ in bias], dtype=torch.int64)
        self._bias = torch.tensor([b for _, b in bias], dtype=torch.float32)
        self._prompt = set(prompt) if params.repetition_penalty != 1 else set()

    @property
    def plain(self) -> bool:
        """Whether the choice is simply the largest logit, with nothing to report."""
        p = self.params
        return (
            p.temperature == 0
            and p.logprobs is None
            and not (p.logit_bias or p.min_tokens or p.presence_penalty or p.frequency_penalty)
            and p.repetition_penalty == 1
            and not (p.allowed_token_ids or p.bad_words)
            and self.constraint is None
        )

    def ends(self, token: int) -> bool:
        """Whether `token` ends the completion. Under a constraint the end token always does: with
        ignore_eos it is only chosen when nothing else may follow."""
        return token in self._ends or (self.constraint is not None and token == self._eos)

    def choose(self, logits: torch.Tensor, generated: Sequence[int]) -> Choice:
        """The next token after `generated`. logits: float32 [vocab], not changed."""
        adjusted = self._adjust(logits.clone(), generated)
        if self.params.temperature == 0:
            token = int(adjusted.argmax())
        else:
            token = self._draw(adjusted, len(generated))
        if self.params.logprobs is None:
            return Choice(token)
        return logprobs(logits, token, self.params.logprobs)

    def _adjust(self, logits: torch.Tensor, generated: Sequence[int]) -> torch.Tensor:
        p = self.params
        if len(self._bias):
            logits[self._bias_ids] += self._bias
        if len(generated) < p.min_tokens and self.constraint is None:
            logits[self._end_ids] = -torch.inf
        if p.repetition_penalty != 1:
            seen = torch.tensor(sorted(self._prompt.union(generated)), dtype=torch.int64)
            values = logits[seen]
            scaled = torch.where(
                values > 0, values / p.repetition_penalty, values * p.repetition_penalty
            )
            logits[seen] = scaled
        if (p.presence_penalty or p.frequency_penalty) and generated:
            counts = Counter(generated)
            times = torch.tensor(list(counts.values()), dtype=torch.float32)
            penalty = p.presence_penalty + p.frequency_penalty * times
            logits[torch.tensor(list(counts), dtype=torch.int64)] -= penalty
        if self.constraint is not None:
            logits[~self._allowed(self.constraint, len(generated))] = -torch.inf
        elif p.allowed_token_ids or p.bad_words:
            self._restrict(logits, generated)
        return logits

    def _restrict(self, logits: torch.Tensor, generated: Sequence[int]) -> None:
        """Leave only tokens that may come next; where none may, the end token."""
        p = self.params
        if p.allowed_token_ids:
            kept = logits[list(p.allowed_token_ids)]
            logits.fill_(-torch.inf)
            logits[list(p.allowed_token_ids)] = kept
        for *before, last in p.bad_words:
            if list(generated[len(generated) - len(before) :]) == before:
                logits[last] = -torch.inf
        if logits.max() == -torch.inf:
            logits[self._eos] = 0.0

    def _allowed(self, constraint: Constraint, generated: int) -> torch.Tensor:
        """Tokens that may come next. What ends the completion too early is left out, but a grammar
        that can only end goes before min_tokens and ignore_eos: it has nothing else to say."""
        allowed = constraint.allowed
        early = self._ends | {self._eos} if generated < self.params.min_tokens else set()
        if self.params.ignore_eos:
            early = early | {self._eos}
        if not early:
            return allowed
        later = allowed.clone()
        later[sorted(early)] = False
        return later if later.any() else allowed

    def _draw(self, logits: torch.Tensor, position: int) -> int:
        p = self.params
        probabilities = (logits.double() / p.temperature).softmax(0)
        ids = None
        if p.min_p:
            floor = p.min_p * probabilities.max()
            probabilities = torch.where(probabilities >= floor, probabilities, 0.0)
        if p.top_k or p.top_p < 1:
            probabilities, ids = probabilities.sort(descending=True, stable=True)
            if p.top_k:
                probabilities[p.top_k :] = 0
            total = probabilities.sum()
            before = probabilities.cumsum(0) - probabilities
            probabilities = torch.where(before < p.top_p * total, probabilities, 0.0)
        cumulative = probabilities.cumsum(0)
        point = _uniform(self._seed, position) * float(cumulative[-1])
        place = int(torch.searchsorted(cumulative, point, right=True))
        place = min(place, int(probabilities.nonzero()[-1]))
        return place if ids is None else int(ids[place])


def logprobs(logits: torch.Tensor, token: int, count: int) -> Choice:
    """Choice of `token` with its log-probability and the `count` best, from logits [vocab]."""
    values = logits.log_softmax(0)
    best = values.topk(count)
    top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return Choice(token, float(values[token]), top)


def _mix(x: int) -> int:
    """splitmix64's output function: a bijection of 64-bit integers that scatters neighbours."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


def _uniform(seed: int, position: int) -> float:
    """A number in [0, 1) that depends on seed and position alone."""
    return (_mix(seed ^ _mix(position)) >> 11) * 2.0**-53
