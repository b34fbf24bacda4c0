# ruff: noqa: PLC0415, TID251 - OpenTelemetry is imported here alone: 7 MB and 0.14 s of CPU, saved where it is off
"""Traces with OpenTelemetry (extra `otel`): spans, exported over OTLP/HTTP in a thread of the SDK.

The standard variables `OTEL_…` control whether and how traces are exported. While the collector is away, ended spans
are queued, and the SDK drops those that do not fit; deliveries are not affected. Spans contain no id, key or content
of a delivery, and no exception.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Any

from bridge.errors import BridgeError, ConfigError

# Seconds that a process waits for its last spans at exit, like `STOP_MARGIN_S` for closing files.
FLUSH_S = 1.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


@contextmanager
def open_tracing(service: str) -> "Iterator[Tracing | None]":
    """Export traces of `service` if an endpoint is set and they are not disabled; else yield None.

    Raises `ConfigError` if the extra is not installed or a variable has an invalid value.
    """
    get = os.environ.get
    endpoint = next(filter(get, _ENDPOINTS), None)
    if endpoint is None or get("OTEL_SDK_DISABLED", "").lower() == "true" or get("OTEL_TRACES_EXPORTER") == "none":
        yield None
        return
    protocol = next(filter(get, _PROTOCOLS), "")
    if protocol and get(protocol) != "http/protobuf":
        raise ConfigError(f"{protocol}: traces are exported by http/protobuf only")
    try:
        tracing = Tracing(service)
    except ModuleNotFoundError as exc:
        raise ConfigError(f"{endpoint} needs {exc.name}: install the package with its extra `otel`") from exc
    except ValueError as exc:
        raise ConfigError("a variable OTEL_… has a value that OpenTelemetry refuses") from exc
    try:
        yield tracing
    finally:
        tracing.close()


class Tracing:
    """The traces of one process."""

    def __init__(self, service: str) -> None:
        """Export ended spans; variables may rename the service, and add attributes to its resource."""
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        named = Resource.create({"service.name": service, "service.version": version("drx-bridge")})
        resource = named.merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer: Any = self._provider.get_tracer("drx-bridge")
        self._api: Any = trace
        self._none, self._extract = Context(), TraceContextTextMapPropagator().extract

    def receive(self, given: bytes, began: float) -> tuple[str, partial[tuple[str, bool]]]:
        """Open the span of a delivery begun at `began` (`perf_counter`); return its `traceparent` and end function."""
        start = time.time_ns() - int((time.perf_counter() - began) * 1e9)
        parent = self._parent(given.decode("ascii", "replace"))
        span = self._tracer.start_span("receive", parent, kind=self._api.SpanKind.SERVER, start_time=start)
        context = span.get_span_context()
        traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
        return traceparent, partial(self._end, span)

    def _end(self, span: Any, source: str, *, outcome: str, code: str, event_type: str) -> tuple[str, bool]:
        """End the span of a delivery; return its trace id, and whether the trace is exported."""
        words = {"drx.source": source, "drx.outcome": outcome, "drx.code": code, "drx.event_type": event_type}
        span.set_attributes({name: word for name, word in words.items() if word})
        if outcome == "unavailable":
            span.set_status(self._api.StatusCode.ERROR)
        span.end()
        context = span.get_span_context()
        return f"{context.trace_id:032x}", context.trace_flags.sampled

    @contextmanager
    def consume(
        self, name: str, *, group: str, topic: str, partition: int, events: Iterable[tuple[str, str, str]]
    ) -> Iterator[None]:
        """Run within a span linked to deliveries; `events` has `traceparent`, source and type of each."""
        links = [
            self._api.Link(context, {"drx.source": source, "drx.event_type": event_type})
            for traceparent, source, event_type in events
            if (context := self._of(traceparent)).is_valid
        ]
        span = self._tracer.start_as_current_span(
            name,
            kind=self._api.SpanKind.CONSUMER,
            links=links,
            attributes={
                "messaging.system": "kafka",
                "messaging.consumer.group.name": group,
                "messaging.destination.name": topic,
                "messaging.destination.partition.id": str(partition),
            },
            record_exception=False,  # its message may contain values
            set_status_on_exception=False,
        )
        with span as current:
            try:
                yield
            except BaseException as exc:
                current.set_attribute("drx.code", exc.code if isinstance(exc, BridgeError) else "unexpected")
                current.set_status(self._api.StatusCode.ERROR)
                raise

    def id_of(self, traceparent: str) -> str:
        """Return the trace id for the log; empty if there is none, as in another producer's record."""
        context = self._of(traceparent)
        return f"{context.trace_id:032x}" if context.is_valid else ""

    def _of(self, traceparent: str) -> Any:
        return self._api.get_current_span(self._parent(traceparent)).get_span_context()

    def _parent(self, traceparent: str) -> Any:
        return self._extract({"traceparent": traceparent}, context=self._none)

    def close(self) -> None:
        """Export queued spans, within `FLUSH_S`."""
        flushing = threading.Thread(target=self._provider.shutdown, name="flush-spans", daemon=True)
        flushing.start()
        flushing.join(FLUSH_S)
