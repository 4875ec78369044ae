"""The routed experts of one V4-Flash layer on this GPU: microseconds, and packed bytes a second.

    python -m isobath.bench.experts [--tokens 1,8,64,256,1024] [--json PATH]

The op by itself (sort, two products; adding up is its reader's), 256 experts of which each token
visits 6, chosen evenly. Three sets of weights take turns, 3.4 GB each, so that no cache holds them;
calls are replayed from one graph. Bytes are those of the experts that were touched, scales
included. The baseline is the same op at the fixed tile height. The last line of stdout is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from isobath.bench.rows import append
from isobath.config import ModelConfig
from isobath.numerics import fp8
from isobath.numerics.fp8 import Fp8Tensor
from isobath.numerics.mxfp4 import GROUP
from isobath.ops.contract import Backend
from isobath.ops.table import contract
from isobath.plan import flash_config
from isobath.target import Target, detect

TOKENS = (1, 8, 64, 256, 1024)
SETS, CALLS, SAMPLES = 3, 12, 5


@dataclass(frozen=True, slots=True)
class Row:
    """touched: experts that at least one token visits. us: a call. fixed_us: at the fixed height.
    packed_tb_per_s: of the touched experts' bytes."""

    bench: str
    tokens: int
    touched: int
    us: float
    fixed_us: float
    packed_tb_per_s: float
    device: str
    torch: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a call gets besides weights; see ops/experts."""

    x: Fp8Tensor
    experts: torch.Tensor
    weights: torch.Tensor
    shared: torch.Tensor


def run(target: Target, config: ModelConfig, tokens: Sequence[int]) -> list[Row]:
    """Measure each number of tokens; prints as it goes."""
    from isobath.ops.experts.triton_kernel import FIXED_HEIGHT, random_prepared

    backend = contract("experts").backend("triton")
    sets = [
        random_prepared(
            config.n_routed_experts,
            config.hidden_size,
            config.moe_intermediate_size,
            torch.Generator(device=target.device).manual_seed(seed),
        )
        for seed in range(SETS)
    ]
    matrices = 3 * config.hidden_size * config.moe_intermediate_size
    expert_bytes = matrices / 2 + matrices / GROUP  # codes, and a scale a group
    rows = []
    for count in tokens:
        one = inputs(config, count, target)

        us = replayed_us(partial(_call, backend, sets, one, config.swiglu_limit, None))
        fixed = replayed_us(partial(_call, backend, sets, one, config.swiglu_limit, FIXED_HEIGHT))
        touched = int(one.experts.unique().numel())
        rate = touched * expert_bytes / us / 1e6
        rows.append(Row("experts", count, touched, us, fixed, rate, target.name, torch.__version__))
        print(f"{count:5d} tokens, {touched:3d} experts: {us:7.1f} us, {rate:.2f} TB/s; "
              f"fixed height {fixed:7.1f} us", flush=True)  # fmt: skip
    return rows


def _call(
    backend: Backend, sets: Sequence[Any], one: Inputs, limit: float, height: int | None, index: int
) -> Any:
    """One call with the weights whose turn it is."""
    prepared = replace(sets[index % SETS], height=height)
    return backend(one.x, one.experts, one.weights, prepared, one.shared, limit=limit)


def inputs(config: ModelConfig, count: int, target: Target) -> Inputs:
    """Random activations and an even choice of experts for `count` tokens."""
    draw = torch.Generator(device=target.device).manual_seed(count)
    k, device = config.num_experts_per_tok, target.device
    x = torch.randn(count, config.hidden_size, device=device, generator=draw)
    order = torch.rand(count, config.n_routed_experts, device=device, generator=draw).argsort(-1)
    return Inputs(
        x=fp8.quantize(x, target.dialect, (1, 128)),
        experts=order[:, :k].contiguous(),
        weights=torch.rand(count, k, device=device, generator=draw),
        shared=torch.randn(x.shape, device=device, generator=draw).bfloat16(),
    )


def replayed_us(call: Callable[[int], Any]) -> float:
    """Median device microseconds of one of CALLS calls replayed from a graph."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        call(0)  # compiles
    stream.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        kept = [call(i) for i in range(CALLS)]
    graph.replay()
    samples = []
    for _ in range(SAMPLES):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        samples.append(start.elapsed_time(end) * 1e3 / CALLS)
    del kept
    return statistics.median(samples)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, measure, print; the last line of stdout is one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m isobath.bench.experts")
    parser.add_argument("--tokens", default=",".join(map(str, TOKENS)))
    parser.add_argument("--json", type=Path, help="append rows to this file")
    options = parser.parse_args(arguments)
    rows = run(detect("gpu"), flash_config(), [int(n) for n in options.tokens.split(",")])
    append(options.json, rows)
    print(json.dumps({"rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
