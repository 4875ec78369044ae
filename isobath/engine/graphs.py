"""Decode steps captured once and replayed: one CUDA (or HIP) graph for each bucket.

    fill static block ── one pinned copy ──┐
    graph: decode_metadata ─ embed ─ layers ─ head ─ logits ─ best token      one replay
    tokens to the host ── one copy ────────┘

A bucket is a number of lanes and a bound on the context: a short one, up to which every compressed
entry is attended and none has to be chosen, and the model's own. All graphs share one memory pool;
what outlives a replay, the logits and the best tokens, lies in static buffers outside it. A step
takes the smallest bucket that holds it, the lanes left over are padding.

Before the first request every graph is replayed on inputs it was not captured with, and compared
with an eager run of the same step, bit for bit. Only on a GPU is anything captured; the region
itself is a plain function, which the engine's CPU tests run under the capture watch.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from isobath.cache.pool import PAGE_TOKENS, CachePool
from isobath.config import ModelConfig
from isobath.engine.metadata import DecodeMetadata, Shape
from isobath.engine.selfcheck import decode_step, empty, fill, other_step
from isobath.errors import CaptureUnsafe
from isobath.model.batch import Batch, Chunk

SMALL = (1, 2, 4)
SEED = 20261122
log = logging.getLogger(__name__)


def buckets(most: int) -> tuple[int, ...]:
    """Numbers of lanes to capture, up to `most`: 1, 2, 4, then multiples of 8 to 32, and from there
    two steps an octave (32, 48, 64, 96, ...), so that from 16 on at most a third is padding."""
    sizes = [*SMALL, 8, 16, 24, 32]
    while sizes[-1] < most:
        sizes += [sizes[-1] * 3 // 2, sizes[-1] * 2]
    return (*(s for s in sizes if s < most), most)


def contexts(config: ModelConfig, most: int) -> tuple[int, ...]:
    """Bounds on the context to capture: `most`, and the short one if that is less."""
    short = short_context(config)
    return (short, most) if 4 in config.compress_ratios and short < most else (most,)


def short_context(config: ModelConfig) -> int:
    """The longest context at which no entry has to be chosen, in whole pages if it fills one: a
    page table wider by one page would offer attention more entries than are ever selected, which
    it takes in two launches instead of one."""
    longest = 4 * config.index_topk + 3
    return longest // PAGE_TOKENS * PAGE_TOKENS or longest


@dataclass(frozen=True, slots=True)
class Report:
    """What start-up found out. launches: kernels, copies and fills of one step; None where the
    profiler saw none."""

    lanes: tuple[int, ...]
    contexts: tuple[int, ...]
    seconds: float
    nbytes: int
    launches: int | None
    layers: int

    def lines(self) -> tuple[str, str]:
        per_layer = f"{self.launches / self.layers:.1f} a layer" if self.launches else "not counted"
        return (
            f"decode graphs: {len(self.lanes) * len(self.contexts)} for "
            f"{', '.join(map(str, self.lanes))} sequences of up to "
            f"{' or '.join(f'{c:,}' for c in self.contexts)} tokens, captured and compared with "
            f"eager runs in {self.seconds:.1f} s, {self.nbytes / (1 << 20):,.0f} MiB",
            f"decode launches: {self.launches or 'unknown'} a step of {self.layers} layers "
            f"({per_layer}, embedding, metadata and head included)",
        )


class DecodeGraphs:
    """The captured decode steps of one engine. forward: logits float32 [T, vocab] of a Batch.
    static: whether decode_metadata is part of the graph (else the caller lays steps out)."""

    def __init__(
        self,
        config: ModelConfig,
        metadata: DecodeMetadata,
        pool: CachePool,
        forward: Callable[[Batch], torch.Tensor],
        device: torch.device,
        *,
        static: bool = True,
    ) -> None:
        self.config, self.metadata, self.pool, self.static = config, metadata, pool, static
        self._forward, most = forward, metadata.max_lanes
        self.lanes, self.contexts = buckets(most), contexts(config, metadata.max_context)
        self.logits = torch.empty(most, config.vocab_size, device=device)
        self.best = torch.empty(most, dtype=torch.int64, device=device)
        self._on_host = torch.empty(most, dtype=torch.int64, pin_memory=device.type == "cuda")
        self._graphs: dict[Shape, torch.cuda.CUDAGraph] = {}
        self._addresses = self._where()

    def shape_for(self, chunks: Sequence[Chunk]) -> Shape:
        """The smallest bucket that holds a decode step."""
        longest = max(c.start for c in chunks) + 1
        assert longest <= self.contexts[-1], (longest, self.contexts)
        lanes = self.lanes[bisect_left(self.lanes, len(chunks))]
        return self._shape(lanes, self.contexts[bisect_left(self.contexts, longest)])

    def region(self, shape: Shape) -> None:
        """What is captured: from the static block to `logits` and `best`, in place."""
        batch = self.metadata.compute(shape) if self.static else self.metadata.batch(shape)
        logits = self._forward(batch)
        self.logits[: shape.lanes].copy_(logits)
        torch.argmax(logits, -1, out=self.best[: shape.lanes])

    def replay(self, shape: Shape, count: int) -> tuple[torch.Tensor, list[int]]:
        """Run the step that the static block holds: (logits, best tokens) of its `count` lanes."""
        assert self._where() == self._addresses, "a static buffer has moved"
        self._graphs[shape].replay()
        tokens = self._on_host[:count]
        tokens.copy_(self.best[:count], non_blocking=True)
        torch.cuda.current_stream().synchronize()
        return self.logits[:count], tokens.tolist()

    def prepare(self) -> Report:
        """Capture every bucket and compare each with an eager run. The pool must hold nothing yet,
        and is empty again afterwards. Raises CaptureUnsafe, naming the bucket."""
        start = time.perf_counter()
        torch.cuda.empty_cache()  # else what was cached and is given back below would count
        before = torch.cuda.memory_reserved()
        fill(self.pool, SEED)
        memory, stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()
        shapes = [self._shape(n, c) for n in reversed(self.lanes) for c in reversed(self.contexts)]
        for shape in shapes:  # the largest first: the others reuse its memory, on the same stream
            self._graphs[shape] = self._capture(shape, memory, stream)
        for i, shape in enumerate(shapes):
            self._compare(shape, SEED + i)
        launches = self._count_launches()
        empty(self.pool)
        torch.cuda.synchronize()
        torch.cuda.empty_cache()  # what eager runs left behind on the capture's stream
        seconds, nbytes = time.perf_counter() - start, torch.cuda.memory_reserved() - before
        layers = self.config.num_hidden_layers
        return Report(self.lanes, self.contexts, seconds, nbytes, launches, layers)

    def _capture(
        self, shape: Shape, memory: Any, stream: torch.cuda.Stream
    ) -> torch.cuda.CUDAGraph:
        """Capture one bucket after two eager runs, which compile kernels and build the tables that
        ops keep."""
        self._lay_out(decode_step(self.pool, 1, 1, self.config.vocab_size, seed=SEED), shape)
        graph = torch.cuda.CUDAGraph()
        stream.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(stream):
                for _ in range(2):
                    self.region(shape)
            stream.synchronize()
            with torch.cuda.graph(graph, pool=memory, stream=stream):
                self.region(shape)
        except RuntimeError as error:
            raise CaptureUnsafe(
                f"capture the decode step for {_name(shape)}",
                # Ending a capture that failed fails again, and says less.
                found=str(error.__context__ or error).splitlines()[0],
                effect="decode could not be replayed, and would run several times slower",
                do="out of memory: lower gpu_memory_utilization or max_num_seqs; else find the op, "
                "isobath doctor measures every backend's graph safety",
            ) from error
        return graph

    def _compare(self, shape: Shape, seed: int) -> None:
        """Replay a step that the capture has not seen, beside padding, after an eager run of it."""
        vocab, most = self.config.vocab_size, max(1, shape.lanes - 1)
        chunks = decode_step(self.pool, most, shape.context, vocab, seed=seed)
        self._lay_out(chunks, shape)
        self.region(shape)
        eager = self._observed(chunks)
        self._lay_out(other_step(), shape)
        self.region(shape)  # every static buffer now belongs to another step, no cache row does
        self.logits.fill_(torch.nan)
        self.best.fill_(-1)
        self._lay_out(chunks, shape)
        self.replay(shape, len(chunks))
        check_replay(eager, self._observed(chunks), shape)

    def _lay_out(self, chunks: Sequence[Chunk], shape: Shape) -> None:
        torch.cuda.synchronize()  # the host block may still be on its way
        self.metadata.fill(chunks, shape)
        if not self.static:  # as the runner does, with the rows that the device computes
            self.metadata.compute(shape)

    def _observed(self, chunks: Sequence[Chunk]) -> dict[str, torch.Tensor]:
        """What a step leaves behind, of real lanes where padding means nothing."""
        seen = self.metadata.named_buffers()
        seen["table"] = seen["table"][[c.slot for c in chunks]]
        seen |= {"logits": self.logits[: len(chunks)], "best": self.best[: len(chunks)]}
        return {name: t.clone() for name, t in seen.items()}

    def _count_launches(self) -> int | None:
        """Device activities of the region, run eagerly at the smallest bucket's shape."""
        shape = self._shape(self.lanes[0], self.contexts[-1])
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        torch.cuda.synchronize()
        with torch.profiler.profile(activities=activities) as profile:
            self.region(shape)
            torch.cuda.synchronize()
        return sum(map(_is_launch, profile.events() or [])) or None

    def _shape(self, lanes: int, context: int) -> Shape:
        return Shape(lanes, (lanes,) * len(self.metadata.ratios), context)

    def _where(self) -> list[int]:
        own = (self.logits, self.best)
        return [*self.metadata.addresses(), *(t.data_ptr() for t in own)]


def check_replay(
    eager: dict[str, torch.Tensor], replayed: dict[str, torch.Tensor], shape: Shape
) -> None:
    """Raise CaptureUnsafe unless both runs of a step left the same bits in every tensor, and
    numbers among them."""
    for name, want in eager.items():
        got = replayed[name]
        if not torch.equal(_bits(got), _bits(want)):
            lines = (_bits(got) != _bits(want)).flatten(1).any(1).nonzero().flatten().tolist()
            raise CaptureUnsafe(
                f"replay the decode step for {_name(shape)}",
                found=f"{name} differs from an eager run of the same step on {len(lines)} of "
                f"{len(want)} lines, the first {lines[0]}",
                effect="requests would get other tokens than the model's",
                do="serve without this backend: isobath doctor names an op that is not graph-safe",
            )
    if not bool(eager["logits"].isfinite().all()):
        raise CaptureUnsafe(
            f"check the decode step for {_name(shape)}",
            found="logits of random caches are not finite, in an eager run too",
            effect="equal bits of NaN would show nothing",
            do="isobath doctor compares every op with its reference",
        )


def _is_launch(event: Any) -> bool:
    """Whether a profiler's event ran on the device; HIP's are called CUDA's too."""
    return bool(event.device_type.name == "CUDA")


def _name(shape: Shape) -> str:
    return f"{shape.lanes} sequences of up to {shape.context:,} tokens"


def _bits(t: torch.Tensor) -> torch.Tensor:
    """As integers, so that NaN equals itself; at least two dimensions."""
    same = t.view(torch.int32) if t.dtype == torch.float32 else t
    return same.unsqueeze(1) if same.dim() == 1 else same
