"""Runner: sequences through the model, step by step, until each is finished.

Every step packs as many pending tokens as the budget holds: whole or partial prompts and the last
token of each running sequence alike. All sequences of one call are admitted at once, to a pool that
is allocated for exactly them; queues, preemption and page sharing are not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from isobath.cache.pool import PAGE_TOKENS, CachePool, allocate_pool
from isobath.config import ModelConfig
from isobath.engine.sampling import Sampler, sample
from isobath.model.batch import BatchBuilder, Chunk
from isobath.model.v4 import forward
from isobath.model.weights import ModelWeights
from isobath.ops.table import OpTable


@dataclass(slots=True)
class Running:
    """One sequence.

    tokens: prompt, then what was generated. computed: how many of them the caches hold.
    finish_reason: "" while it runs, then "stop" or "length".
    """

    tokens: list[int]
    sampler: Sampler
    eos: int
    slot: int = 0
    pages: list[int] = field(default_factory=list)
    computed: int = 0
    prompt_len: int = 0
    finish_reason: str = ""

    def __post_init__(self) -> None:
        self.prompt_len = len(self.tokens)

    def accept(self, token: int) -> None:
        """Append a generated token and see whether it was the last."""
        self.tokens.append(token)
        params = self.sampler.params
        if token == self.eos and not params.ignore_eos:
            self.finish_reason = "stop"
        elif len(self.tokens) - self.prompt_len >= params.max_tokens:
            self.finish_reason = "length"


class Runner:
    """A model ready to run. max_batched_tokens: most tokens of one step."""

    def __init__(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        ops: OpTable,
        device: torch.device,
        *,
        max_batched_tokens: int,
    ) -> None:
        self.config, self.weights, self.ops, self.device = config, weights, ops, device
        self.max_batched_tokens = max_batched_tokens

    def run(self, sequences: Sequence[Running]) -> Iterator[tuple[int, int]]:
        """Generate until every sequence is finished; yields (index of sequence, new token)."""
        lengths = [len(s.tokens) + s.sampler.params.max_tokens for s in sequences]
        pool = self._admit(lengths)
        builder = BatchBuilder(self.config, pool, self.device)
        next_page = 1
        for slot, (sequence, length) in enumerate(zip(sequences, lengths, strict=True), start=1):
            count = -(-length // PAGE_TOKENS)
            sequence.slot, sequence.pages = slot, list(range(next_page, next_page + count))
            next_page += count
        while running := [i for i, s in enumerate(sequences) if not s.finish_reason]:
            scheduled = self._schedule(sequences, running)
            logits = self._step(pool, builder, [chunk for _, chunk in scheduled])
            ready = [i for i, chunk in scheduled if chunk.logits == "last"]
            for i, token in zip(
                ready, sample(logits, [sequences[i].sampler for i in ready]), strict=True
            ):
                sequences[i].accept(token)
                yield i, token

    def score(self, token_ids: Sequence[int], chunk_size: int) -> torch.Tensor:
        """Float32 logits [T, vocab] of every position, computed `chunk_size` tokens a step."""
        pool = self._admit([len(token_ids)])
        builder = BatchBuilder(self.config, pool, self.device)
        pages = range(1, pool.pages)
        logits = [
            self._step(
                pool,
                builder,
                [Chunk(token_ids[start : start + chunk_size], start, 1, pages, logits="all")],
            )
            for start in range(0, len(token_ids), chunk_size)
        ]
        return torch.cat(logits).cpu()

    def _admit(self, lengths: Sequence[int]) -> CachePool:
        return allocate_pool(
            self.config,
            slots=len(lengths) + 1,
            pages=sum(-(-n // PAGE_TOKENS) for n in lengths) + 1,
            staging=max(self.max_batched_tokens, len(lengths)),
            dialect=self.weights.dialect,
            plain=self.weights.dtype == torch.float32,
            device=self.device,
        )

    def _schedule(
        self, sequences: Sequence[Running], running: Sequence[int]
    ) -> list[tuple[int, Chunk]]:
        """The next chunk of each sequence, oldest first, within the step's token budget."""
        budget, scheduled = max(self.max_batched_tokens, len(running)), []
        for position, i in enumerate(running):
            s = sequences[i]
            reserved = len(running) - position - 1  # one token for each sequence still to come
            count = min(len(s.tokens) - s.computed, budget - reserved)
            end = s.computed + count
            last = "last" if end == len(s.tokens) else "none"
            scheduled.append(
                (i, Chunk(s.tokens[s.computed : end], s.computed, s.slot, s.pages, last))
            )
            s.computed, budget = end, budget - count
        return scheduled

    @torch.inference_mode()
    def _step(
        self, pool: CachePool, builder: BatchBuilder, chunks: Sequence[Chunk]
    ) -> torch.Tensor:
        return forward(self.config, self.weights, self.ops, pool, builder.build(chunks))
