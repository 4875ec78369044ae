"""What every generating route accepts, and how that becomes SamplingParams.

Unknown fields are ignored, as every client relies on; DEBUG says which. Those that other servers
let shape the answer (MISSED) get one WARNING, because ignoring them changes it. All numbers have
explicit bounds: what passes here can be computed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from isobath.engine.sampling import MAX_LOGPROBS, SamplingParams
from isobath.engine.structure import Structure
from isobath.model.text import Text as Tokenizer
from isobath.server.errors import invalid
from isobath.server.state import ServerState

log = logging.getLogger(__name__)
T = TypeVar("T")
INT64 = 2**63
MAX_TOKENS = 2**31 - 1
GREEDY_BELOW, LEAST_TEMPERATURE = 1e-9, 0.01
"""vLLM's: a temperature between them is lifted, or the division overflows."""
MISSED = {
    "guided_json": "structured_outputs",
    "guided_regex": "structured_outputs",
    "guided_choice": "structured_outputs",
    "guided_grammar": "structured_outputs",
    "guided_json_object": "structured_outputs",
    "functions": "tools",
    "function_call": "tool_choice",
    "use_beam_search": "n",
    "thinking_token_budget": "reasoning_effort",
    "chat_template": "chat_template_kwargs",
}
"""Fields that would change the answer and mean nothing here, and what to use instead."""

Count = Annotated[int, Field(ge=0, le=MAX_TOKENS)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
Text = Annotated[str, Field(max_length=4096)]


class Lenient(BaseModel):
    """A body whose unknown fields are ignored, and said so."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _tell_unknown(cls, body: Any) -> Any:
        if isinstance(body, dict) and (unknown := body.keys() - cls.model_fields.keys()):
            for name in unknown & MISSED.keys():
                if body[name]:
                    _warn(name)
            if log.isEnabledFor(logging.DEBUG):
                log.debug("ignored fields: %.200s", ", ".join(sorted(map(repr, unknown))))
        return body


@cache
def _warn(name: str) -> None:
    """Once in a process: clients send the same fields with every request."""
    log.warning("%s is not supported, and ignored: use %s", name, MISSED[name])


class StreamOptions(Lenient):
    """include_usage: one more chunk with the counts. continuous_usage_stats: then them in every
    chunk."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class GenerationFields(Lenient):
    """Common to completions and chat completions."""

    model: Annotated[str, Field(max_length=1024)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    max_tokens: Count | None = None
    min_tokens: Count | None = None
    temperature: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_TOKENS)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=4096)] | None = None
    seed: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None
    stop: Text | Annotated[list[Text], Field(max_length=64)] | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=1024)] | None = None
    allowed_token_ids: Annotated[list[TokenId], Field(min_length=1, fail_fast=True)] | None = None
    bad_words: Annotated[list[Text], Field(max_length=1024)] | None = None
    ignore_eos: bool | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    prompt_logprobs: Annotated[int, Field(ge=0, le=MAX_LOGPROBS)] | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=MAX_TOKENS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    return_token_ids: bool | None = None
    return_tokens_as_token_ids: bool | None = None
    response_format: dict[str, Any] | None = None
    structured_outputs: dict[str, Any] | None = None
    cache_salt: Annotated[Text, Field(min_length=1)] | None = None
    priority: Annotated[int, Field(ge=-INT64, lt=INT64)] | None = None
    request_id: Annotated[str, Field(max_length=256)] | None = None
    session_id: Text | None = None
    prompt_cache_key: Text | None = None
    user: Text | None = None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def usage_in_chunks(self) -> bool:
        options = self.stream_options
        return bool(options and options.include_usage and options.continuous_usage_stats)

    def sampling(
        self,
        state: ServerState,
        *,
        logprobs: int | None,
        prompt_logprobs: int | None,
        structure: Structure | None = None,
    ) -> SamplingParams:
        """What the engine is asked; ids out of the vocabulary are refused here. max_tokens is left
        at the largest there is, since it depends on the prompt: see bounded_params()."""
        stop = self.stop or ()
        text, vocab_size = state.engine.text, state.engine.limits.vocab_size

        def chosen(name: str, otherwise: Any) -> Any:
            own = getattr(self, name)
            return state.sampling_defaults.get(name, otherwise) if own is None else own

        return SamplingParams(
            n=_or(self.n, 1),
            max_tokens=MAX_TOKENS,
            min_tokens=_or(self.min_tokens, 0),
            temperature=temperature(chosen("temperature", 1.0)),
            top_k=max(0, chosen("top_k", 0)),
            top_p=chosen("top_p", 1.0),
            min_p=chosen("min_p", 0.0),
            presence_penalty=_or(self.presence_penalty, 0.0),
            frequency_penalty=_or(self.frequency_penalty, 0.0),
            repetition_penalty=chosen("repetition_penalty", 1.0),
            logit_bias=self._bias(vocab_size),
            seed=None if self.seed == -1 else self.seed,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            stop_token_ids=self._ids("stop_token_ids", vocab_size),
            allowed_token_ids=self._ids("allowed_token_ids", vocab_size),
            bad_words=tuple(ids for word in self.bad_words or () for ids in _spellings(word, text)),
            ignore_eos=bool(self.ignore_eos),
            logprobs=logprobs,
            prompt_logprobs=prompt_logprobs,
            structure=structure,
            include_stop_str_in_output=bool(self.include_stop_str_in_output),
            skip_special_tokens=self.skip_special_tokens is not False,
            cache_salt=self.cache_salt or "",
        )

    def _ids(self, field: str, vocab_size: int) -> tuple[int, ...]:
        ids: list[int] = getattr(self, field) or []
        for token in ids:
            if token >= vocab_size:
                raise invalid(f"{field}: {token} is no token", field)
        return tuple(ids)

    def _bias(self, vocab_size: int) -> dict[int, float]:
        bias = {}
        for name, value in (self.logit_bias or {}).items():
            if not (name.isascii() and name.isdecimal() and len(name) < 10):
                raise invalid(f"logit_bias: {name[:40]!r} is no token id", "logit_bias")
            if int(name) >= vocab_size:
                raise invalid(f"logit_bias: {name} is no token", "logit_bias")
            if value != value:
                raise invalid(f"logit_bias: {name} has a bias that is no number", "logit_bias")
            bias[int(name)] = min(100.0, max(-100.0, value))
        return bias


def bounded_params(params: SamplingParams, max_tokens: int) -> SamplingParams:
    """`params` for a prompt that leaves room for so many tokens."""
    least = min(params.min_tokens, max_tokens)
    return replace(params, max_tokens=max_tokens, min_tokens=least)


def temperature(asked: float) -> float:
    """0 is greedy, and what is nearly 0 is lifted."""
    return 0.0 if asked < GREEDY_BELOW else max(asked, LEAST_TEMPERATURE)


def _spellings(word: str, text: Tokenizer) -> Iterator[tuple[int, ...]]:
    """A bad word as token ids: as it begins a text, and as it follows a blank."""
    bare = word.lstrip() or word
    for spelling in (bare, f" {bare}"):
        yield tuple(text.encode(spelling, bos=False))


def _or(value: T | None, default: T) -> T:
    return default if value is None else value
