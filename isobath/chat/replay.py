"""Calls as the model wrote them, kept so that a returned call is rendered byte for byte.

A client sends arguments back as JSON, from which the model's own spelling cannot be had again; a
prompt that spells a call differently shares no prefix with what was computed. Bounded in calls and
in characters, since a call may hold a whole file: those used longest ago are forgotten. Used from
the event loop and from threads that render prompts.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

from isobath.chat.conversation import ToolCall

CALLS = 100_000
CHARACTERS = 64 << 20
"""Of all that is kept; 64 MiB of memory where all is ASCII, up to four times that elsewhere."""


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

    @property
    def share(self) -> int:
        """Characters of it that each of its calls answers for."""
        inner = sum(len(call.arguments) for call in self.calls) + sum(map(len, self.pieces))
        return -(-(len(self.text) + inner) // max(1, len(self.calls)))


class Replay:
    """A bounded map from call id to the block it stood in. capacity: most calls. characters: most
    of them, together; a block of more is not kept."""

    def __init__(self, capacity: int = CALLS, characters: int = CHARACTERS) -> None:
        self._capacity, self._characters = capacity, characters
        self._kept = 0  # characters
        self._blocks: OrderedDict[str, Block] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._blocks)

    def remember(self, block: Block) -> None:
        """Keep a block under the id of each of its calls."""
        if block.share * len(block.calls) > self._characters:
            return
        with self._lock:
            for call in block.calls:
                if old := self._blocks.pop(call.id, None):
                    self._kept -= old.share
                self._blocks[call.id] = block
                self._kept += block.share
            while len(self._blocks) > self._capacity or self._kept > self._characters:
                self._kept -= self._blocks.popitem(last=False)[1].share

    def find(self, call_id: str) -> Block | None:
        """The block in which a call stood, which counts as a use of it."""
        with self._lock:
            if found := self._blocks.get(call_id):
                self._blocks.move_to_end(call_id)
            return found
