"""Which replica takes a request: one rule, for engine processes behind one door and for Ray Serve.

The rule, in this order:

1. A session stays where it is, as long as that replica lives.
2. The replica that has seen the longest beginning of the prompt takes it, unless it is overloaded:
   unless its load is more than `margin` above the least loaded one's. Of several that have seen
   equally much, the least loaded.
3. Otherwise the least loaded one. Of several, a prompt of at least one block goes where the hash of
   its first block and the replica's name points, so that routers that know nothing of each other
   agree while there is little to do; a shorter one to whichever was chosen least recently.

A beginning is counted in whole blocks, those of the engines' prefix cache, each known by a hash of
everything up to its end. What a replica has seen is remembered here, at most `most_blocks` of them,
least recently used first to be forgotten; nothing is asked of the engines, so a memory may outlive
the cache's. Load is what the caller counts: completions under way.

Does no locking, knows no engine and no clock.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from isobath.cache.prefix import BLOCK_TOKENS

MARGIN = 8
"""An answer's worth of waiting: eight completions share a decode step with little loss of speed
each, while a prompt computed twice costs the whole engine its length."""
MOST_BLOCKS = 1 << 16
"""8M tokens a replica: more than a cache holds beside V4-Flash's weights in 192 GB; 10 MB here."""
MOST_SESSIONS = 1 << 16
KEY_BYTES = 16

Name = TypeVar("Name", bound=str | int)


def block_keys(tokens: Sequence[int]) -> tuple[bytes, ...]:
    """A key for each whole block of `tokens`; equal keys mean equal tokens up to its end."""
    whole = len(tokens) // BLOCK_TOKENS
    blocks = np.asarray(tokens[: whole * BLOCK_TOKENS], dtype=np.int64).reshape(whole, BLOCK_TOKENS)
    keys, parent = [], b""
    for block in blocks:
        parent = hashlib.blake2b(parent + block.tobytes(), digest_size=KEY_BYTES).digest()
        keys.append(parent)
    return tuple(keys)


class Affinity(Generic[Name]):
    """What each replica has seen, and the rule. Replicas are known by name: those in `loads`."""

    def __init__(
        self,
        *,
        margin: int = MARGIN,
        most_blocks: int = MOST_BLOCKS,
        most_sessions: int = MOST_SESSIONS,
    ) -> None:
        self.margin = margin
        self._most_blocks, self._most_sessions = most_blocks, most_sessions
        self._seen: dict[Name, OrderedDict[bytes, None]] = {}  # oldest first
        self._sessions: OrderedDict[bytes, Name] = OrderedDict()  # by digest, oldest first
        self._chosen: dict[Name, int] = {}  # when last, in requests
        self._clock = 0

    def choose(
        self, keys: Sequence[bytes], session: str | None, loads: Mapping[Name, float]
    ) -> Name:
        """The replica for a prompt of these block keys. loads: of those that can take it, at least
        one. Changes nothing; routed() does."""
        home = self._sessions.get(_digest(session)) if session is not None else None
        if home is not None and home in loads:
            return home
        least = min(loads.values())
        depths = {name: self.matched(keys, name) for name in loads}
        deepest = max(depths.values())
        if deepest:
            knowing = [name for name in loads if depths[name] == deepest]
            best = min(knowing, key=lambda name: (loads[name], self._turn(keys, name)))
            if loads[best] <= least + self.margin:
                return best
        idle = [name for name in loads if loads[name] == least]
        return min(idle, key=lambda name: self._turn(keys, name))

    def routed(self, keys: Sequence[bytes], session: str | None, name: Name) -> None:
        """Remember that `name` took the prompt."""
        self._clock += 1
        self._chosen[name] = self._clock
        seen = self._seen.setdefault(name, OrderedDict())
        for key in reversed(keys):  # a beginning must not be forgotten before what continues it
            seen[key] = None
            seen.move_to_end(key)
        while len(seen) > self._most_blocks:
            seen.popitem(last=False)
        if session is not None:
            key = _digest(session)
            self._sessions[key] = name
            self._sessions.move_to_end(key)
            if len(self._sessions) > self._most_sessions:
                self._sessions.popitem(last=False)

    def forget(self, name: Name) -> None:
        """`name` is gone, or came back with an empty cache. Its sessions go where the rule says."""
        self._seen.pop(name, None)
        self._chosen.pop(name, None)
        for session in [s for s, home in self._sessions.items() if home == name]:
            del self._sessions[session]

    def matched(self, keys: Sequence[bytes], name: Name) -> int:
        """Blocks at the beginning that `name` has seen."""
        seen = self._seen.get(name, ())
        for depth, key in enumerate(keys):
            if key not in seen:
                return depth
        return len(keys)

    def known(self, name: Name) -> int:
        """Blocks remembered of `name`."""
        return len(self._seen.get(name, ()))

    def _turn(self, keys: Sequence[bytes], name: Name) -> int:
        """The smaller the sooner, among equally loaded ones."""
        if not keys:
            return self._chosen.get(name, 0)
        digest = hashlib.blake2b(keys[0] + str(name).encode(), digest_size=8).digest()
        return int.from_bytes(digest)


def _digest(session: str) -> bytes:
    """What is kept of a session's name, which its client may have made as long as it liked."""
    return hashlib.blake2b(session.encode("utf-8", "replace"), digest_size=KEY_BYTES).digest()
