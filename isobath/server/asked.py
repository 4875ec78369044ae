"""What a request says besides its body, and how many tokens it may have."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Request

from isobath.server.backend import Route
from isobath.server.errors import context_exceeded, invalid
from isobath.server.fields import GenerationFields
from isobath.server.request_id import REQUEST_ID, fresh, harmless
from isobath.server.state import ServerState

_SESSION_HEADERS = ("x-session-id", "x-correlation-id", "x-session-affinity")


def request_id(asked: str | None, kind: str) -> str:
    """kind-N, where N is the body's request_id, the x-request-id header or random."""
    return f"{kind}-{harmless(asked) or REQUEST_ID.get() or fresh()}"


def route_of(request: Request, body: GenerationFields | None = None) -> Route:
    """What binds a request to the engine that knows its beginning."""
    for header in _SESSION_HEADERS:
        if value := request.headers.get(header):
            return Route(value)
    return Route((body.session_id or body.prompt_cache_key) if body else None)


def logprob_count(state: ServerState, count: int | None, param: str) -> int | None:
    """`count`, if the server reports so many. Raises ApiError 400."""
    most = state.config.max_logprobs
    if count is not None and count > most:
        raise invalid(f"{param} is {count}, and this server reports at most {most}", param)
    return count


def check_lengths(
    state: ServerState, most: int | None, least: int | None, *, field: str, floor: int = 1
) -> None:
    """Raise ApiError 400 for bounds of a completion that no prompt leaves room for. most: from
    `field`, None for all that is left; least: min_tokens; floor: the smallest `most`."""
    context = state.engine.limits.context
    if most is None:
        return
    if most < floor:
        raise invalid(f"{field} is {most}, and must be at least {floor}", field)
    if most > context:
        raise invalid(
            f"{field} is {most}, and the maximum context length is {context} tokens", field
        )
    if least is not None and least > most:
        raise invalid(f"min_tokens is {least}, and {field} {most}", "min_tokens")


def clamped(
    state: ServerState,
    ids: Sequence[int],
    max_tokens: int | None,
    truncate: int | None,
    param: str,
) -> tuple[list[int], int]:
    """(prompt, new tokens) that fit the context together. max_tokens: None for all that is left;
    more than is left becomes what is left. truncate: keep so many tokens of the prompt's end, -1
    for as many as leave room. param: the field that holds the prompt."""
    context, vocab_size = state.engine.limits.context, state.engine.limits.vocab_size
    kept = list(ids)
    if truncate:
        keep = max(1, context - (max_tokens or 1)) if truncate < 0 else truncate
        kept = kept[-keep:]
    if not kept:
        raise invalid(f"{param} is empty", param)
    if len(kept) >= context:
        raise context_exceeded(len(kept), context, param)
    if max(kept) >= vocab_size:
        raise invalid(f"{param}: token {max(kept)} is not in the vocabulary", param)
    left = context - len(kept)
    return kept, left if max_tokens is None else min(max_tokens, left)
