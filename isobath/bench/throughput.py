"""Many requests at once, the same ones one after another, and transformers' generate on a batch.

    isobath bench throughput [--requests 32] [--tokens 64] [--compare]

Greedy, end-of-sentence ignored, prompts of 64 different tokens, one run of each after a warm-up,
no prefix cache, on the CPU, as transformers is. Figures are generated tokens per second, prompts
included in the time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from isobath.bench.cpu import PROMPT_TOKENS, transformers_generate
from isobath.bench.peer import dequantized_tensors, transformers_model
from isobath.config import EngineConfig
from isobath.engine.llm import BUNDLED, LLM
from isobath.engine.sampling import SamplingParams


def main(
    model: Path | None = None, *, requests: int = 32, tokens: int = 64, compare: bool = False
) -> None:
    """Run; the last line of stdout is one JSON object with ratio_sequential and, with `compare`,
    ratio_transformers."""
    folder = BUNDLED if model is None else model
    engine = EngineConfig(max_num_seqs=requests, prefix_caching=False)
    llm = LLM(folder, engine=engine, max_batched_tokens=max(512, requests), device="cpu")
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(
        2, llm.config.vocab_size, (requests, PROMPT_TOKENS), generator=generator
    )
    ids, params = prompts.tolist(), SamplingParams(max_tokens=tokens, ignore_eos=True)
    ways: dict[str, Callable[[], object]] = {
        "together": lambda: llm.generate(ids, params),
        "one after another": lambda: [llm.generate([i], params) for i in ids],
    }
    if compare:
        weights = dequantized_tensors(folder)
        for dtype in (torch.float32, torch.bfloat16):
            generate = transformers_generate(
                transformers_model(folder, weights, dtype), prompts, tokens
            )
            name = f"transformers {str(dtype).removeprefix('torch.')}"
            ways[name] = partial(generate, requests)
    rates: dict[str, float] = {}
    for name, call in ways.items():
        if name != "one after another":  # warmed up by the first
            call()
        start = time.perf_counter()
        call()
        rates[name] = requests * tokens / (time.perf_counter() - start)
    print(json.dumps(_report(rates, folder.name, requests, tokens)))


def _report(rates: dict[str, float], model: str, requests: int, tokens: int) -> dict[str, Any]:
    together = rates["together"]
    ratios = {"ratio_sequential": together / rates["one after another"]}
    if peers := [rate for name, rate in rates.items() if name.startswith("transformers")]:
        ratios["ratio_transformers"] = together / max(peers)
    title = f"{model}, {requests} requests of {tokens} tokens, {torch.get_num_threads()} threads"
    table = Table("way", "tokens/s", title=title)
    for name, rate in rates.items():
        table.add_row(name, f"{rate:.1f}")
    Console().print(table)
    return {"model": model, "requests": requests, "tokens_per_s": rates, **ratios}
