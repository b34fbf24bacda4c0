# ruff: noqa: TID251 - this is the door to OpenTelemetry
"""Traces by OpenTelemetry: spans, and their export over OTLP/HTTP in a thread of the SDK.

The SDK queues spans that have ended. A collector that is away costs spans, never a delivery: the queue is bounded, and
the SDK drops what does not fit. No span holds an id, a key or text of a delivery, and no exception is recorded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bridge.errors import BridgeError

# Seconds that the end of a process waits for its last spans: what a stop has for closing files (`STOP_MARGIN_S`).
FLUSH_S = 1.0
_propagator = TraceContextTextMapPropagator()


class Tracing:
    """The traces of one process."""

    def __init__(self, service: str) -> None:
        """Export what ends from now on; variables may rename the service, and give its resource more attributes."""
        named = Resource.create({"service.name": service, "service.version": version("drx-bridge")})
        resource = named.merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("drx-bridge")

    def receive(self, given: bytes, began: float) -> tuple[str, partial[tuple[str, bool]]]:
        """Open the span of a delivery that came at `began`, by `perf_counter`, with its sender's `traceparent`.

        Returns its own `traceparent`, and how to end it (`_end`).
        """
        start = time.time_ns() - int((time.perf_counter() - began) * 1e9)
        parent = _parent(given.decode("ascii", "replace"))
        span = self._tracer.start_span("receive", parent, kind=trace.SpanKind.SERVER, start_time=start)
        context = span.get_span_context()
        traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        return traceparent, partial(_end, span)

    @contextmanager
    def consume(
        self, name: str, *, group: str, topic: str, partition: int, events: Iterable[tuple[str, str, str]]
    ) -> Iterator[None]:
        """Run within a span that is linked to deliveries: by `traceparent`, source and type of each event."""
        links = [
            trace.Link(context, {"drx.source": source, "drx.event_type": event_type})
            for traceparent, source, event_type in events
            if (context := _span_of(traceparent)).is_valid
        ]
        attributes = {
            "messaging.system": "kafka",
            "messaging.consumer.group.name": group,
            "messaging.destination.name": topic,
            "messaging.destination.partition.id": str(partition),
        }
        with self._tracer.start_as_current_span(
            name,
            kind=trace.SpanKind.CONSUMER,
            links=links,
            attributes=attributes,
            record_exception=False,  # its text may hold values
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except BaseException as exc:
                span.set_attribute("drx.code", exc.code if isinstance(exc, BridgeError) else "unexpected")
                span.set_status(trace.StatusCode.ERROR)
                raise

    @staticmethod
    def id_of(traceparent: str) -> str:
        """Return the id of a trace for the log; empty if there is none, as in a record of another producer."""
        context = _span_of(traceparent)
        return f"{context.trace_id:032x}" if context.is_valid else ""

    def close(self) -> None:
        """Export what is queued, if that takes no longer than `FLUSH_S`."""
        flushing = threading.Thread(target=self._provider.shutdown, name="flush-spans", daemon=True)
        flushing.start()
        flushing.join(FLUSH_S)


def _parent(traceparent: str) -> Context:
    return _propagator.extract({"traceparent": traceparent}, context=Context())


def _span_of(traceparent: str) -> trace.SpanContext:
    return trace.get_current_span(_parent(traceparent)).get_span_context()


def _end(span: trace.Span, source: str, *, outcome: str, code: str, event_type: str) -> tuple[str, bool]:
    """End the span of a delivery; return the id of its trace, and whether that is exported."""
    words = {"drx.source": source, "drx.outcome": outcome, "drx.code": code, "drx.event_type": event_type}
    span.set_attributes({name: word for name, word in words.items() if word})
    if outcome == "unavailable":
        span.set_status(trace.StatusCode.ERROR)
    span.end()
    context = span.get_span_context()
    return f"{context.trace_id:032x}", context.trace_flags.sampled
