"""Engine: requests in, events out, one step at a time.

    engine.submit(request)
    while engine.busy:
        for event in engine.step(): ...

Synchronous and single-threaded. A request that cannot run becomes a Failed event and gives back
what it holds; an op that raises fails the requests of that step and no others.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from itertools import count

import torch

from isobath.cache.pages import PageAllocator, SlotAllocator
from isobath.cache.pool import PAGE_TOKENS, allocate_pool, copy_slot
from isobath.cache.prefix import PrefixCache
from isobath.config import EngineConfig, ModelConfig
from isobath.engine.capacity import resolve
from isobath.engine.constraint import Constraint
from isobath.engine.grammar import Grammars
from isobath.engine.holding import Held, Holding
from isobath.engine.request import Event, Failed, Finished, Prompt, Request, Sequence, Token
from isobath.engine.runner import Runner
from isobath.engine.sampling import Choice, Sampler, logprobs
from isobath.engine.scheduler import Scheduled, Scheduler, Step
from isobath.engine.statistics import Counters, EngineStatistics
from isobath.errors import IsobathError
from isobath.model.batch import Chunk
from isobath.model.weights import ModelWeights
from isobath.ops.table import OpTable

_log = logging.getLogger(__name__)


class Engine:
    """A loaded model that serves requests: owns the pool, its pages, slots and prefixes. capacity:
    what they hold, decided from `options` before anything is allocated, and logged. grammars: of
    requests with a structure, which are refused without."""

    def __init__(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        ops: OpTable,
        device: torch.device,
        options: EngineConfig,
        grammars: Grammars | None = None,
    ) -> None:
        self.config, self.weights, self.ops, self.options = config, weights, ops, options
        plain = weights.dtype == torch.float32
        self.capacity = resolve(config, options, plain=plain, device=device)
        slots, snapshots = options.max_num_seqs + 1, self.capacity.num_snapshots
        pages = self.capacity.num_pages + 1
        self.pool = allocate_pool(
            config,
            slots=slots,
            snapshots=snapshots,
            pages=pages,
            staging=options.max_batched_tokens,
            dialect=weights.dialect,
            plain=plain,
            device=device,
            revision=weights.revision,
        )
        self.pages = PageAllocator(pages)
        self.slots = SlotAllocator(1, options.max_num_seqs)
        self.snapshots = SlotAllocator(slots, snapshots)
        self.prefixes = (
            PrefixCache(str(self.pool.tags), self.pages, self.snapshots)
            if options.prefix_caching
            else None
        )
        self.scheduler = Scheduler(
            self.pages,
            self.slots,
            self.prefixes,
            max_batched_tokens=options.max_batched_tokens,
        )
        self.runner = Runner(config, weights, ops, self.pool, device, options)
        self.counters = Counters()
        self.grammars, self.holding = grammars, Holding()
        self._order = count()
        self._now = 0.0  # when the last step's logits were there
        self._events: deque[Event] = deque()
        self.capacity.announce()

    @property
    def busy(self) -> bool:
        """Whether step() has anything to do or to tell."""
        return bool(self._at_work or self.holding)

    @property
    def blocked(self) -> bool:
        """Whether all that is left waits for grammars, as step() would do, too."""
        return bool(self.holding) and not (self._at_work or self.holding.ready)

    @property
    def _at_work(self) -> bool:
        return bool(self._events or self.scheduler.running or self.scheduler.waiting)

    def statistics(self) -> EngineStatistics:
        """What has been counted so far, and what is going on now."""
        scheduler, counters = self.scheduler, self.counters
        return EngineStatistics(
            running=len(scheduler.running),
            waiting=len(scheduler.waiting) + len(self.holding),
            kv_cache_usage=scheduler.usage(),
            prompt_tokens=counters.prompt_tokens,
            generation_tokens=counters.generation_tokens,
            preemptions=scheduler.num_preemptions,
            prefix_queries=scheduler.prefix_queries,
            prefix_hits=scheduler.prefix_hits,
            step_tokens=tuple(counters.step_tokens),
            computed_tokens=counters.computed_tokens,
            num_pages=self.capacity.num_pages,
            page_tokens=PAGE_TOKENS,
        )

    def submit(self, request: Request) -> None:
        """Queue a request. One that could never run is answered by a Failed event."""
        tokens = len(request.token_ids) + request.params.max_tokens
        if not self.scheduler.fits(tokens):
            room = self.capacity.tokens
            text = f"{tokens} tokens with the completion, and the cache holds {room}"
            self._events.append(Failed(request.id, text, "invalid_request"))
        elif request.params.structure is None:
            self._add(request, 0)
        elif self.grammars is None:
            text = "structured output: this engine has no tokenizer"
            self._events.append(Failed(request.id, text, "invalid_request"))
        else:
            self.holding.add(request, self.grammars.ticket(request.params.structure))

    def abort(self, request_id: int, index: int | None = None) -> None:
        """End a request, or one of its completions, at once; unknown ids are ignored."""
        for sequence in [*self.scheduler.running, *self.scheduler.waiting]:
            if sequence.request.id == request_id and index in (None, sequence.index):
                self._end(sequence, "abort")
        if not index and self.holding.remove(request_id):
            self._events.append(Finished(request_id, 0, "abort"))

    def reset_prefix_cache(self) -> None:
        """Forget every cached block that no running sequence holds."""
        if self.prefixes is not None:
            known = len(self.prefixes)
            freed = self.prefixes.evict(known)
            _log.info("prefix cache reset: %d of %d blocks forgotten", freed, known)

    def step(self) -> list[Event]:
        """Compute one step and return everything there is to tell."""
        if self.blocked:
            self.holding.wait()
        for held in self.holding.take():
            self._take_in(held)
        step = self.scheduler.schedule()
        if step.scheduled:
            try:
                self._run(step)
            except Exception as error:
                self._fail(step, error)
        idle = not (self.scheduler.running or self.scheduler.waiting)
        if self.options.check == "step" or (self.options.check == "idle" and idle):
            self.check()
        events = list(self._events)
        self._events.clear()
        return events

    def check(self) -> None:
        """Assert that every page and slot is free or owned, and owned as often as it is held."""
        running = self.scheduler.running
        held: list[Iterable[int]] = [s.pages for s in running]
        held.append(self.prefixes.held_pages() if self.prefixes else [])
        self.pages.check(held)
        self.slots.check(s.slot for s in running)
        self.snapshots.check(self.prefixes.held_snapshots() if self.prefixes else [])

    @torch.inference_mode()
    def _run(self, step: Step) -> None:
        for snapshot, slot in step.restores:
            copy_slot(self.pool, snapshot, slot)
        output = self.runner.run([_chunk(s) for s in step.scheduled])
        parts: list[tuple[Scheduled, slice, list[int]]] = []
        rows: list[int] = []
        begin = 0
        for scheduled in step.scheduled:
            first, end = len(rows), begin + _logits_count(scheduled)
            if _reads_logits(scheduled):
                rows.extend(range(begin, end))
            parts.append((scheduled, slice(first, len(rows)), output.greedy[begin:end]))
            begin = end
        logits = output.on_host(rows)
        self._now = time.monotonic()
        self.counters.step(sum(s.count for s in step.scheduled))
        for scheduled, own, greedy in parts:
            self._advance(scheduled, logits[own], greedy)

    def _advance(self, scheduled: Scheduled, logits: torch.Tensor, greedy: list[int]) -> None:
        """Account for one sequence's part of a step, and sample if it reached the last token.
        logits: its rows on the CPU, none if _reads_logits() says so."""
        sequence = scheduled.sequence
        key = self.scheduler.commit(scheduled)
        if key is not None and self.prefixes is not None:
            snapshot = self.prefixes.snapshot_for(key)
            if snapshot is not None:
                copy_slot(self.pool, sequence.slot, snapshot)
        if sequence.tells_prompt:
            self._tell_prompt(scheduled, logits)
        if not scheduled.samples:
            return
        first = not sequence.generated
        if sequence.sampler.plain:
            choice = Choice(greedy[-1])
        else:
            choice = sequence.sampler.choose(logits[-1], sequence.tokens[sequence.prompt_len :])
        self._accept(sequence, choice)
        if first and sequence.index == 0:
            for index in range(1, sequence.request.params.n):
                constraint = sequence.sampler.constraint
                self._add(sequence.request, index, constraint and constraint.again())

    def _accept(self, sequence: Sequence, choice: Choice) -> None:
        params, request = sequence.request.params, sequence.request
        if not sequence.first:
            sequence.first = self._now
            self.counters.prompt_tokens += sequence.prompt_len if sequence.index == 0 else 0
        sequence.last = self._now
        self.counters.generation_tokens += 1
        sequence.tokens.append(choice.token)
        self._events.append(
            Token(request.id, sequence.index, choice.token, choice.logprob, choice.top)
        )
        constraint = sequence.sampler.constraint
        if sequence.sampler.ends(choice.token):
            self._end(sequence, "stop")
            return
        if constraint is not None:
            constraint.accept(choice.token)
            if constraint.stuck:
                self._fail_one(request.id, constraint.stuck)
                return
            if constraint.complete:
                self._end(sequence, "stop")
                return
        if sequence.generated >= params.max_tokens:
            self._end(sequence, "length")

    def _tell_prompt(self, scheduled: Scheduled, logits: torch.Tensor) -> None:
        """Log-probabilities of the prompt tokens that this chunk predicted."""
        sequence, number = scheduled.sequence, scheduled.sequence.request.params.prompt_logprobs
        assert number is not None
        for place, row in enumerate(logits, start=scheduled.start + 1):
            if place < sequence.prompt_len:
                choice = logprobs(row, sequence.tokens[place], number)
                assert choice.logprob is not None
                self._events.append(Prompt(sequence.request.id, place, choice.logprob, choice.top))

    def _take_in(self, held: Held) -> None:
        """Queue a request whose grammar is done, if it can be followed."""
        request, structure, ticket = held.request, held.request.params.structure, held.ticket
        assert self.grammars is not None and structure is not None
        if ticket.grammar is None:
            self._events.append(Failed(request.id, str(ticket.error), "invalid_request"))
            return
        vocabulary = self.grammars.vocabulary
        reasoning = structure.reasoning
        if reasoning is None:
            reasoning = vocabulary.reasons(request.token_ids)
        calls = structure.kind == "tools"
        constraint = Constraint(ticket.grammar, vocabulary, reasoning=reasoning, calls=calls)
        if constraint.stuck:
            self._events.append(Failed(request.id, constraint.stuck, "invalid_request"))
        else:
            self._add(request, 0, constraint, held.since)

    def _add(
        self,
        request: Request,
        index: int,
        constraint: Constraint | None = None,
        since: float | None = None,
    ) -> None:
        """Queue a completion. since: when its request came, if that is not now."""
        tokens = list(request.token_ids)
        sampler = Sampler(request.params, tokens, index, self.config.eos_token_id, constraint)
        sequence = Sequence(request, index, next(self._order), sampler, tokens, len(tokens))
        sequence.queued = since or time.monotonic()
        self.scheduler.add(sequence)

    def _end(self, sequence: Sequence, reason: str) -> None:
        self.scheduler.remove(sequence)
        cached, times = sequence.cached_tokens, sequence.times
        self._events.append(Finished(sequence.request.id, sequence.index, reason, cached, times))

    def _fail(self, step: Step, error: Exception) -> None:
        """End every request of a step that raised; what it left in the caches is never read."""
        text = (
            error.asked if isinstance(error, IsobathError) else f"{type(error).__name__}: {error}"
        )
        for request_id in sorted({s.sequence.request.id for s in step.scheduled}):
            self._fail_one(request_id, text)

    def _fail_one(self, request_id: int, text: str) -> None:
        """End a request and all its completions."""
        for sequence in [*self.scheduler.running, *self.scheduler.waiting]:
            if sequence.request.id == request_id:
                self.scheduler.remove(sequence)
        self._events.append(Failed(request_id, text))


def _chunk(scheduled: Scheduled) -> Chunk:
    s = scheduled.sequence
    tokens = s.tokens[scheduled.start : scheduled.start + scheduled.count]
    wanted = "last" if scheduled.samples else "none"
    if s.tells_prompt:
        wanted = "all"
    return Chunk(tokens, scheduled.start, s.slot, s.pages, wanted)


def _logits_count(scheduled: Scheduled) -> int:
    s = scheduled.sequence
    if s.tells_prompt:
        return scheduled.count
    return int(scheduled.samples)


def _reads_logits(scheduled: Scheduled) -> bool:
    """Whether more than the best token of its rows is needed."""
    s = scheduled.sequence
    return s.tells_prompt or (scheduled.samples and not s.sampler.plain)
