"""Prometheus metrics, under the names that vLLM's dashboards, routers and autoscalers ask for.

What an engine counts is read from its latest record when somebody scrapes; what a request lives
through is observed here, in the server's process, as its pieces pass by. Labels are model_name and
engine. Each server has a registry of its own. Of several engines, requests are counted under the
engine "all", because a request does not say where it ran.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from isobath import __version__
from isobath.engine.async_llm import Piece
from isobath.engine.output import Completion
from isobath.engine.statistics import STEP_TOKENS, EngineStatistics
from isobath.server.observe import Call
from isobath.server.state import ServerState

LABELS = ("model_name", "engine")
REASONS = ("stop", "length", "abort", "error")
# The edges that vLLM's dashboards know; 1, 2 and 5 ms are ours, since a decode step takes less
# than 10.
# fmt: off
FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5,
         10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0)
BETWEEN = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75,
           1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0)
WHOLE = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0,
         *(60.0 * minutes for minutes in (1, 2, 4, 8, 16, 32, 128)))
# fmt: on
TOKENS = tuple(m * 10**e for e in range(7) for m in (1, 2, 5) if m * 10**e <= 2_000_000)
HISTOGRAMS = {
    "time_to_first_token_seconds": ("From arrival to the first token.", FIRST),
    "inter_token_latency_seconds": ("Between tokens of a completion.", BETWEEN),
    "request_time_per_output_token_seconds": ("Mean of it, a request.", BETWEEN),
    "e2e_request_latency_seconds": ("From arrival to the end.", WHOLE),
    "request_queue_time_seconds": ("Waiting to be scheduled.", WHOLE),
    "request_prefill_time_seconds": ("From there to the first token.", WHOLE),
    "request_decode_time_seconds": ("From there to the last token.", WHOLE),
    "request_inference_time_seconds": ("Prefill and decode.", WHOLE),
    "request_prompt_tokens": ("Tokens of the prompt.", TOKENS),
    "request_generation_tokens": ("Tokens of the completion.", TOKENS),
}


class Metrics:
    """A server's registry; an Observer of its calls."""

    def __init__(self, state: ServerState) -> None:
        self.registry = CollectorRegistry()
        several = state.config.data_parallel_size > 1
        self._own = (state.models.first, "all" if several else "0")
        self._histograms = {
            name: self._histogram(name, text, edges) for name, (text, edges) in HISTOGRAMS.items()
        }
        success = self._counter("vllm:request_success", "Finished requests.", "finished_reason")
        self._success = {reason: success.labels(*self._own, reason) for reason in REASONS}
        empty = self._counter("isobath:empty_completions", "Chats that ended with nothing said.")
        self._empty = empty.labels(*self._own)
        self.registry.register(_Engines(state))

    def started(self, call: Call) -> Watch:
        """A call begins."""
        return Watch(self, call)

    def empty_completion(self) -> None:
        """A chat ended without content and without a call."""
        self._empty.inc()

    def observe(self, name: str, value: float) -> None:
        """One value of a histogram, by its name without prefix."""
        self._histograms[name].observe(value)

    def finished(self, reason: str) -> None:
        """A completion ended, for one of REASONS."""
        self._success[reason if reason in REASONS else "stop"].inc()

    def exposition(self) -> bytes:
        """What a scrape reads."""
        return generate_latest(self.registry)

    def _histogram(self, name: str, text: str, edges: tuple[float, ...]) -> Histogram:
        made = Histogram(f"vllm:{name}", text, LABELS, registry=self.registry, buckets=edges)
        return made.labels(*self._own)

    def _counter(self, name: str, text: str, *more: str) -> Counter:
        return Counter(name, text, (*LABELS, *more), registry=self.registry)


class Watch:
    """One call as it goes on."""

    __slots__ = ("_call", "_last", "_metrics", "_open")

    def __init__(self, metrics: Metrics, call: Call) -> None:
        self._metrics, self._call = metrics, call
        self._last: dict[int, float] = {}  # completion -> when its last token came
        self._open = call.params.n

    def piece(self, piece: Piece) -> None:
        """Something new of a completion."""
        now, metrics = perf_counter(), self._metrics
        if piece.token_ids:
            last = self._last.get(piece.index)
            if last is not None:
                metrics.observe("inter_token_latency_seconds", now - last)
            elif not self._last:
                metrics.observe("time_to_first_token_seconds", now - self._call.arrival)
            self._last[piece.index] = now
        if piece.completion is not None:
            self._open -= 1
            metrics.finished(piece.completion.finish_reason)
            self._measure(piece.completion, now)

    def ended(self, error: BaseException | None) -> None:
        """Nothing more comes. What has no completion was given up, or failed."""
        went_away = error is None or not isinstance(error, Exception)
        for _ in range(self._open):
            self._metrics.finished("abort" if went_away else "error")
        self._open = 0

    def _measure(self, done: Completion, now: float) -> None:
        observe, times, size = self._metrics.observe, done.times, len(done.token_ids)
        observe("e2e_request_latency_seconds", now - self._call.arrival)
        observe("request_prompt_tokens", len(done.prompt_token_ids))
        observe("request_generation_tokens", size)
        if times is None:
            return
        observe("request_queue_time_seconds", times.scheduled - times.queued)
        observe("request_prefill_time_seconds", times.first - times.scheduled)
        observe("request_decode_time_seconds", times.last - times.first)
        observe("request_inference_time_seconds", times.last - times.scheduled)
        if size > 1:
            pace = (times.last - times.first) / (size - 1)
            observe("request_time_per_output_token_seconds", pace)


class _Engines(Collector):
    """What the engines count, read when it is asked for."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        backend, name = self._state.backend, self._state.models.first
        records = backend.statistics() if backend else []
        for gauge, text in GAUGES.items():
            family = GaugeMetricFamily(f"vllm:{gauge}", text, labels=LABELS)
            for record in records:
                family.add_metric((name, str(record.engine)), _gauge(record, gauge))
            yield family
        for counter, (field, text) in COUNTERS.items():
            total = CounterMetricFamily(f"vllm:{counter}", text, labels=LABELS)
            for record in records:
                total.add_metric((name, str(record.engine)), getattr(record, field))
            yield total
        steps = HistogramMetricFamily(
            "vllm:iteration_tokens_total", "Tokens computed in a step.", labels=LABELS
        )
        for record in records:
            steps.add_metric((name, str(record.engine)), *_steps(record))
        yield steps
        yield from self._facts(records, name)

    def _facts(self, records: list[EngineStatistics], name: str) -> Iterator[Metric]:
        """Gauges of 1 whose labels say something."""
        engine = self._state.config.engine
        cache = GaugeMetricFamily(
            "vllm:cache_config_info",
            "How the cache is divided.",
            labels=(*LABELS, "block_size", "num_gpu_blocks", "enable_prefix_caching"),
        )
        for record in records:
            sizes = (str(record.page_tokens), str(record.num_pages))
            labels = (name, str(record.engine), *sizes, str(engine.prefix_caching))
            cache.add_metric(labels, 1)
        yield cache
        build = GaugeMetricFamily("isobath:build_info", "What runs.", labels=("version",))
        build.add_metric((__version__,), 1)
        yield build


GAUGES = {
    "num_requests_running": "Sequences that run.",
    "num_requests_waiting": "Sequences that wait to be scheduled.",
    "kv_cache_usage_perc": "Share of the cache's pages in use; 1 is all.",
}
COUNTERS = {
    "prompt_tokens": ("prompt_tokens", "Tokens of prompts, cached ones included."),
    "generation_tokens": ("generation_tokens", "Tokens generated."),
    "num_preemptions": ("preemptions", "Sequences sent back to the line."),
    "prefix_cache_queries": ("prefix_queries", "Tokens looked up in the prefix cache."),
    "prefix_cache_hits": ("prefix_hits", "Tokens found there."),
}


def router(state: ServerState) -> APIRouter:
    """/metrics, for GET and HEAD. Makes the registry; requests are counted once the state's backend
    is observed by it."""
    metrics = state.metrics = Metrics(state)
    routes = APIRouter()

    @routes.api_route("/metrics", methods=["GET", "HEAD"], include_in_schema=False)
    def scrape(request: Request) -> Response:
        body = metrics.exposition() if request.method == "GET" else b""
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    return routes


def _gauge(record: EngineStatistics, name: str) -> float:
    values = {
        "num_requests_running": record.running,
        "num_requests_waiting": record.waiting,
        "kv_cache_usage_perc": record.kv_cache_usage,
    }
    return values[name]


def _steps(record: EngineStatistics) -> tuple[list[tuple[str, float]], float]:
    """(cumulative buckets, sum)."""
    buckets, total = [], 0
    edges = [*(f"{edge}.0" for edge in STEP_TOKENS), "+Inf"]
    for edge, count in zip(edges, record.step_tokens, strict=True):
        total += count
        buckets.append((edge, float(total)))
    return buckets, float(record.computed_tokens)
