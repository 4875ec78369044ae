"""From a chat answer on its way to the events of POST /v1/messages, and to its message.

The order is the one that Anthropic's SDK takes: message_start, then for every block
content_block_start, its deltas, content_block_stop, at last message_delta and message_stop. Blocks
come one after another: thinking (which ends with a signature_delta), text, tool_use. The message of
a request that does not stream is what the same events add up to, so there is one way to make it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from isobath.chat import CallArguments, CallBegin, Content, Delta, Reasoning
from isobath.server.sealed import seal, signature
from isobath.server.turns import Ended, Usage

Event = dict[str, Any]
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


def frame(event: Event) -> bytes:
    """One event as bytes on the wire; clients dispatch on the name, so it is there twice."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event))


def usage_of(usage: Usage) -> dict[str, Any]:
    """input_tokens are those that were computed: the others came from the prefix cache. Writing
    to the cache costs nothing here, so no token counts as its creation."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


class MessageEvents:
    """Events of one message, and the message so far (`message`).

    hide: the client asked for thinking without its text; the signature then carries it.
    """

    def __init__(self, id: str, model: str, *, hide: bool = False) -> None:
        self._hide = hide
        self._open: dict[str, Any] | None = None  # the block that grows, as it was when it began
        self._grown: list[str] = []  # its pieces
        self.message: dict[str, Any] = {
            "id": id,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": None,
        }

    def start(self, usage: Usage) -> list[Event]:
        """The first event; what of the prompt was cached may only be known at the end."""
        self.message["usage"] = usage_of(usage)
        return [{"type": "message_start", "message": self.message | {"content": []}}]

    def take(self, deltas: Iterable[Delta]) -> list[Event]:
        """Events of what is new."""
        return [event for delta in deltas for event in self._take(delta)]

    def end(self, ended: Ended) -> list[Event]:
        """The last events."""
        events = list(self._close())
        by_text = ended.reason == "stop" and ended.stop_text is not None
        reasons = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
        delta = {
            "stop_reason": "stop_sequence" if by_text else reasons[ended.reason],
            "stop_sequence": ended.stop_text if by_text else None,
        }
        self.message |= delta
        self.message["usage"] = usage_of(ended.usage)
        events.append({"type": "message_delta", "delta": delta, "usage": self.message["usage"]})
        return [*events, {"type": "message_stop"}]

    def _take(self, delta: Delta) -> Iterator[Event]:
        match delta:
            case Reasoning(text) if text:
                if not self._in("thinking"):
                    yield from self._begin({"type": "thinking", "thinking": "", "signature": ""})
                yield from self._grow("thinking_delta", "thinking", text, silent=self._hide)
            case Content(text) if text:
                if not self._in("text"):
                    yield from self._begin({"type": "text", "text": ""})
                yield from self._grow("text_delta", "text", text)
            case CallBegin(_, id, name):
                yield from self._begin({"type": "tool_use", "id": id, "name": name, "input": {}})
            case CallArguments(_, fragment) if fragment:
                assert self._in("tool_use"), "arguments of a call that has not begun"
                yield from self._grow("input_json_delta", "partial_json", fragment)

    def _in(self, kind: str) -> bool:
        return self._open is not None and self._open["type"] == kind

    def _begin(self, block: dict[str, Any]) -> Iterator[Event]:
        yield from self._close()
        self._open, self._grown = block, []
        yield {"type": "content_block_start", "index": self._index, "content_block": block}

    def _grow(self, kind: str, field: str, text: str, *, silent: bool = False) -> Iterator[Event]:
        self._grown.append(text)
        if not silent:
            yield self._delta({"type": kind, field: text})

    def _close(self) -> Iterator[Event]:
        block, text = self._open, "".join(self._grown)
        if block is None:
            return
        match block["type"]:
            case "thinking":
                word = seal(text) if self._hide else signature(text)
                yield self._delta({"type": "signature_delta", "signature": word})
                done = {"thinking": "" if self._hide else text, "signature": word}
            case "text":
                done = {"text": text}
            case _:
                done = {"input": json.loads(text or "{}")}
        yield {"type": "content_block_stop", "index": self._index}
        self.message["content"].append(block | done)
        self._open = None

    @property
    def _index(self) -> int:
        return len(self.message["content"])

    def _delta(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": self._index, "delta": delta}
