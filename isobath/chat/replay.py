"""Calls as the model wrote them, kept so that a returned call is rendered byte for byte.

A client sends arguments back as JSON, from which the model's own spelling cannot be had again; a
prompt that spells a call differently shares no prefix with what was computed. Bounded: the calls
used longest ago are forgotten. Used from the event loop and from threads that render prompts.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from isobath.chat.conversation import ToolCall

CALLS = 100_000


def call_id() -> str:
    """A new id that cannot be guessed: it is the key to what a model wrote for someone."""
    return f"call_{secrets.token_hex(12)}"


@dataclass(frozen=True, slots=True)
class Block:
    """All calls of one turn: text is the model's own, from the end of content to the last closer;
    pieces are the calls' own parts of it, one a call."""

    text: str
    calls: tuple[ToolCall, ...]
    pieces: tuple[str, ...]


class Replay:
    """A bounded map from call id to the block it stood in."""

    def __init__(self, capacity: int = CALLS) -> None:
        self._capacity = capacity
        self._blocks: OrderedDict[str, Block] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._blocks)

    def remember(self, block: Block) -> None:
        """Keep a block under the id of each of its calls."""
        with self._lock:
            for call in block.calls:
                self._blocks[call.id] = block
                self._blocks.move_to_end(call.id)
            while len(self._blocks) > self._capacity:
                self._blocks.popitem(last=False)

    def find(self, call_id: str) -> Block | None:
        """The block in which a call stood, which counts as a use of it."""
        with self._lock:
            if found := self._blocks.get(call_id):
                self._blocks.move_to_end(call_id)
            return found
