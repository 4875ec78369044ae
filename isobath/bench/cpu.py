"""Generation speed on the CPU beside transformers' generate, same weights, same run.

    isobath bench cpu [--model PATH] [--tokens 64] [--repeats 3]

isobath runs native numerics; transformers runs the dequantised weights in float32 and in bfloat16,
and the faster of the two is the baseline. Greedy, end-of-sentence ignored, prompts of 64 tokens.
A run is timed from the prompt to the last token; the figure is the median of the repeats.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from isobath.bench.peer import dequantized_tensors, transformers_model
from isobath.engine.llm import BUNDLED, LLM
from isobath.engine.sampling import SamplingParams

PROMPT_TOKENS = 64
BATCHES = (1, 16)


def run(model: Path | None = None, *, tokens: int = 64, repeats: int = 3) -> dict[str, Any]:
    """Measure both engines at each batch size; prints a table, returns the figures.

    Keys: tokens_per_s (engine -> batch -> figure) and ratio_batch1, ratio_batch16: isobath over
    the faster transformers dtype.
    """
    folder = BUNDLED if model is None else model
    llm = LLM(folder, numerics="native", device="cpu")
    prompts = _prompts(llm.config.vocab_size)
    engines: dict[str, Callable[[int], None]] = {"isobath native": _isobath(llm, prompts, tokens)}
    tensors = dequantized_tensors(folder)
    for dtype in (torch.float32, torch.bfloat16):
        peer = transformers_model(folder, tensors, dtype)
        name = f"transformers {str(dtype).removeprefix('torch.')}"
        engines[name] = transformers_generate(peer, prompts, tokens)
    rates: dict[str, dict[int, float]] = {name: {} for name in engines}
    for batch in track(BATCHES, "batch sizes", console=Console(stderr=True), transient=True):
        times: dict[str, list[float]] = {name: [] for name in engines}
        for generate in engines.values():
            generate(batch)  # warm-up
        for _ in range(repeats):  # engines take turns, so that a slow moment hits all alike
            for name, generate in engines.items():
                times[name].append(_seconds(generate, batch))
        for name in engines:
            rates[name][batch] = batch * tokens / statistics.median(times[name])
    return _report(rates, folder.name, tokens)


def _prompts(vocab_size: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(2, vocab_size, (max(BATCHES), PROMPT_TOKENS), generator=generator)


def _isobath(llm: LLM, prompts: torch.Tensor, tokens: int) -> Callable[[int], None]:
    params = SamplingParams(max_tokens=tokens, ignore_eos=True)

    def generate(batch: int) -> None:
        done = llm.generate(prompts[:batch].tolist(), params)
        assert all(len(c.token_ids) == tokens for c in done)

    return generate


def transformers_generate(peer: Any, prompts: torch.Tensor, tokens: int) -> Callable[[int], None]:
    """A call that completes the first `batch` rows of prompts [B, P] with `tokens` each."""

    def generate(batch: int) -> None:
        with torch.inference_mode():
            out = peer.generate(
                prompts[:batch],
                attention_mask=torch.ones_like(prompts[:batch]),
                max_new_tokens=tokens,
                min_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )
        assert out.shape[1] == prompts.shape[1] + tokens

    return generate


def _seconds(generate: Callable[[int], None], batch: int) -> float:
    start = time.perf_counter()
    generate(batch)
    return time.perf_counter() - start


def _report(rates: dict[str, dict[int, float]], model: str, tokens: int) -> dict[str, Any]:
    peers = [name for name in rates if name.startswith("transformers")]
    ratios = {
        f"ratio_batch{b}": rates["isobath native"][b] / max(rates[p][b] for p in peers)
        for b in BATCHES
    }
    title = f"{model}, {tokens} new tokens, {torch.get_num_threads()} threads, tokens/s"
    table = Table("engine", *(f"batch {b}" for b in BATCHES), title=title)
    for name, by_batch in rates.items():
        table.add_row(name, *(f"{by_batch[b]:.1f}" for b in BATCHES))
    table.add_row("ratio to the faster peer", *(f"{r:.2f}" for r in ratios.values()))
    Console().print(table)
    return {"model": model, "new_tokens": tokens, "tokens_per_s": rates, **ratios}


def main(model: Path | None = None, *, tokens: int = 64, repeats: int = 3) -> None:
    """Run the comparison; the last line of stdout is one JSON object."""
    print(json.dumps(run(model, tokens=tokens, repeats=repeats)))
