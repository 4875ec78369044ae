"""Capture of one call as a CUDA graph, and its time: what decode does with every op.

Graph safety is measured, never assumed: capture, change the inputs, replay, compare with an eager
call on the same inputs; then the first inputs again, so that a counter that a kernel forgets to
reset shows. Timing is device time with a cold cache, on a CPU wall time.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from isobath.errors import CaptureUnsafe
from isobath.ops.capture import capture_safe
from isobath.ops.contract import Arguments
from isobath.ops.placement import tensors

WARM_UP, MIN_SAMPLES, MAX_SAMPLES = 3, 5, 200
FLUSH_BYTES = 256 << 20
"""Larger than any GPU's last-level cache: read between timed calls, so that none starts warm. Were
it written, a call would pay for the bytes that the cache has yet to write back."""

Call = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Timing:
    """Microseconds a call: median, 10th and 90th percentile of `samples` calls after warm-up."""

    median: float
    p10: float
    p90: float
    samples: int


@dataclass(frozen=True, slots=True)
class Captured:
    """A call captured on `args`, whose memory it reads and writes at every replay into `result`."""

    graph: torch.cuda.CUDAGraph
    args: Arguments
    result: Any

    def replay(self, values: list[torch.Tensor]) -> None:
        """Overwrite the arguments' tensors with `values`, replay, wait."""
        for static, value in zip(tensors(self.args), values, strict=True):
            static.copy_(value)
        self.graph.replay()
        torch.cuda.synchronize()


def watched(call: Call, args: Arguments, region: str) -> str:
    """Why a call may not be captured, as far as its torch operators show; "" if nothing does.

    Run the call once before. Works on a CPU; a kernel of Triton's is not looked into.
    """
    try:
        with capture_safe(region):
            call(**args)
    except CaptureUnsafe as error:
        return f"{error.asked}, {error.found}"
    return ""


def capture(call: Call, args: Arguments) -> Captured:
    """Capture call(**args) after one eager call, which compiles and allocates, on a side stream.

    The arguments hold afterwards what they held before. Raises RuntimeError when it cannot be
    captured (torch's accelerator errors are RuntimeErrors).
    """
    start = [t.clone() for t in tensors(args)]
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call(**args)
    torch.cuda.current_stream().wait_stream(stream)
    for static, value in zip(tensors(args), start, strict=True):
        static.copy_(value)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):  # torch.cuda.graph() would empty the allocator's cache, too
        graph.capture_begin()
        try:
            result = call(**args)
        finally:
            with warnings.catch_warnings():  # of no rows there is nothing to launch
                warnings.filterwarnings("ignore", "The CUDA Graph is empty")
                graph.capture_end()
    torch.cuda.synchronize()
    return Captured(graph, args, result)


def time_calls(call: Callable[[], Any], device: torch.device, budget_s: float) -> Timing:
    """Time single calls: stops at MAX_SAMPLES, or after budget_s once MIN_SAMPLES are in."""
    on_gpu = device.type == "cuda"
    flush = torch.zeros(FLUSH_BYTES // 8 if on_gpu else 0, dtype=torch.int64, device=device)
    sample = _gpu_us if on_gpu else _wall_us
    for _ in range(WARM_UP):
        call()
    samples: list[float] = []
    start = time.perf_counter()
    while len(samples) < MAX_SAMPLES:
        samples.append(sample(call, flush))
        if len(samples) >= MIN_SAMPLES and time.perf_counter() - start > budget_s:
            break
    p10, median, p90 = torch.tensor(samples).quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return Timing(median, p10, p90, len(samples))


def _wall_us(call: Callable[[], Any], flush: torch.Tensor) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e6


def _gpu_us(call: Callable[[], Any], flush: torch.Tensor) -> float:
    """The flush also keeps the GPU busy while the host enqueues the call, so that no gap between
    kernels that the host alone makes is counted."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    flush.sum()
    start.record()
    call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) * 1e3
