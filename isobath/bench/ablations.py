"""What each design decision of the decode step is worth: the step without it, beside the step.

    python -m isobath.bench.ablations [--sequences 64,1024] [--json PATH]

A few layers of V4-Flash's width with random weights and a small vocabulary, in the engine's own
buffers and graphs. A step is what the runner does: lay it out, replay, read the tokens; its time is
the host's. Variants take turns, so that a clock that drifts drifts in all of them. Logits first:
all variants but the one with another library's product must give the baseline's bits.

The scheduler, sampling and text are not in it. On a CPU, for tests, nothing is captured, and of the
variants there is only the one that concerns the host. The last line of stdout is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from isobath.bench.rows import append
from isobath.cache.pool import CachePool, allocate_pool
from isobath.config import ModelConfig
from isobath.engine.graphs import DecodeGraphs, short_context
from isobath.engine.metadata import DecodeMetadata
from isobath.engine.selfcheck import decode_step, fill
from isobath.model.aside import Aside, SideStream, at_once
from isobath.model.batch import Batch, BatchBuilder, Chunk
from isobath.model.dummy import Dummy, dummy_model
from isobath.model.v4 import forward
from isobath.model.weights import LayerWeights, ModelWeights
from isobath.ops.binding import bind_measured
from isobath.ops.contract import Backend
from isobath.ops.table import OpTable, contract
from isobath.ops.verdicts import saved_verdicts
from isobath.plan import flash_config
from isobath.target import Target, detect

RATIOS = (0, 4, 128, 4)
VOCAB, PAGES, SEED = 4096, 64, 20261122
SEQUENCES = (64, 1024)
WARM_UP, SAMPLES = 3, 30
CACHED = {"grouped_project": "triton_bf16"}
"""What the baseline binds whatever the verdicts say, so that there is a cache to go without."""


@dataclass(frozen=True, slots=True)
class Variant:
    """A decode step. static: its index tensors are computed on the device. same: whether it must
    give the baseline's bits."""

    weights: ModelWeights
    ops: OpTable
    aside: Aside
    static: bool = True
    same: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """us: a step, median over the samples. p90_us. slower_us: than the baseline, the median of the
    differences within a turn. worst: largest difference of a logit from the baseline's."""

    bench: str
    variant: str
    sequences: int
    layers: int
    us: float
    p90_us: float
    slower_us: float
    worst: float
    device: str
    torch: str


Step = Callable[[], torch.Tensor]
"""Runs a step up to its tokens on the host; returns its logits, on the device."""


def variants(weights: ModelWeights, ops: OpTable, target: Target) -> dict[str, Variant]:
    """By what is left out; the baseline, with all of it, comes first."""
    if target.kind == "cpu":
        full = Variant(weights, ops, at_once)
        return {"baseline": full, "metadata on the host": replace(full, static=False)}
    from isobath.ops.experts.triton_kernel import FIXED_HEIGHT as height  # a CPU has no Triton

    def fixed(layer: LayerWeights) -> LayerWeights:
        packed: Any = layer.ffn.experts
        return replace(layer, ffn=replace(layer.ffn, experts=replace(packed, height=height)))

    full = Variant(weights, ops, SideStream(target.device))
    chosen = {
        "baseline": full,
        "metadata on the host": replace(full, static=False),
        "one chain of launches": replace(full, aside=at_once),
        f"expert tiles of {height} tokens": replace(full, weights=_each(weights, fixed)),
    }
    return chosen | (_cached_projection(full) if target.kind == "cuda" else {})


def _cached_projection(full: Variant) -> dict[str, Variant]:
    """The baseline keeps wo_a as bf16, too (CACHED)."""
    op = contract("grouped_project")

    def narrow(layer: LayerWeights) -> LayerWeights:
        cached: Any = layer.attn.wo_a
        return replace(layer, attn=replace(layer.attn, wo_a=cached.given))

    def through(backend: Backend) -> OpTable:
        return replace(full.ops, grouped_project=backend)

    return {
        "wo_a decoded in every step": replace(
            full, ops=through(op.backend("triton")), weights=_each(full.weights, narrow)
        ),
        "wo_a through cuBLAS": replace(full, ops=through(op.backend("cublas")), same=False),
    }


def _each(weights: ModelWeights, change: Callable[[LayerWeights], LayerWeights]) -> ModelWeights:
    return replace(weights, layers=tuple(change(layer) for layer in weights.layers))


@torch.inference_mode()
def run(
    target: Target,
    ops: OpTable,
    config: ModelConfig,
    *,
    sequences: Sequence[int] = SEQUENCES,
    samples: int = SAMPLES,
) -> list[Row]:
    """Measure every variant at every size, and print each."""
    config = replace(
        config,
        vocab_size=VOCAB,
        num_hidden_layers=len(RATIOS),
        compress_ratios=RATIOS,
        num_hash_layers=0,
    )
    config, weights = dummy_model(
        config, dialect=target.dialect, device=target.device, ops=ops, part=Dummy(expert_sets=1)
    )
    rows = []
    for count in sequences:
        rows += measure(target, config, variants(weights, ops, target), count, samples)
    return rows


def measure(
    target: Target, config: ModelConfig, chosen: dict[str, Variant], count: int, samples: int
) -> list[Row]:
    """All variants at one size, over the same caches."""
    weights, context = chosen["baseline"].weights, short_context(config)
    pool = allocate_pool(
        config,
        slots=count + 1,
        pages=count + PAGES,
        staging=count,
        dialect=weights.dialect,
        plain=False,
        device=target.device,
        revision=weights.revision,
    )
    chunks = decode_step(pool, count, context, config.vocab_size, seed=SEED)
    steps = {n: step_of(config, v, pool, chunks, target.device) for n, v in chosen.items()}
    fill(pool, SEED)  # captures leave it empty
    logits = {name: step().clone() for name, step in steps.items()}
    apart = {n: float((x - logits["baseline"]).abs().max()) for n, x in logits.items()}
    for name, variant in chosen.items():
        assert apart[name] == 0 or not variant.same, f"{name}: logits differ by {apart[name]}"
    times = _turns(steps, samples)
    rows = []
    for name, taken in times.items():
        slower = [a - b for a, b in zip(taken, times["baseline"], strict=True)]
        row = Row(
            bench="ablations",
            variant=name,
            sequences=count,
            layers=config.num_hidden_layers,
            us=statistics.median(taken),
            p90_us=statistics.quantiles(taken, n=10)[-1],
            slower_us=statistics.median(slower),
            worst=apart[name],
            device=target.name,
            torch=torch.__version__,
        )
        rows.append(row)
        print(_line(row), flush=True)
    return rows


def step_of(
    config: ModelConfig,
    variant: Variant,
    pool: CachePool,
    chunks: Sequence[Chunk],
    device: torch.device,
) -> Step:
    """The runner's decode step: captured, checked and replayed on a GPU, eager on a CPU. Buffers of
    its own, because a variant leaves other page numbers in them."""
    count, context = len(chunks), short_context(config)
    metadata = DecodeMetadata(
        config, pool, variant.ops, device, max_lanes=count, max_context=context
    )
    builder = BatchBuilder(config, pool, device)

    def compute(batch: Batch) -> torch.Tensor:
        return forward(config, variant.weights, variant.ops, pool, batch, aside=variant.aside)

    graphs = DecodeGraphs(config, metadata, pool, compute, device, static=variant.static)
    graphs.lanes = (count,)  # no other bucket is measured
    shape = graphs.shape_for(chunks)

    def lay_out() -> None:
        if variant.static:
            metadata.fill(chunks, shape)
        else:
            metadata.copy(builder.build(chunks), shape)

    def replayed() -> torch.Tensor:
        lay_out()
        return graphs.replay(shape, count)[0]

    def eager() -> torch.Tensor:
        lay_out()
        graphs.region(shape)
        graphs.best.tolist()
        return graphs.logits

    if device.type == "cpu":
        return eager
    graphs.prepare()
    return replayed


def _turns(steps: dict[str, Step], samples: int) -> dict[str, list[float]]:
    """Microseconds of so many turns, in each of which every step runs once."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(WARM_UP + samples):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn >= WARM_UP:
                times[name].append((time.perf_counter() - start) * 1e6)
    return times


def _line(row: Row) -> str:
    text = f"{row.sequences:5d} sequences, {row.variant:28s} {row.us:9.1f} us a step"
    text += f" (p90 {row.p90_us:.1f})"
    if row.variant != "baseline":
        text += (
            f", {row.slower_us:+8.1f} us ({100 * row.slower_us / (row.us - row.slower_us):+.1f} %)"
        )
        text += ", same bits" if row.worst == 0 else f", logits within {row.worst:.2g}"
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print; the last line of stdout is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m isobath.bench.ablations")
    parser.add_argument("--sequences", default=list(SEQUENCES), type=_numbers)
    parser.add_argument("--json", type=Path, help="append rows to this file")
    options = parser.parse_args(arguments)
    target = detect("gpu")
    ops, _ = bind_measured(target, saved_verdicts(target), overrides=CACHED)
    rows = run(target, ops, flash_config(), sequences=options.sequences)
    append(options.json, rows)
    print(json.dumps({"rows": [asdict(row) for row in rows]}))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


if __name__ == "__main__":
    main()
