"""OpenTelemetry traces: a span for each call, in the trace that its client began, if it did.

The libraries are the extra `otel`, imported when --otlp-traces-endpoint is given. Spans are our
own: one for the call from its arrival to its end, and below it what the engine spent on queue,
prefill and decode. Attribute names are those of OpenTelemetry's and vLLM's conventions. No text of
a prompt or an answer is in them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isobath import __version__
from isobath.engine.async_llm import Piece
from isobath.engine.output import Completion
from isobath.errors import ConfigError
from isobath.server.observe import Call

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer


class Traces:
    """An Observer that makes spans. model: its name in them."""

    def __init__(self, tracer: Tracer, model: str) -> None:
        self.tracer, self._model = tracer, model

    def started(self, call: Call) -> Tracked:
        """A call begins: so does its span, at its arrival."""
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        carrier = {"traceparent": call.traceparent} if call.traceparent else {}
        params = call.params
        attributes: dict[str, Any] = {
            "gen_ai.request.id": call.request_id,
            "gen_ai.request.model": self._model,
            "gen_ai.request.max_tokens": params.max_tokens,
            "gen_ai.request.temperature": params.temperature,
            "gen_ai.request.top_p": params.top_p,
            "gen_ai.request.n": params.n,
            "gen_ai.usage.prompt_tokens": len(call.prompt),
            "http.route": call.path,
        }
        span = self.tracer.start_span(
            "llm_request",
            context=TraceContextTextMapPropagator().extract(carrier),
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=_epoch(call.arrival),
        )
        return Tracked(self.tracer, span, call)


class Tracked:
    """One call as it goes on."""

    def __init__(self, tracer: Tracer, span: Span, call: Call) -> None:
        self._tracer, self._span, self._call = tracer, span, call
        self._first, self._tokens, self._open = 0.0, 0, call.params.n

    def piece(self, piece: Piece) -> None:
        """Something new of a completion."""
        self._tokens += len(piece.token_ids)
        if piece.token_ids and not self._first:
            self._first = time.perf_counter()
        if piece.completion is not None:
            self._open -= 1
            self._parts(piece.completion)

    def ended(self, error: BaseException | None) -> None:
        """Nothing more comes."""
        from opentelemetry.trace import Status, StatusCode

        now, span = time.perf_counter(), self._span
        span.set_attribute("gen_ai.usage.completion_tokens", self._tokens)
        span.set_attribute("gen_ai.latency.e2e", now - self._call.arrival)
        if self._first:
            waited = self._first - self._call.arrival
            span.set_attribute("gen_ai.latency.time_to_first_token", waited)
        if isinstance(error, Exception):
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        elif self._open:
            span.add_event("client went away")
        span.end()

    def _parts(self, done: Completion) -> None:
        """The engine's spans of a completion. Its clock is perf_counter's, on Linux."""
        from opentelemetry.trace import set_span_in_context

        times = done.times
        if times is None:
            return
        spent = {
            "queue": (times.queued, times.scheduled),
            "prefill": (times.scheduled, times.first),
            "decode": (times.first, times.last),
        }
        context = set_span_in_context(self._span)
        for name, (begin, end) in spent.items():
            part = self._tracer.start_span(
                name, context=context, start_time=_epoch(begin), attributes=_about(done)
            )
            part.end(_epoch(end))
        ours = "gen_ai.response.finish_reasons"
        self._span.set_attribute(ours, [done.finish_reason])


def tracing(endpoint: str, model: str) -> Traces:
    """Traces that are sent to an OTLP endpoint over HTTP. Raises ConfigError without the extra."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ConfigError(
            f"--otlp-traces-endpoint {endpoint}",
            found=str(error),
            do="pip install 'isobath[otel]'",
        ) from None
    resource = Resource.create({"service.name": "isobath", "service.version": __version__})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    return Traces(provider.get_tracer("isobath", __version__), model)


def _epoch(at: float) -> int:
    """Nanoseconds since 1970 of a moment on perf_counter's clock."""
    return time.time_ns() - int((time.perf_counter() - at) * 1e9)


def _about(done: Completion) -> Mapping[str, Any]:
    return {"isobath.completion": done.index, "isobath.cached_tokens": done.cached_tokens}
