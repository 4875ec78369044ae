"""POST /v1/completions: text or token ids in, text and log-probabilities out.

This is what evaluation harnesses read numbers from: prompt ids are used as they are, the first
prompt token has no log-probability, the generated token always has one, also where its text is
empty, and a token and the best one beside it come from the same computation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from isobath.engine.async_llm import Piece
from isobath.engine.output import Completion
from isobath.engine.sampling import SamplingParams
from isobath.engine.structure_chat import structure_for_completion
from isobath.server.asked import check_lengths, clamped, logprob_count, request_id, route_of
from isobath.server.cancel import unless_gone
from isobath.server.completions_body import CompletionRequest, Prompt, prompts
from isobath.server.errors import RESPONSES, STREAMED, check_unicode
from isobath.server.fields import bounded_params
from isobath.server.generation import Job, joined_pieces, together
from isobath.server.logprobs import Listing, Names, prompt_records
from isobath.server.sse import DONE, Frames, respond
from isobath.server.state import ServerState

DEFAULT_MAX_TOKENS = 16


@dataclass(slots=True)
class _Choice:
    """One completion on its way to the client. listing: of its log-probabilities. kept: what has
    not been told."""

    index: int
    prompt: Prompt
    listing: Listing | None
    text: str = ""
    begun: bool = False
    kept: Piece | None = None
    tokens: int = 0
    completion: Completion | None = None


@dataclass(slots=True)
class _Work:
    """One request. head: what all of its answers begin with."""

    state: ServerState
    body: CompletionRequest
    head: dict[str, Any]
    jobs: list[Job]
    choices: list[_Choice]
    names: Names
    prompt_tokens: int
    cached: dict[int, int] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return self.body.n or 1

    @property
    def silent(self) -> bool:
        """The prompt alone is wanted."""
        return self.body.max_tokens == 0

    def usage(self) -> dict[str, Any]:
        """The counts so far."""
        new = sum(choice.tokens for choice in self.choices)
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + new,
            "completion_tokens": new,
            "prompt_tokens_details": {"cached_tokens": sum(self.cached.values())},
        }


def router(state: ServerState) -> APIRouter:
    """The route."""
    routes = APIRouter(tags=["completions"])

    @routes.post("/v1/completions", responses=STREAMED | RESPONSES)
    async def create_completion(body: CompletionRequest, request: Request) -> Response:
        check_unicode(await request.body())
        work = await _prepared(state, body)
        if body.stream:
            keep_alive = state.config.sse_keep_alive_interval or 0
            return await respond(request, _frames(work, request), keep_alive=keep_alive)
        return await unless_gone(request, _whole(work, request))

    return routes


async def _prepared(state: ServerState, body: CompletionRequest) -> _Work:
    """Everything that can be refused before the engine is asked."""
    name = state.models.resolve(body.model).name
    backend = state.engine
    body.check()
    structure = structure_for_completion(body.response_format, body.structured_outputs)
    bos = state.config.completions_add_bos and body.add_special_tokens is not False
    given = await prompts(body, backend.text, bos=bos)
    number = request_id(body.request_id, "cmpl")
    names = Names(backend.text, as_ids=bool(body.return_tokens_as_token_ids))
    params = body.sampling(
        state,
        logprobs=logprob_count(state, body.logprobs, "logprobs"),
        prompt_logprobs=logprob_count(state, _prompt_logprobs(body), "prompt_logprobs"),
        structure=structure,
    )
    asked = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    floor = 0 if body.echo else 1
    check_lengths(state, asked, body.min_tokens, field="max_tokens", floor=floor)
    jobs, choices = [], []
    for place, prompt in enumerate(given):
        ids, most = clamped(state, prompt.ids, asked, body.truncate_prompt_tokens, "prompt")
        prompt = Prompt(ids, prompt.text if len(ids) == len(prompt.ids) else None)
        jobs.append(Job(ids, bounded_params(params, max(1, most))))
        choices += [
            _Choice(place * params.n + i, prompt, _listing(body, backend.text, names, params))
            for i in range(params.n)
        ]
    head = {
        "id": number,
        "object": "text_completion",
        "created": int(time.time()),
        "model": name,
    }
    return _Work(state, body, head, jobs, choices, names, sum(len(job.ids) for job in jobs))


def _prompt_logprobs(body: CompletionRequest) -> int | None:
    """How many the engine is asked for: the more of what echo and prompt_logprobs need."""
    echoed = body.logprobs if body.echo else None
    wanted = [n for n in (echoed, body.prompt_logprobs) if n is not None]
    return max(wanted, default=None)


def _listing(
    body: CompletionRequest, text: Any, names: Names, params: SamplingParams
) -> Listing | None:
    if body.logprobs is None:
        return None
    return Listing(text, names, body.logprobs, skip_special=params.skip_special_tokens)


async def _whole(work: _Work, request: Request) -> Response:
    """The answer in one piece."""
    async with aclosing(together(work.state, work.jobs, route_of(request, work.body))) as pieces:
        async for which, piece in pieces:
            if piece.completion is not None:
                choice = work.choices[which * work.n + piece.index]
                choice.completion = done = piece.completion
                choice.tokens = 0 if work.silent else len(done.token_ids)
                work.cached[which] = done.cached_tokens
    answer = work.head | {
        "choices": [_finished(work, choice) for choice in work.choices],
        "usage": work.usage(),
    }
    return Response(msgspec.json.encode(answer), media_type="application/json")


def _finished(work: _Work, choice: _Choice) -> dict[str, Any]:
    body, done = work.body, choice.completion
    assert done is not None
    tokens = [] if work.silent else done.token_ids
    echo = _echo(work, choice)
    told: dict[str, Any] = {
        "index": choice.index,
        "text": echo + ("" if work.silent else done.text),
        "logprobs": _logprobs(work, choice, tokens, done.logprobs, done.prompt_logprobs),
        "finish_reason": "length" if work.silent else done.finish_reason,
        "stop_reason": done.stop_reason,
    }
    if body.prompt_logprobs is not None:
        told["prompt_logprobs"] = _prompt_records(work, choice, done.prompt_logprobs)
    if body.return_token_ids:
        told |= {"token_ids": tokens, "prompt_token_ids": choice.prompt.ids}
    return told


def _echo(work: _Work, choice: _Choice) -> str:
    """The prompt's text, where it is to be told."""
    if not work.body.echo:
        return ""
    if choice.prompt.text is not None:
        return choice.prompt.text
    skip = work.body.skip_special_tokens is not False
    return work.state.engine.text.decode(choice.prompt.ids, skip_special=skip)


def _logprobs(
    work: _Work,
    choice: _Choice,
    tokens: Sequence[int],
    records: Sequence[Any],
    prompt: Sequence[Any] | None,
) -> Mapping[str, Any] | None:
    """Of the next tokens; after those of the prompt, if `prompt` has them and they are echoed."""
    if choice.listing is None:
        return None
    ids, own = list(tokens), list(records)[: len(tokens)]
    if work.body.echo and prompt is not None:
        ids, own = choice.prompt.ids + ids, [None, *prompt, *own]
    return choice.listing.take(ids, own)


def _prompt_records(work: _Work, choice: _Choice, records: Sequence[Any]) -> list[Any]:
    count = work.body.prompt_logprobs
    assert count is not None
    return prompt_records(work.state.engine.text, choice.prompt.ids, records, count)


async def _frames(work: _Work, request: Request) -> Frames:
    """The answer as a stream: a chunk for every token, also where it has no text yet."""
    body = work.body
    interval = work.state.config.stream_interval
    head = msgspec.json.encode(work.head)[:-1]
    async with aclosing(together(work.state, work.jobs, route_of(request, body))) as pieces:
        async for which, piece in pieces:
            choice = work.choices[which * work.n + piece.index]
            if choice.kept is not None:
                piece = joined_pieces(choice.kept, piece)
            choice.kept = piece
            if piece.completion is not None:
                work.cached[which] = piece.completion.cached_tokens
            elif choice.begun and (work.silent or len(piece.token_ids) < interval):
                continue
            choice.kept = None
            chunk = msgspec.json.encode([_chunk(work, choice, piece)])
            usage = b""
            if body.usage_in_chunks:
                usage = b',"usage":' + msgspec.json.encode(work.usage())
            yield b'data: %b,"choices":%b%b}\n\n' % (head, chunk, usage)
    if body.include_usage:
        yield b'data: %b,"choices":[],"usage":%b}\n\n' % (head, msgspec.json.encode(work.usage()))
    yield DONE


def _chunk(work: _Work, choice: _Choice, piece: Piece) -> dict[str, Any]:
    body, first = work.body, not choice.begun
    choice.begun = True
    tokens: Sequence[int] = () if work.silent else piece.token_ids
    text = "" if work.silent else piece.text
    choice.tokens += len(tokens)
    done = piece.completion
    told: dict[str, Any] = {
        "index": choice.index,
        "text": _echo(work, choice) + text if first else text,
        "logprobs": None,
        "finish_reason": done.finish_reason if done else None,
        "stop_reason": done.stop_reason if done else None,
    }
    if choice.listing is not None and (tokens or first):
        prompt = piece.prompt_logprobs if first else None
        told["logprobs"] = _logprobs(work, choice, tokens, piece.logprobs, prompt)
    if first and body.prompt_logprobs is not None:
        told["prompt_logprobs"] = _prompt_records(work, choice, piece.prompt_logprobs)
    if body.return_token_ids:
        told["token_ids"] = tokens
        if first:
            told["prompt_token_ids"] = choice.prompt.ids
    return told
