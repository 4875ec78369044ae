"""/metrics as Prometheus, routers and benchmark clients read it; the line every ten seconds."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from isobath.config import ServerConfig
from isobath.engine.statistics import STEP_TOKENS, EngineStatistics
from isobath.server.server_log import Quiet, Totals, tell_statistics
from isobath.server.state import ServerState
from tests.support.http_server import Served

GAUGES = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
COUNTERS = (
    "prompt_tokens",
    "generation_tokens",
    "request_success",
    "num_preemptions",
    "prefix_cache_queries",
    "prefix_cache_hits",
)
HISTOGRAMS = (
    "time_to_first_token_seconds",
    "inter_token_latency_seconds",
    "request_time_per_output_token_seconds",
    "e2e_request_latency_seconds",
    "request_queue_time_seconds",
    "request_prefill_time_seconds",
    "request_decode_time_seconds",
    "request_inference_time_seconds",
    "request_prompt_tokens",
    "request_generation_tokens",
    "iteration_tokens_total",
)
"""The names that dashboards and routers query."""
BODY = {"prompt": "The json module", "max_tokens": 7, "ignore_eos": True}
LINE = re.compile(
    r"Avg prompt throughput: \d+\.\d tokens/s, Avg generation throughput: \d+\.\d tokens/s, "
    r"Running: \d+ reqs, Waiting: \d+ reqs, GPU KV cache usage: \d+\.\d%, "
    r"Prefix cache hit rate: \d+\.\d%"
)

Samples = dict[tuple[str, ...], float]


def scraped(http: httpx.Client) -> Samples:
    """(name, further label values...) -> value."""
    found = {}
    for family in text_string_to_metric_families(http.get("/metrics").text):
        for sample in family.samples:
            more = [v for k, v in sample.labels.items() if k not in ("model_name", "engine")]
            found[(sample.name, *more)] = sample.value
    return found


def settled(http: httpx.Client, generated: float) -> Samples:
    """A scrape from after the engine has told of that many tokens."""
    limit = time.monotonic() + 10
    while True:
        now = scraped(http)
        at_rest = not now["vllm:num_requests_running",]
        if at_rest and now["vllm:generation_tokens_total",] >= generated:
            return now
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_every_name_is_there_with_its_labels(http: httpx.Client) -> None:
    families = {f.name: f for f in text_string_to_metric_families(http.get("/metrics").text)}
    kinds = {"gauge": GAUGES, "counter": COUNTERS, "histogram": HISTOGRAMS}
    for kind, names in kinds.items():
        for name in names:
            family = families[f"vllm:{name}"]
            assert family.type == kind, name
            for sample in family.samples:
                assert {"model_name", "engine"} <= set(sample.labels), name
    info = families["vllm:cache_config_info"].samples[0]
    assert int(info.labels["num_gpu_blocks"]) > 0 and int(info.labels["block_size"]) == 128
    assert "isobath:empty_completions" in families


def test_head_and_get_answer_and_nothing_redirects(http: httpx.Client) -> None:
    head, get = http.head("/metrics"), http.get("/metrics")
    assert head.status_code == get.status_code == 200
    assert head.headers["content-type"] == get.headers["content-type"]
    assert get.headers["content-type"].startswith("text/plain") and not head.content


def test_a_request_moves_what_it_should(http: httpx.Client) -> None:
    before = scraped(http)
    told = http.post("/v1/completions", json=BODY).json()["usage"]
    after = settled(http, before["vllm:generation_tokens_total",] + 7)
    grown = {key: after[key] - before[key] for key in after if key in before}
    assert grown["vllm:generation_tokens_total",] == told["completion_tokens"] == 7
    assert grown["vllm:prompt_tokens_total",] == told["prompt_tokens"]
    assert grown["vllm:request_success_total", "length"] == 1
    assert grown["vllm:inter_token_latency_seconds_count",] == 6
    # A request's last token is never computed: nothing follows it.
    assert grown["vllm:iteration_tokens_total_sum",] == told["prompt_tokens"] + 7 - 1
    for name in HISTOGRAMS:
        if name not in ("inter_token_latency_seconds", "iteration_tokens_total"):
            assert grown[f"vllm:{name}_count",] == 1, name
    parts = ("queue", "prefill", "decode")
    whole = sum(grown[f"vllm:request_{part}_time_seconds_sum",] for part in parts)
    assert whole <= grown["vllm:e2e_request_latency_seconds_sum",]


def test_an_abandoned_stream_counts_as_an_abort(http: httpx.Client) -> None:
    before = scraped(http)
    with http.stream("POST", "/v1/completions", json=BODY | {"max_tokens": 4000, "stream": True}):
        pass
    key = ("vllm:request_success_total", "abort")
    limit = time.monotonic() + 10
    while scraped(http)[key] == before[key]:
        assert time.monotonic() < limit
        time.sleep(0.01)
    assert scraped(http)[key] == before[key] + 1


class Counting:
    """A backend of which only statistics are asked."""

    def __init__(self) -> None:
        self.record = EngineStatistics()

    def statistics(self) -> list[EngineStatistics]:
        return [self.record]


@pytest.fixture
def heard() -> Iterator[list[str]]:
    """Messages that isobath.server logs."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("isobath.server")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield lines
    log.removeHandler(handler)


def test_the_line_is_vllms_and_an_idle_server_is_silent(heard: list[str]) -> None:
    backend = Counting()

    async def main() -> None:
        state = ServerState(ServerConfig(), backend)  # type: ignore[arg-type]
        telling = asyncio.create_task(tell_statistics(state, 0.02))
        await asyncio.sleep(0.1)
        assert not heard
        backend.record = EngineStatistics(generation_tokens=30, prefix_queries=8, prefix_hits=2)
        await asyncio.sleep(0.2)
        telling.cancel()

    asyncio.run(main())
    [line] = heard
    assert LINE.fullmatch(line) and line.endswith("Prefix cache hit rate: 25.0%")


def test_rates_are_of_the_interval_and_a_restart_is_no_negative_one() -> None:
    before = Totals(prompt=100, generation=50, queries=10, hits=10)
    now = Totals(prompt=300, generation=80, queries=30, hits=15, running=2, usage=0.125)
    line = now.line(before, 10)
    assert line and LINE.fullmatch(line)
    assert "prompt throughput: 20.0" in line and "generation throughput: 3.0" in line
    assert "usage: 12.5%" in line and "hit rate: 25.0%" in line
    assert "-" not in (Totals(running=1).line(before, 10) or "-")


def test_every_step_has_a_bucket(http: httpx.Client, server: Served) -> None:
    assert server.state.backend is not None
    record = server.state.backend.statistics()[0]
    edges = [k for k in scraped(http) if k[0] == "vllm:iteration_tokens_total_bucket"]
    assert len(edges) == len(record.step_tokens) == len(STEP_TOKENS) + 1


def test_requests_are_logged_without_their_text(http: httpx.Client, heard: list[str]) -> None:
    headers = {"x-request-id": "named-by-us"}
    http.post("/v1/completions", json=BODY | {"prompt": "zebra"}, headers=headers)
    limit = time.monotonic() + 10
    while not heard:
        assert time.monotonic() < limit
        time.sleep(0.01)
    [line] = heard
    assert line.startswith("named-by-us /v1/completions: ")
    assert "7 generated, length" in line and "zebra" not in line


def test_access_lines_can_be_left_out_by_path() -> None:
    quiet = Quiet(["/health"])

    def passes(path: str) -> bool:
        arguments = ("127.0.0.1:1", "GET", path, "1.1", 200)
        record = logging.LogRecord("uvicorn.access", 20, "", 0, "%s %s %s %s %d", arguments, None)
        return bool(quiet.filter(record))

    assert [passes(p) for p in ("/health", "/health?x=1", "/v1/models")] == [False, False, True]
