"""What an engine counts about itself, and the record that leaves its process.

Counters only ever grow, so any number of readers (metrics, log line, status page) take what they
want from the latest record and none needs to see every one. Counting is a few integer additions a
step. The share of the cache in use has to be asked of every running sequence, so it is not counted
but found out when a record is made; a Meter decides when that is worth its time.

Times are of the machine's monotonic clock, which is the same in every process.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field

STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
"""Upper edges of the histogram of tokens a step; one more bucket holds what is larger."""
INTERVAL_SECONDS = 0.05
SHARE = 0.01
"""Most of a busy engine's time that records may take."""


@dataclass(frozen=True, slots=True)
class EngineStatistics:
    """One engine at one moment.

    running, waiting: sequences. kv_cache_usage: share of the pages held by running sequences, 0..1;
    a page that only the prefix cache holds is as good as free. prompt_tokens: of prompts whose
    first token has come, cached ones included. preemptions: sequences sent back to the line.
    prefix_queries, prefix_hits: tokens looked up in the prefix cache, and found. step_tokens: steps
    by the tokens they computed, in the buckets of STEP_TOKENS; computed_tokens: their sum.
    num_pages: of the cache, page_tokens tokens each. engine: its place among replicas.
    """

    running: int = 0
    waiting: int = 0
    kv_cache_usage: float = 0.0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    preemptions: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    step_tokens: tuple[int, ...] = (0,) * (len(STEP_TOKENS) + 1)
    computed_tokens: int = 0
    num_pages: int = 0
    page_tokens: int = 0
    engine: int = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is asked of the engine."""
        return not (self.running or self.waiting)


@dataclass(frozen=True, slots=True)
class BoundOp:
    """One op of the plan: the backend that computes it, why, and why not each other one."""

    op: str
    backend: str
    reason: str
    rejected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What does not change while an engine lives. device, arch: of its GPU or CPU. dialect: of FP8
    bytes in memory. cache_bytes: of all caches. max_num_seqs: most that run at once. ops: the
    plan."""

    device: str
    arch: str
    dialect: str
    numerics: str
    num_pages: int
    page_tokens: int
    max_num_seqs: int
    cache_bytes: int
    ops: tuple[BoundOp, ...]


@dataclass(frozen=True, slots=True)
class Times:
    """When things happened to a sequence, in seconds. queued: it reached the engine. scheduled:
    its first token was chosen for a step. first, last: its first and last new token were there."""

    queued: float
    scheduled: float
    first: float
    last: float


@dataclass(slots=True)
class Counters:
    """What an engine adds to while it works."""

    prompt_tokens: int = 0
    generation_tokens: int = 0
    computed_tokens: int = 0
    step_tokens: list[int] = field(default_factory=lambda: [0] * (len(STEP_TOKENS) + 1))

    def step(self, tokens: int) -> None:
        """A step of that many tokens was computed."""
        self.computed_tokens += tokens
        self.step_tokens[bisect_left(STEP_TOKENS, tokens)] += 1


class Meter:
    """When an engine's record is sent. take: makes one. A busy engine's is due every
    INTERVAL_SECONDS, or later if making it takes more than SHARE of that; an idle one's once."""

    def __init__(self, take: Callable[[], EngineStatistics]) -> None:
        self._take = take
        self._due = 0.0
        self._told_idle = False

    def reading(self, *, idle: bool) -> EngineStatistics | None:
        """A record if one is due now."""
        now = time.monotonic()
        told, self._told_idle = self._told_idle, idle
        if told if idle else now < self._due:
            return None
        record = self._take()
        self._due = now + max(INTERVAL_SECONDS, (time.monotonic() - now) / SHARE)
        return record
