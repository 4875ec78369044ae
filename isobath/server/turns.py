"""One turn of a conversation, whatever route it came by: a prompt is made of it, the engine
completes that, and a machine reads the answer. Routes bring their requests into an Ask, and tell
what comes of it in their own words.

    prepared = prepare(state, ask)
    async for event in turn(state, prepared): ...      # Step, Step, ..., Ended for each completion

What is wrong with a request is raised by prepare(), or by turn() before its first event.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from isobath.chat import Answer, Conversation, Delta, Machine, Tool
from isobath.engine.async_llm import Piece
from isobath.engine.output import Completion
from isobath.engine.sampling import SamplingParams
from isobath.server.asked import clamped
from isobath.server.backend import Route
from isobath.server.fields import bounded_params
from isobath.server.generation import Job, generate
from isobath.server.state import ServerState


@dataclass(frozen=True, slots=True)
class Ask:
    """A request for the next message. params: its max_tokens counts for nothing. max_tokens: None
    for all that is left of the context; more than is left becomes what is left. calls: whether the
    answer may hold calls of the conversation's tools (not with tool_choice "none"). truncate: keep
    so many tokens of the prompt's end."""

    conversation: Conversation
    params: SamplingParams
    max_tokens: int | None = None
    route: Route | None = None
    calls: bool = True
    truncate: int | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """An Ask that can be served. tools: those that the answer may call."""

    prompt: list[int]
    params: SamplingParams
    route: Route | None
    tools: tuple[Tool, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one completion. cached_tokens: of its prompt. reasoning_tokens: of it itself."""

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int


@dataclass(frozen=True, slots=True)
class Step:
    """What one piece added to completion `index`, maybe nothing."""

    index: int
    deltas: tuple[Delta, ...]
    piece: Piece
    usage: Usage


@dataclass(frozen=True, slots=True)
class Ended:
    """Completion `index` is whole. reason: "stop", "length", "tool_calls" or "abort". stop_reason:
    the stop text or stop token that ended it."""

    index: int
    reason: str
    stop_reason: str | int | None
    usage: Usage
    message: Answer

    @property
    def stop_text(self) -> str | None:
        return self.stop_reason if isinstance(self.stop_reason, str) else None


Turn = AsyncGenerator[Step | Ended, None]


def prepare(state: ServerState, ask: Ask) -> Prepared:
    """The prompt of a conversation, and how much may follow it. Long ones take a while: call it in
    a thread then. Raises RequestError or ApiError."""
    rendered = state.chat_format.render(ask.conversation, state.replay)
    ids, most = clamped(state, rendered.token_ids, ask.max_tokens, ask.truncate, "messages")
    params = bounded_params(ask.params, most)
    tools = ask.conversation.tools if ask.calls else ()
    return Prepared(ids, params, ask.route, tools)


async def turn(state: ServerState, prepared: Prepared) -> Turn:
    """Run a turn. Calls that are complete go to the replay map."""
    machines = [
        Machine(state.chat_format, prepared.prompt, prepared.tools, replay=state.replay)
        for _ in range(prepared.params.n)
    ]
    tokens = [0] * len(machines)
    cached = 0
    job = Job(prepared.prompt, prepared.params)
    async with aclosing(generate(state, job, prepared.route)) as pieces:
        async for piece in pieces:
            machine, done = machines[piece.index], piece.completion
            tokens[piece.index] += len(piece.token_ids)
            deltas: list[Delta] = []
            for token, text in piece.parts:
                deltas += machine.feed(token, text)
            if done is not None:
                deltas += machine.finish(_end(done, state.engine.text.eos))
                cached = max(cached, done.cached_tokens)
            usage = Usage(
                len(prepared.prompt), cached, tokens[piece.index], machine.reasoning_tokens
            )
            yield Step(piece.index, tuple(deltas), piece, usage)
            if done is not None:
                message, reason = machine.message, machine.finish_reason
                if not (message.content or message.calls) and state.metrics is not None:
                    state.metrics.empty_completion()
                yield Ended(piece.index, reason, done.stop_reason, usage, message)


def _end(done: Completion, eos: int) -> str:
    """How a completion ended, as Machine.finish has it."""
    own = done.stop_reason in (None, eos)
    return "stop_text" if done.finish_reason == "stop" and not own else done.finish_reason
