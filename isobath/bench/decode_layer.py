"""One decoder layer of each kind at full width, in a graph: microseconds and launches a layer.

    python -m isobath.bench.decode_layer [--sequences 1,8,64] [--ratios 0,4,128] [--json PATH]

Random weights of V4-Flash's shapes and a small vocabulary; every sequence decodes one token at its
own position within --contexts, over caches of random rows, laid out as the engine's graphs are. The
same step is captured with LAYERS layers and with one; a layer is the difference, so metadata,
embedding and head are not in it. Its weights are never warm: LAYERS sets of them take turns, each
larger than any last-level cache. On a CPU (for tests) calls are eager and there are no launches.
The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from isobath.bench.rows import append
from isobath.cache.pool import PAGE_TOKENS, CachePool, allocate_pool
from isobath.cache.view import CacheView, write_rows
from isobath.config import ModelConfig
from isobath.engine.graphs import short_context
from isobath.engine.metadata import DecodeMetadata, Shape
from isobath.model.aside import Aside, SideStream, at_once
from isobath.model.batch import Batch, Chunk
from isobath.model.dummy import dummy_model
from isobath.model.v4 import forward
from isobath.model.weights import ModelWeights
from isobath.ops.binding import bind_measured
from isobath.ops.table import OpTable
from isobath.ops.verdicts import saved_verdicts
from isobath.plan import flash_config
from isobath.target import Target, detect

LAYERS, VOCAB = 4, 4096
SEQUENCES, RATIOS = (1, 8, 64, 256, 1024), (0, 4, 128)
KINDS = {0: "SWA", 4: "CSA", 128: "HCA"}
VLLM_US = {1: 188.0, 8: 379.0, 64: 1200.0, 256: 1850.0, 1024: 3000.0}
"""vLLM 0.26.0 on one H200, measured 2026-11-21: its decode step of 43 layers, all that is in it, by
the number of layers; contexts of 570 to 850 tokens, FP8 caches, full graphs."""
CONTEXTS = (570, 850)
"""Lowest and highest position of a sequence's token, both included."""
WARM_UP, SAMPLES, FILL_ROWS = 3, 30, 1 << 16


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of layer at one batch size. contexts: lowest and highest position. us, p90_us: a
    layer. launches: kernels, copies and fills a layer, None where no profiler sees them. rest_us:
    metadata, embedding, small head.
    """

    bench: str
    kind: str
    sequences: int
    contexts: tuple[int, int]
    us: float
    p90_us: float
    launches: float | None
    rest_us: float
    vllm_us: float | None
    device: str
    torch: str


Compute = Callable[[], Batch]
"""Lays out the step on the device, from what was copied there."""
Kernels = dict[str, tuple[float, float]]
"""Name -> (calls, microseconds) a layer."""


def run(
    target: Target,
    ops: OpTable,
    config: ModelConfig,
    *,
    sequences: Sequence[int] = SEQUENCES,
    ratios: Sequence[int] = RATIOS,
    contexts: tuple[int, int] = CONTEXTS,
    tables: Sequence[int] = (64, 1024),
) -> list[Row]:
    """Measure every kind at every size; prints each, and its kernels at the sizes in `tables`."""
    rows = []
    for ratio in ratios:
        one_kind = replace(
            config,
            vocab_size=VOCAB,
            num_hidden_layers=LAYERS,
            compress_ratios=(ratio,) * LAYERS,
            num_hash_layers=0,
        )
        _, weights = dummy_model(one_kind, dialect=target.dialect, device=target.device, ops=ops)
        for count in sequences:
            row, kernels = measure(target, ops, one_kind, weights, count, contexts)
            rows.append(row)
            print(_line(row), flush=True)
            if count in tables:
                _print_kernels(kernels)
        del weights
    return rows


@torch.inference_mode()
def measure(
    target: Target,
    ops: OpTable,
    config: ModelConfig,
    weights: ModelWeights,
    count: int,
    contexts: tuple[int, int],
) -> tuple[Row, Kernels]:
    """One kind of layer with `count` sequences of tokens at positions within `contexts`."""
    pool, compute = decode_step(config, weights, ops, count, contexts, target.device)
    steps = [
        _step(
            replace(config, num_hidden_layers=n, compress_ratios=config.compress_ratios[:n]),
            replace(weights, layers=weights.layers[:n]),
            ops,
            replace(pool, layers=pool.layers[:n]),
            compute,
        )
        for n in (1, LAYERS)
    ]
    one, many = (_times(step, target.device) for step in steps)
    between, kernels = LAYERS - 1, _kernels(*steps) if target.kind != "cpu" else {}
    layer_us = (statistics.median(many) - statistics.median(one)) / between
    worst_us = (statistics.quantiles(many, n=10)[-1] - statistics.median(one)) / between
    row = Row(
        bench="decode_layer",
        kind=KINDS[config.compress_ratios[0]],
        sequences=count,
        contexts=contexts,
        us=layer_us,
        p90_us=worst_us,
        launches=sum(calls for calls, _ in kernels.values()) if kernels else None,
        rest_us=statistics.median(one) - layer_us,
        vllm_us=VLLM_US.get(count) if "H200" in target.name else None,
        device=target.name,
        torch=torch.__version__,
    )
    return row, kernels


def decode_step(
    config: ModelConfig,
    weights: ModelWeights,
    ops: OpTable,
    count: int,
    contexts: tuple[int, int],
    device: torch.device,
) -> tuple[CachePool, Compute]:
    """Caches of random rows, and what lays out a step of one token for each of `count` sequences
    in them. Its page table is as wide as the engine's short graphs have it."""
    generator = torch.Generator().manual_seed(count)
    low, high = contexts
    starts = torch.randint(low, high + 1, (count,), generator=generator).tolist()
    ids = torch.randint(2, config.vocab_size, (count,), generator=generator).tolist()
    longest = max(high + 1, short_context(config))
    each = -(-longest // PAGE_TOKENS)
    pool = allocate_pool(
        config,
        slots=count + 1,
        pages=count * each + 1,
        staging=count,
        dialect=weights.dialect,
        plain=weights.dtype == torch.float32,
        device=device,
        revision=weights.revision,
    )
    for layer in pool.layers:
        _fill(layer.window)
        for cache in (layer.compressor, layer.indexer):
            if cache is not None:
                cache.state.normal_()
                _fill(cache.entries)
    chunks = [
        Chunk([ids[i]], starts[i], i + 1, range(1 + i * each, 1 + (i + 1) * each))
        for i in range(count)
    ]
    metadata = DecodeMetadata(config, pool, ops, device, max_lanes=count, max_context=longest)
    shape = Shape(count, (count,) * len(metadata.ratios), longest)
    metadata.fill(chunks, shape)
    return pool, lambda: metadata.compute(shape)


def _fill(cache: CacheView) -> None:
    """Random rows: NaN would send every token to the same experts."""
    device, count = cache.bytes.device, len(cache.bytes)
    for start in range(0, count, FILL_ROWS):
        rows = torch.arange(start, min(start + FILL_ROWS, count), device=device)
        write_rows(cache, rows, torch.randn(len(rows), cache.layout.width, device=device))


def _step(
    config: ModelConfig, weights: ModelWeights, ops: OpTable, pool: CachePool, compute: Compute
) -> Callable[[], None]:
    """One decode step as a call without arguments: a graph's replay on a GPU."""

    def eager() -> None:
        logits.copy_(forward(config, weights, ops, pool, compute(), aside=aside))

    first = forward(config, weights, ops, pool, compute())
    assert bool(first.isfinite().all()), "random weights gave NaN, so their routes mean nothing"
    logits = torch.empty_like(first)
    aside: Aside = at_once
    if logits.device.type == "cpu":
        return eager
    aside = SideStream(logits.device)  # as the engine's graphs have it
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        eager()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        eager()
    torch.cuda.synchronize()
    return Replay(graph, eager)


@dataclass(frozen=True, slots=True)
class Replay:
    """A captured step, and the call that it was captured from, which holds what it writes to."""

    graph: torch.cuda.CUDAGraph
    eager: Callable[[], None]

    def __call__(self) -> None:
        self.graph.replay()


def _times(step: Callable[[], None], device: torch.device) -> list[float]:
    """Microseconds of SAMPLES calls; device time on a GPU."""
    for _ in range(WARM_UP):
        step()
    if device.type == "cpu":
        samples = []
        for _ in range(SAMPLES):
            start = time.perf_counter()
            step()
            samples.append((time.perf_counter() - start) * 1e6)
        return samples
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(SAMPLES + 1)]
    marks[0].record()
    for mark in marks[1:]:  # enqueued ahead, so that the host is not in the time
        step()
        mark.record()
    torch.cuda.synchronize()
    return [float(a.elapsed_time(b)) * 1e3 for a, b in pairwise(marks)]


def _kernels(one: Callable[[], None], many: Callable[[], None]) -> Kernels:
    """What LAYERS - 1 layers add to the profile of a step, a layer."""
    totals: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for step, sign in ((many, 1), (one, -1)):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            step()
            torch.cuda.synchronize()
        for event in profile.events():
            if str(event.device_type).endswith("CUDA"):  # torch exports the enum nowhere
                totals[event.name][0] += sign
                totals[event.name][1] += sign * event.time_range.elapsed_us()
    layers = LAYERS - 1
    return {n: (c / layers, us / layers) for n, (c, us) in totals.items() if c or us > 0}


def _line(row: Row) -> str:
    text = f"{row.kind} {row.sequences:5d} sequences: {row.us:8.1f} us a layer"
    text += f" (p90 {row.p90_us:.1f}), rest {row.rest_us:.1f} us"
    if row.launches is not None:
        text += f", {row.launches:.1f} launches"
    if row.vllm_us is not None:
        text += f", vLLM {row.vllm_us:.0f} us, ratio {row.vllm_us / row.us:.2f}"
    return text


def _print_kernels(kernels: Kernels) -> None:
    whole = sum(us for _, us in kernels.values())
    for name, (calls, us) in sorted(kernels.items(), key=lambda item: -item[1][1]):
        print(f"    {us:8.1f} us {100 * us / whole:5.1f} % {calls:5.1f} x {name[:90]}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print; the last line of stdout is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m isobath.bench.decode_layer")
    parser.add_argument("--sequences", default=list(SEQUENCES), type=_numbers)
    parser.add_argument("--ratios", default=list(RATIOS), type=_numbers)
    parser.add_argument("--contexts", default=CONTEXTS, type=_range, metavar="LOW-HIGH")
    parser.add_argument("--bind", action="append", default=[], metavar="OP=BACKEND")
    parser.add_argument("--json", type=Path, help="append rows to this file")
    options = parser.parse_args(arguments)
    target = detect("gpu")
    overrides = dict(one.split("=", 1) for one in options.bind)
    ops, choices = bind_measured(target, saved_verdicts(target), overrides=overrides)
    print(", ".join(f"{op}: {c.backend}" for op, c in choices.items() if c.backend != "triton"))
    rows = run(
        target,
        ops,
        flash_config(),
        sequences=options.sequences,
        ratios=options.ratios,
        contexts=options.contexts,
    )
    append(options.json, rows)
    print(json.dumps(summary(rows)))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _range(text: str) -> tuple[int, int]:
    low, high = (int(number) for number in text.split("-"))
    if not 1 <= low <= high:
        raise ValueError(f"positions from 1 on, the lower one first, not {text}")
    return low, high


def layer_mean(by_kind: Mapping[str, float]) -> float | None:
    """The mean over V4-Flash's layers of a value for each of KINDS; None where one is missing."""
    if by_kind.keys() != set(KINDS.values()):
        return None
    ratios = flash_config().compress_ratios
    return sum(by_kind[KINDS[ratio]] for ratio in ratios) / len(ratios)


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The rows, and at each size the mean over V4-Flash's layers (2 SWA, 21 CSA, 20 HCA)."""
    mean_us, ahead = {}, {}
    for count in dict.fromkeys(row.sequences for row in rows):
        mean = layer_mean({row.kind: row.us for row in rows if row.sequences == count})
        if mean is not None:
            mean_us[str(count)] = mean
            if count in VLLM_US:
                ahead[str(count)] = VLLM_US[count] / mean
    return {"mean_us": mean_us, "vllm_ratio": ahead, "rows": [asdict(row) for row in rows]}


if __name__ == "__main__":
    main()
