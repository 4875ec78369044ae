"""POST /v1/chat/completions: a conversation in, its next message out."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response

from isobath.chat import Delta
from isobath.engine.async_llm import Piece
from isobath.server.asked import request_id
from isobath.server.cancel import unless_gone
from isobath.server.chat_answer import deltas_of, logprobs_of, message_of, usage_of
from isobath.server.chat_body import ChatRequest
from isobath.server.errors import RESPONSES, STREAMED, check_unicode
from isobath.server.logprobs import Names, prompt_records
from isobath.server.sse import DONE, Frames, respond
from isobath.server.state import ServerState
from isobath.server.turns import Ended, Prepared, Usage, prepare, turn

_encode = msgspec.json.encode


@dataclass(slots=True)
class _Work:
    """One request. usages: of its completions so far, by index."""

    state: ServerState
    body: ChatRequest
    number: str
    model: str
    created: int
    prepared: Prepared
    names: Names
    usages: dict[int, Usage] = field(default_factory=dict)

    @property
    def reasoning(self) -> bool:
        """Whether reasoning may show."""
        return self.body.include_reasoning is not False

    def head(self, kind: str) -> dict[str, Any]:
        """What an answer or chunk begins with."""
        return {"id": self.number, "object": kind, "created": self.created, "model": self.model}

    def usage(self) -> dict[str, Any]:
        return usage_of(self.usages.values())

    def logprobs(self, pieces: list[Piece]) -> dict[str, Any] | None:
        """Of the tokens of these pieces; None if there are none, or they were not asked for."""
        if not (self.body.logprobs and pieces):
            return None
        tokens = [token for piece in pieces for token in piece.token_ids]
        records = [record for piece in pieces for record in piece.logprobs]
        text, count = self.state.engine.text, self.body.top_logprobs or 0
        return {
            "content": logprobs_of(text, self.names, tokens, records, count),
            "refusal": None,
        }

    def prompt_facts(self, pieces: list[Piece]) -> dict[str, Any]:
        """About the prompt, as far as it was asked for. pieces: among them its first."""
        told: dict[str, Any] = {}
        if self.body.return_token_ids:
            told["prompt_token_ids"] = self.prepared.prompt
        if (count := self.body.prompt_logprobs) is not None:
            records = next((p.prompt_logprobs for p in pieces if p.prompt_logprobs), ())
            text = self.state.engine.text
            told["prompt_logprobs"] = prompt_records(text, self.prepared.prompt, records, count)
        return told


def router(state: ServerState) -> APIRouter:
    """The routes."""
    routes = APIRouter(tags=["chat completions"])

    @routes.post("/v1/chat/completions", responses=STREAMED | RESPONSES)
    async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
        check_unicode(await request.body())
        work = await _prepared(state, body, request)
        if body.stream:
            keep_alive = state.config.sse_keep_alive_interval or 0
            return await respond(request, _frames(work), keep_alive=keep_alive)
        return await unless_gone(request, _whole(work))

    return routes


async def _prepared(state: ServerState, body: ChatRequest, request: Request) -> _Work:
    """Everything that can be refused before the engine is asked."""
    served = state.models.resolve(body.model)
    names = Names(state.engine.text, as_ids=bool(body.return_tokens_as_token_ids))

    def make() -> Prepared:
        return prepare(state, body.ask(state, served, request))

    prepared = await asyncio.to_thread(make) if body.long else make()
    number = request_id(body.request_id, "chatcmpl")
    return _Work(state, body, number, served.name, int(time.time()), prepared, names)


async def _whole(work: _Work) -> Response:
    """The answer in one piece."""
    pieces: list[list[Piece]] = [[] for _ in range(work.prepared.params.n)]
    ends: dict[int, Ended] = {}
    async with aclosing(turn(work.state, work.prepared)) as events:
        async for event in events:
            if isinstance(event, Ended):
                ends[event.index] = event
                work.usages[event.index] = event.usage
            else:
                pieces[event.index].append(event.piece)
    choices = []
    for index, own in enumerate(pieces):
        end = ends[index]
        choice: dict[str, Any] = {
            "index": index,
            "message": message_of(end.message, reasoning=work.reasoning),
            "logprobs": work.logprobs(own),
            "finish_reason": end.reason,
            "stop_reason": end.stop_reason,
        }
        if work.body.return_token_ids:
            choice["token_ids"] = [token for piece in own for token in piece.token_ids]
        choices.append(choice)
    answer = work.head("chat.completion") | {"choices": choices, "usage": work.usage()}
    answer |= work.prompt_facts([piece for own in pieces for piece in own])
    return Response(_encode(answer), media_type="application/json")


@dataclass(slots=True)
class _Voice:
    """One completion of a stream: what has come of it and not been sent."""

    begun: bool = False
    deltas: list[Delta] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)


async def _frames(work: _Work) -> Frames:
    """The answer as a stream. A chunk says one kind of thing; the role comes with the first token
    and not before, since clients measure the time to it."""
    voices = [_Voice() for _ in range(work.prepared.params.n)]
    interval = work.state.config.stream_interval
    head = _encode(work.head("chat.completion.chunk"))[:-1] + b',"choices":'
    extra = bool(work.body.logprobs or work.body.return_token_ids)
    async with aclosing(turn(work.state, work.prepared)) as events:
        async for event in events:
            voice = voices[event.index]
            work.usages[event.index] = event.usage
            if isinstance(event, Ended):
                chunks = _chunks(work, voice, event.index, event)
            else:
                voice.deltas += event.deltas
                if extra or not voice.begun:
                    voice.pieces.append(event.piece)
                if voice.begun and event.usage.completion_tokens % interval:
                    continue
                chunks = _chunks(work, voice, event.index, None)
            tail = b"}\n\n"
            if work.body.usage_in_chunks:
                tail = b',"usage":%b}\n\n' % _encode(work.usage())
            if chunks:
                yield b"".join(
                    b"data: %b[%b]%b%b" % (head, chunk, facts, tail) for chunk, facts in chunks
                )
    if work.body.include_usage:
        yield b'data: %b[],"usage":%b}\n\n' % (head, _encode(work.usage()))
    yield DONE


def _chunks(work: _Work, voice: _Voice, index: int, end: Ended | None) -> list[tuple[bytes, bytes]]:
    """The chunks that say what `voice` has, and `end` if it is its last: (choice, more fields)."""
    told: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    if not voice.begun:
        voice.begun = True
        facts = work.prompt_facts(voice.pieces)
        told.append({"delta": {"role": "assistant", "content": ""}})
    told += [{"delta": delta} for delta in deltas_of(voice.deltas, reasoning=work.reasoning)]
    voice.deltas = []
    if end is not None:
        told.append({"delta": {}, "finish_reason": end.reason, "stop_reason": end.stop_reason})
    spoken = told[0] if told and "role" not in told[0]["delta"] else told[1] if told[1:] else None
    if spoken is not None:  # it carries the facts about all tokens since the last
        spoken["logprobs"] = work.logprobs(voice.pieces)
        if work.body.return_token_ids:
            spoken["token_ids"] = [t for piece in voice.pieces for t in piece.token_ids]
        voice.pieces = []
    start = {"index": index}
    rest = {"logprobs": None, "finish_reason": None}
    chunks = [(_encode(start | rest | choice), b"") for choice in told]
    if facts:
        chunks[0] = chunks[0][0], b"," + _encode(facts)[1:-1]
    return chunks
