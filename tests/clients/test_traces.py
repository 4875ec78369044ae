"""OpenTelemetry spans: one a call, in the client's trace, with the engine's times below it."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from itertools import pairwise

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from isobath import AsyncLLM, SamplingParams
from isobath.errors import RequestError
from isobath.server.gate import ARRIVED, Arrived
from isobath.server.observe import Observed
from isobath.server.traces import Traces

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARAMS = SamplingParams(max_tokens=5, ignore_eos=True)


@pytest.fixture
def kept() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def observed(llm: AsyncLLM, kept: InMemorySpanExporter) -> Observed:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    return Observed(llm, [Traces(provider.get_tracer("test"), "m")])


async def call(backend: Observed, params: SamplingParams = PARAMS, most: int = 1000) -> None:
    """A call of a client with a trace, that goes away after `most` pieces."""
    loop = asyncio.get_running_loop()
    arrived = Arrived("/v1/completions", loop.time(), f"00-{TRACE}-{PARENT}-01")
    ARRIVED.set(arrived)
    async with aclosing(backend.generate([5, 6, 7], params)) as pieces:
        async for _ in pieces:
            most -= 1
            if not most:
                return


def by_name(kept: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in kept.get_finished_spans()}


def test_a_call_is_a_span_of_its_clients_trace_with_parts(
    llm: AsyncLLM, kept: InMemorySpanExporter
) -> None:
    asyncio.run(call(observed(llm, kept)))
    spans = by_name(kept)
    assert set(spans) == {"llm_request", "queue", "prefill", "decode"}
    whole = spans["llm_request"]
    assert whole.context is not None and whole.parent is not None
    assert f"{whole.context.trace_id:032x}" == TRACE
    assert f"{whole.parent.span_id:016x}" == PARENT
    assert whole.attributes is not None
    assert whole.attributes["gen_ai.usage.completion_tokens"] == 5
    assert whole.attributes["gen_ai.usage.prompt_tokens"] == 3
    assert whole.attributes["gen_ai.response.finish_reasons"] == ("length",)
    ends = [
        (spans[name].start_time, spans[name].end_time) for name in ("queue", "prefill", "decode")
    ]
    for (_, end), (begin, _) in pairwise(ends):
        assert end is not None and begin is not None
        # Each moment is moved to the wall clock by itself, and two readings are microseconds apart.
        assert abs(end - begin) < 50e6
    for name in ("queue", "prefill", "decode"):
        parent = spans[name].parent
        assert parent is not None and parent.span_id == whole.context.span_id


def test_a_client_that_leaves_is_an_event_and_no_error(
    llm: AsyncLLM, kept: InMemorySpanExporter
) -> None:
    long = SamplingParams(max_tokens=2000, ignore_eos=True)
    asyncio.run(call(observed(llm, kept), long, most=2))
    whole = by_name(kept)["llm_request"]
    assert [event.name for event in whole.events] == ["client went away"]
    assert whole.status.status_code != StatusCode.ERROR


def test_a_refused_call_ends_as_an_error(llm: AsyncLLM, kept: InMemorySpanExporter) -> None:
    with pytest.raises(RequestError):
        asyncio.run(call(observed(llm, kept), SamplingParams(max_tokens=1 << 30)))
    assert by_name(kept)["llm_request"].status.status_code == StatusCode.ERROR


def test_no_text_is_in_a_span(llm: AsyncLLM, kept: InMemorySpanExporter) -> None:
    asyncio.run(call(observed(llm, kept)))
    for span in kept.get_finished_spans():
        for name in span.attributes or {}:
            assert "content" not in name and not name.endswith((".prompt", ".completion.text"))
