"""An engine over a small random model, fed with requests by step number, and what came of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from isobath.config import EngineConfig
from isobath.engine.engine import Engine
from isobath.engine.request import Failed, Finished, Request, Token
from isobath.engine.scheduler import Step
from isobath.model.load import load
from isobath.numerics import OCP
from isobath.ops.table import bind
from tests.support.checkpoints import random_checkpoint

CPU = torch.device("cpu")
VOCAB = 151
PREFIX = [(7 * i + 3) % VOCAB for i in range(600)]
"""What prompts begin with when they share something."""

Parts = tuple[Any, ...]
"""(config, weights, ops, device): the first arguments of an Engine."""


def small_parts(folder: Path) -> Parts:
    """A small model with every layer kind."""
    random_checkpoint(
        folder, seed=6, num_hidden_layers=3, compress_ratios=[0, 4, 128], num_hash_layers=1
    )
    ops = bind("torch")
    config, weights = load(folder, numerics="native", dialect=OCP, device=CPU, ops=ops)
    return config, weights, ops, CPU


class Watched(Engine):
    """An engine that counts what its steps do. largest: most tokens of one."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seen: Counter[str] = Counter()
        self.largest = self._blocks = 0

    def _run(self, step: Step) -> None:
        counts = [s.count for s in step.scheduled]
        partial = [s for s in step.scheduled if not s.samples]
        blocks = len(self.prefixes) if self.prefixes else 0
        self.largest = max(self.largest, sum(counts))
        self.seen["steps"] += 1
        self.seen["cache hits"] += len(step.restores)
        self.seen["prompts in chunks"] += len(partial)
        self.seen["decode beside prefill"] += min(counts) == 1 and max(counts) > 1
        self.seen["evicted blocks"] += max(0, self._blocks - blocks)
        self._blocks = blocks
        super()._run(step)


@dataclass
class Got:
    """What one request was told."""

    tokens: dict[int, list[int]] = field(default_factory=dict)
    logprobs: dict[int, list[object]] = field(default_factory=dict)
    reasons: dict[int, str] = field(default_factory=dict)
    cached: int = 0
    error: str = ""


def serve(
    engine: Engine,
    arrivals: Mapping[int, Sequence[Request]],
    aborts: Mapping[int, Sequence[int]] | None = None,
) -> dict[int, Got]:
    """Feed requests and aborts by step number until nothing is left; by request id."""
    aborts = aborts or {}
    got: dict[int, Got] = {}
    step = 0
    while engine.busy or step <= max([*arrivals, *aborts], default=0):
        for request in arrivals.get(step, ()):
            got[request.id] = Got()
            engine.submit(request)
        for request_id in aborts.get(step, ()):
            engine.abort(request_id)
        for event in engine.step():
            told = got[event.request_id]
            if isinstance(event, Token):
                told.tokens.setdefault(event.index, []).append(event.token_id)
                told.logprobs.setdefault(event.index, []).append((event.logprob, event.top))
            elif isinstance(event, Finished):
                told.reasons[event.index] = event.reason
                told.cached = event.cached_tokens
            elif isinstance(event, Failed):
                told.error = event.error
        step += 1
        assert step < 5000, "the engine does not come to an end"
    return got


def alone(parts: Parts, request: Request) -> Got:
    """The request in an engine of its own, without a prefix cache, in one chunk."""
    options = EngineConfig(
        max_batched_tokens=1024, max_num_seqs=8, num_pages=64, prefix_caching=False
    )
    return serve(Engine(*parts, options), {0: [request]})[request.id]
