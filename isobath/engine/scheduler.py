"""Scheduler: which tokens of which sequences the next step computes, and who holds what for it.

Each step has a budget of tokens. Running sequences come first, decode before prefill, so a long
prompt never holds up a token that somebody waits for; what is left admits waiting sequences, first
come first served. A prompt longer than the budget is computed in chunks. When pages run out the
prefix cache gives up its oldest; when that is not enough the youngest sequence is preempted: it
returns its slot and pages and waits at its old place in line, to be computed again. The oldest can
always go on, because a sequence that could not run alone is refused on arrival: nothing waits for
ever.

All bookkeeping is Python integers; no tensor is touched here.
"""

from __future__ import annotations

import time
from bisect import insort
from dataclasses import dataclass

from isobath.cache.pages import PageAllocator, SlotAllocator
from isobath.cache.pool import PAGE_TOKENS
from isobath.cache.prefix import BLOCK_TOKENS, Hit, PrefixCache
from isobath.engine.request import Sequence


@dataclass(slots=True)  # not frozen, which would make its creation three times as slow
class Scheduled:
    """Tokens [start, start + count) of a sequence. samples: they reach its last token."""

    sequence: Sequence
    start: int
    count: int
    samples: bool


@dataclass(slots=True)
class Step:
    """One step's work. restores: (snapshot slot, sequence slot) copies to make before it."""

    scheduled: list[Scheduled]
    restores: list[tuple[int, int]]
    budget: int


def pages_for(num_tokens: int) -> int:
    """Pages that hold a sequence of that many tokens."""
    return -(-num_tokens // PAGE_TOKENS)


class Scheduler:
    """Owner of the waiting line and of the running set. prefixes: None turns prefix caching off."""

    def __init__(
        self,
        pages: PageAllocator,
        slots: SlotAllocator,
        prefixes: PrefixCache | None,
        *,
        max_batched_tokens: int,
    ) -> None:
        self.pages, self.slots, self.prefixes = pages, slots, prefixes
        self.max_batched_tokens = max_batched_tokens
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.num_preemptions = 0
        self.prefix_queries, self.prefix_hits = 0, 0

    def fits(self, num_tokens: int) -> bool:
        """Whether a sequence of that many tokens can run when it is alone."""
        return pages_for(num_tokens) <= self.pages.count - 1

    def usage(self) -> float:
        """Share of the pages that running sequences hold."""
        held: set[int] = set()
        for sequence in self.running:
            held.update(sequence.pages)
        return len(held) / max(1, self.pages.count - 1)

    def add(self, sequence: Sequence) -> None:
        """Put a sequence in line at the place its order gives it."""
        insort(self.waiting, sequence, key=_order)

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, waiting or running, and return what it holds."""
        if sequence.slot:
            self.running.remove(sequence)
            self._release(sequence)
        else:
            self.waiting.remove(sequence)

    def schedule(self) -> Step:
        """Choose the next step's tokens and give every sequence in it the pages they need."""
        step = Step([], [], self.max_batched_tokens)
        prefill: list[Sequence] = []
        for sequence in self.running.copy():
            if len(sequence.tokens) - sequence.computed != 1:
                prefill.append(sequence)
            elif step.budget and sequence.slot:
                self._decode(sequence, step)
        for sequence in prefill:
            if step.budget and sequence.slot:
                self._continue(sequence, step)
        while step.budget and self.waiting and self._admit(self.waiting[0], step):
            self.waiting.pop(0)
        return step

    def commit(self, scheduled: Scheduled) -> bytes | None:
        """Record that the tokens are in the caches. Returns the key of the block they completed if
        its end is where the sequence now stands: the moment at which a snapshot can be taken."""
        sequence = scheduled.sequence
        sequence.computed = scheduled.start + scheduled.count
        blocks = sequence.computed // BLOCK_TOKENS
        if self.prefixes is None or blocks == scheduled.start // BLOCK_TOKENS:
            return None
        salt = sequence.request.params.cache_salt
        self.prefixes.extend(sequence.keys, sequence.tokens, blocks, salt)
        self.prefixes.insert(sequence.keys[:blocks], sequence.pages[:blocks])
        at_boundary = sequence.computed % BLOCK_TOKENS == 0
        return sequence.keys[blocks - 1] if at_boundary else None

    def _decode(self, sequence: Sequence, step: Step) -> None:
        """_continue() for one token, which mostly has its page already."""
        start = sequence.computed
        if start < len(sequence.pages) * PAGE_TOKENS or self._grow(sequence, start + 1, step):
            step.scheduled.append(Scheduled(sequence, start, 1, True))
            step.budget -= 1

    def _continue(self, sequence: Sequence, step: Step) -> None:
        count = self._chunk(sequence, step.budget)
        if self._grow(sequence, sequence.computed + count, step):
            self._put(sequence, count, step)

    def _admit(self, sequence: Sequence, step: Step) -> bool:
        """Start a waiting sequence if a slot and its prompt's pages can be had without preempting
        anyone."""
        hit = self._match(sequence)
        shared = hit.pages if hit else []
        needed = pages_for(len(sequence.tokens)) - len(shared)
        slot = self.slots.take() if self._reserve(needed) else None
        pages = self.pages.allocate(needed) if slot is not None else None
        if slot is None or pages is None:
            for page in shared:
                self.pages.release(page)
            return False
        sequence.slot, sequence.pages = slot, [*shared, *pages]
        if hit:
            sequence.computed = hit.tokens
            step.restores.append((hit.snapshot, slot))
        if not sequence.preemptions:
            self._note_start(sequence)
        insort(self.running, sequence, key=_order)
        self._put(sequence, self._chunk(sequence, step.budget), step)
        return True

    def _note_start(self, sequence: Sequence) -> None:
        """A sequence that was never here before is about to begin."""
        sequence.scheduled, sequence.cached_tokens = time.monotonic(), sequence.computed
        if self.prefixes is not None and not sequence.tells_prompt:
            self.prefix_queries += len(sequence.tokens)
            self.prefix_hits += sequence.computed

    def _match(self, sequence: Sequence) -> Hit | None:
        if self.prefixes is None or sequence.tells_prompt:
            return None  # logits of every prompt position are wanted, so every one is computed
        salt = sequence.request.params.cache_salt
        return self.prefixes.match(sequence.keys, sequence.tokens, salt)

    def _chunk(self, sequence: Sequence, budget: int) -> int:
        """Tokens to compute now. A chunk ends at the prompt's last block boundary if it would cross
        it, so that the state there can be kept."""
        count = min(sequence.pending, budget)
        if self.prefixes is not None and sequence.pending > 1:
            boundary = (len(sequence.tokens) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
            if sequence.computed < boundary < sequence.computed + count:
                count = boundary - sequence.computed
        return count

    def _put(self, sequence: Sequence, count: int, step: Step) -> None:
        start = sequence.computed
        samples = start + count == len(sequence.tokens)
        step.scheduled.append(Scheduled(sequence, start, count, samples))
        step.budget -= count

    def _grow(self, sequence: Sequence, num_tokens: int, step: Step) -> bool:
        """Give a running sequence pages for `num_tokens`, preempting younger ones if need be. False
        when it had to be preempted itself."""
        needed = pages_for(num_tokens) - len(sequence.pages)
        while needed > 0:
            if self._reserve(needed) and (pages := self.pages.allocate(needed)) is not None:
                sequence.pages.extend(pages)
                break
            victim = self.running[-1]
            self._preempt(victim, step)
            if victim is sequence:
                return False
        return True

    def _reserve(self, count: int) -> bool:
        """Make `count` pages free, out of the prefix cache if need be."""
        missing = count - self.pages.num_free
        if missing > 0 and self.prefixes is not None:
            self.prefixes.evict(missing)
        return self.pages.num_free >= count

    def _preempt(self, sequence: Sequence, step: Step) -> None:
        """Send a running sequence back to the line; drops it from `step` if it was in there."""
        for scheduled in [s for s in step.scheduled if s.sequence is sequence]:
            step.scheduled.remove(scheduled)
            step.budget += scheduled.count
        self.running.remove(sequence)
        self._release(sequence)
        sequence.preemptions += 1
        self.num_preemptions += 1
        self.add(sequence)

    def _release(self, sequence: Sequence) -> None:
        for page in sequence.pages:
            self.pages.release(page)
        self.slots.give(sequence.slot)
        sequence.pages, sequence.slot, sequence.computed = [], 0, 0


def _order(sequence: Sequence) -> int:
    return sequence.order
