"""How long one batch takes from its prompts to its last token, with nothing else to do.

    isobath bench latency [--batch-size 8] [--input-len 32] [--output-len 128] [--num-iters 10]

The engine alone, in this process, without a server or a tokenizer: greedy, end-of-sentence ignored,
random prompts, no prefix cache. A batch's time is that of LLM.generate, clocked around it. Times of
a sequence are the engine's own: to its first token from when it was queued, and from there to its
last by the tokens between; each is a sample, batch size times iterations of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from isobath.config import EngineConfig
from isobath.engine.llm import BUNDLED, LLM
from isobath.engine.output import Completion
from isobath.engine.sampling import SamplingParams

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True, slots=True)
class Batch:
    """input_len, output_len: tokens of each of its sequences. warmup: batches before the iters that
    are timed."""

    batch_size: int = 8
    input_len: int = 32
    output_len: int = 128
    warmup: int = 2
    iters: int = 10


def main(model: Path | None = None, batch: Batch | None = None, *, device: str = "auto") -> None:
    """Run; the last line of stdout is one JSON object."""
    batch = batch or Batch()
    folder = BUNDLED if model is None else model
    most = max(512, batch.batch_size)
    options = EngineConfig(max_num_seqs=batch.batch_size, prefix_caching=False)
    llm = LLM(folder, engine=options, max_batched_tokens=most, device=device)
    times = measure(llm, batch)
    rows = {name: _summary(values) for name, values in times.items()}
    threads = f", {torch.get_num_threads()} threads" if llm.target.kind == "cpu" else ""
    title = f"{folder.name} on {llm.target.name}{threads}: {batch.batch_size} sequences of "
    title += f"{batch.input_len} + {batch.output_len} tokens, {batch.iters} times"
    table = Table("ms", *next(iter(rows.values())))
    for name, row in rows.items():
        table.add_row(name, *(f"{1000 * value:,.2f}" for value in row.values()))
    print(title)
    Console().print(table)
    told: dict[str, Any] = {"model": folder.name, "device": llm.target.name, **asdict(batch)}
    print(json.dumps(told | {f"{name}_s": row for name, row in rows.items()}))


def measure(llm: LLM, batch: Batch) -> dict[str, list[float]]:
    """Seconds: latency of each batch; ttft and, where a second token follows, time_per_output_token
    of each sequence."""
    draw = torch.Generator().manual_seed(0)
    shape = (batch.batch_size, batch.input_len)
    ids = torch.randint(2, llm.config.vocab_size, shape, generator=draw).tolist()
    params = SamplingParams(max_tokens=batch.output_len, ignore_eos=True)
    latency: list[float] = []
    done: list[Completion] = []
    for iteration in range(-batch.warmup, batch.iters):
        start = time.perf_counter()
        completions = llm.generate(ids, params)
        if iteration >= 0:
            latency.append(time.perf_counter() - start)
            done += completions
    times = [c.times for c in done if c.times is not None]
    found = {"latency": latency, "ttft": [t.first - t.queued for t in times]}
    if (steps := batch.output_len - 1) > 0:
        found["time_per_output_token"] = [(t.last - t.first) / steps for t in times]
    return found


def _summary(values: Iterable[float]) -> dict[str, float]:
    told = torch.tensor(list(values), dtype=torch.float64)
    parts = {f"p{part}": told.quantile(part / 100).item() for part in PERCENTILES}
    return {"mean": told.mean().item(), **parts}
