"""A chat completion in OpenAI's words: messages, chunks, counts, log-probabilities.

Reasoning goes under two names, `reasoning_content` (DeepSeek) and `reasoning` (vLLM), because every
client reads one of them. Knows no HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from isobath.chat import Answer, CallBegin, Content, Delta, Reasoning, joined
from isobath.model.text import Text
from isobath.server.logprobs import Names, Record, finite
from isobath.server.turns import Usage


def usage_of(counts: Iterable[Usage]) -> dict[str, Any]:
    """The counts of a request: its prompt once, its completions together."""
    told = list(counts)
    prompt = max((u.prompt_tokens for u in told), default=0)
    new = sum(u.completion_tokens for u in told)
    return {
        "prompt_tokens": prompt,
        "total_tokens": prompt + new,
        "completion_tokens": new,
        "prompt_tokens_details": {"cached_tokens": max((u.cached_tokens for u in told), default=0)},
        "completion_tokens_details": {"reasoning_tokens": sum(u.reasoning_tokens for u in told)},
    }


def message_of(answer: Answer, *, reasoning: bool) -> dict[str, Any]:
    """A whole message. reasoning: whether it may show."""
    told: dict[str, Any] = {
        "role": "assistant",
        "content": answer.content if answer.content or not answer.calls else None,
        "refusal": None,
    }
    if reasoning:
        thought = answer.reasoning or None
        told |= {"reasoning_content": thought, "reasoning": thought}
    if answer.calls:
        told["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in answer.calls
        ]
    return told


def deltas_of(deltas: Sequence[Delta], *, reasoning: bool) -> Iterator[dict[str, Any]]:
    """The `delta` objects of chunks; neighbours of one kind become one."""
    for delta in joined(deltas):
        if isinstance(delta, Reasoning):
            if reasoning:
                yield {"reasoning_content": delta.text, "reasoning": delta.text}
        elif isinstance(delta, Content):
            yield {"content": delta.text}
        elif isinstance(delta, CallBegin):
            function = {"name": delta.name, "arguments": ""}
            call = {"index": delta.index, "id": delta.id, "type": "function", "function": function}
            yield {"tool_calls": [call]}
        else:
            function = {"arguments": delta.fragment}
            yield {"tool_calls": [{"index": delta.index, "function": function}]}


def logprobs_of(
    text: Text, names: Names, tokens: Sequence[int], records: Sequence[Record], count: int
) -> list[dict[str, Any]]:
    """The `logprobs.content` of a choice or chunk. count: best tokens wanted beside each."""

    def one(token: int, value: float) -> dict[str, Any]:
        return {
            "token": names(token),
            "logprob": finite(value),
            "bytes": list(text.token_bytes(token)),
        }

    return [
        one(token, own) | {"top_logprobs": [one(other, value) for other, value in top[:count]]}
        for token, (own, top) in zip(tokens, records, strict=True)
    ]
