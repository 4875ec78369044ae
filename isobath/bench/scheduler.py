"""What the engine's bookkeeping costs: Python time of a decode step whose model computes nothing.

    isobath bench scheduler [--steps 128] [--context 2048]

Prompts of about `context` different tokens are brought into steady decode, staggered so that every
step completes some blocks. A step is then everything that Engine.step does besides building the
batch and the forward pass: schedule, commit, prefix cache, acceptance of a greedy token, events.
Time is this process's CPU time, which other load on the machine hardly changes.
"""

from __future__ import annotations

import cProfile
import gc
import io
import json
import pstats
import statistics
import time
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from isobath.cache.prefix import BLOCK_TOKENS
from isobath.config import EngineConfig
from isobath.engine.engine import Engine
from isobath.engine.request import Request
from isobath.engine.sampling import SamplingParams
from isobath.engine.scheduler import Step, pages_for
from isobath.model.weights import HyperWeights, ModelWeights
from isobath.numerics import OCP
from isobath.ops.table import bind
from isobath.plan import flash_config

SEQUENCES = (1, 64, 256, 1024)
LIMIT_US = 5000.0
"""Of a step of 1,024 sequences."""
PROFILE_ROWS = 12


class _Bookkeeping(Engine):
    """An engine whose every forward pass predicts the token 2 without being run."""

    def _run(self, step: Step) -> None:
        nothing = torch.empty(0)
        for scheduled in step.scheduled:
            self._advance(scheduled, nothing, [2])


def engine_of(sequences: int, context: int, steps: int) -> _Bookkeeping:
    """An engine with room for `sequences` of them, over a model of one narrow layer."""
    config = replace(
        flash_config(), num_hidden_layers=1, compress_ratios=(0,), head_dim=64, qk_rope_head_dim=16
    )
    options = EngineConfig(
        max_batched_tokens=sequences,
        max_num_seqs=sequences,
        num_pages=sequences * (pages_for(context + BLOCK_TOKENS + steps) + 1),
    )
    none = torch.empty(0)
    weights = ModelWeights(
        embed=none,
        layers=(),
        hyper_head=HyperWeights(none, none, none),
        norm=none,
        head=none,
        dialect=OCP,
        dtype=torch.bfloat16,
        revision="none",
    )
    return _Bookkeeping(config, weights, bind("torch"), torch.device("cpu"), options)


def in_decode(sequences: int, context: int, steps: int) -> _Bookkeeping:
    """An engine in which that many sequences have been prefilled and will not end in `steps`."""
    engine = engine_of(sequences, context, steps)
    vocab = engine.config.vocab_size
    params = SamplingParams(max_tokens=2 * steps + BLOCK_TOKENS, ignore_eos=True)
    for i in range(sequences):
        tokens = ((i * 7919 + j) % vocab for j in range(context + i % BLOCK_TOKENS))
        engine._add(Request(i, tuple(tokens), params), 0)
    budget = engine.scheduler.max_batched_tokens
    engine.scheduler.max_batched_tokens = 2 * sequences * (context + BLOCK_TOKENS)
    while engine.scheduler.waiting or any(s.pending > 1 for s in engine.scheduler.running):
        engine.step()
    engine.scheduler.max_batched_tokens = budget
    gc.collect()
    gc.freeze()  # what was built so far is not the step's garbage
    return engine


def measure(sequences: int, context: int, steps: int) -> dict[str, float]:
    """CPU microseconds of a step: median, mean and 99th percentile of `steps`."""
    engine = in_decode(sequences, context, steps)
    times = []
    for _ in range(steps):
        start = time.process_time_ns()
        events = engine.step()
        times.append((time.process_time_ns() - start) / 1000)
        assert len(events) == sequences, (len(events), sequences)
    worst = sorted(times)[int(0.99 * (len(times) - 1))]
    return {"median": statistics.median(times), "mean": statistics.fmean(times), "p99": worst}


def profile(sequences: int, context: int, steps: int) -> str:
    """cProfile's rows with the most time of their own over `steps` steps."""
    engine = in_decode(sequences, context, steps)
    watch = cProfile.Profile()
    watch.enable()
    for _ in range(steps):
        engine.step()
    watch.disable()
    text = io.StringIO()
    stats = pstats.Stats(watch, stream=text).strip_dirs().sort_stats("tottime")
    stats.print_stats(PROFILE_ROWS)
    return text.getvalue().strip()


def run(*, steps: int = 128, context: int = 2048) -> dict[str, Any]:
    """Measure and print. step_us: by number of sequences. per_sequence_us: mean over the number.
    within_limit: whether the mean of the largest number stays under LIMIT_US."""
    rows = {n: measure(n, context, steps) for n in SEQUENCES}
    table = Table(
        "sequences", "median us", "mean us", "p99 us", "us a sequence", title="one decode step"
    )
    for n, row in rows.items():
        figures = (*row.values(), row["mean"] / n)
        table.add_row(f"{n:,}", *(f"{figure:,.1f}" for figure in figures))
    console = Console()
    console.print(table)
    largest = max(SEQUENCES)
    console.print(profile(largest, context, steps // 4), highlight=False, soft_wrap=True)
    return {
        "context": context,
        "steps": steps,
        "step_us": rows,
        "per_sequence_us": {n: row["mean"] / n for n, row in rows.items()},
        "limit_us": LIMIT_US,
        "within_limit": rows[largest]["mean"] < LIMIT_US,
    }


def main(*, steps: int = 128, context: int = 2048) -> None:
    """Run the benchmark; the last line of stdout is one JSON object."""
    print(json.dumps(run(steps=steps, context=context)))
