"""Traces of the ingress at a collector; exporting never delays or fails a delivery."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client.exposition import choose_encoder

from bridge.errors import ConfigError, NotDurableError
from bridge.runtime.tracing import open_tracing
from tests.builders import a_body, signed_headers
from tests.collector import Collector, attributes, collecting
from tests.component.test_ingress import Exploding, Ingress, running
from tests.fast_path_cases import fast_path as fast_path_of
from tests.integration.phi_documents import Marker
from tests.logs import capture_logs
from tests.waiting import until

SENDERS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as one:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", one.url)
        yield one


def traced(body: bytes, **headers: str) -> dict[str, str]:
    return signed_headers(body) | {"traceparent": SENDERS} | headers


def openmetrics(ingress: Ingress) -> str:
    encode, _ = choose_encoder("application/openmetrics-text; version=1.0.0")
    return encode(ingress.metrics.registry).decode()


async def test_a_delivery_is_a_span_of_its_senders_trace_and_the_parent_of_what_follows(collector: Collector) -> None:
    before = time.time_ns()
    with open_tracing("drx-bridge") as tracing, capture_logs() as lines:
        async with running(fast_path=fast_path_of("drx", "sandbox"), tracing=tracing) as ingress:
            assert (await ingress.post(headers=traced(a_body())))[0] == 200
            shown = openmetrics(ingress)
        (delivery, _), *_ = ingress.publisher.published

    (span,) = collector.spans()
    _, trace_id, span_id, flags = delivery.traceparent.split("-")
    assert (span.name, span.trace_id.hex(), span.span_id.hex()) == ("receive", trace_id, span_id)
    assert (trace_id, span.parent_span_id.hex()) == tuple(SENDERS.split("-")[1:3])
    assert int(flags, 16) & 1
    assert before <= span.start_time_unix_nano <= span.end_time_unix_nano <= time.time_ns()
    assert attributes(span) == {
        "drx.source": "drx",
        "drx.outcome": "accepted",
        "drx.event_type": "prescription.processed",
    }
    assert collector.resource()["service.name"] == "drx-bridge"
    assert [line["trace_id"] for line in lines if line["event"] == "delivery.accepted"] == [trace_id]
    (marked,) = [line for line in shown.splitlines() if "# {" in line]
    assert marked.startswith("drxbridge_http_request_duration_seconds_bucket")
    assert f'trace_id="{trace_id}"' in marked


def test_a_span_begins_at_the_receipt(collector: Collector) -> None:
    with open_tracing("drx-bridge") as tracing:
        assert tracing is not None
        _, end = tracing.receive(b"", time.perf_counter() - 60)
        end("drx", outcome="accepted", code="", event_type="")

    (span,) = collector.spans()
    assert span.end_time_unix_nano - span.start_time_unix_nano > 59e9


async def test_a_delivery_whose_trace_is_not_sampled_says_so_to_what_follows(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with open_tracing("drx-bridge") as tracing, capture_logs() as lines:
        async with running(tracing=tracing) as ingress:
            await ingress.post(headers=traced(a_body()))
            assert "# {" not in openmetrics(ingress)
        (delivery, _), *_ = ingress.publisher.published

    assert collector.spans() == []
    _, trace_id, _, flags = delivery.traceparent.split("-")
    assert not int(flags, 16) & 1
    assert [line["trace_id"] for line in lines if line["event"] == "delivery.accepted"] == [trace_id]


async def test_what_is_not_accepted_has_its_code_and_what_is_not_proved_has_no_span(collector: Collector) -> None:
    with open_tracing("drx-bridge") as tracing:
        async with running(tracing=tracing) as ingress:
            await ingress.post(b"[]")
            ingress.publisher.failures.append(NotDurableError("deadline"))
            await ingress.post(webhook_id="evt_2")
            assert (await ingress.post(headers=traced(a_body(), **{"webhook-signature": "v1,x"})))[0] == 401

    told = [(each := attributes(span))["drx.outcome"] + " " + each["drx.code"] for span in collector.spans()]
    assert sorted(told) == ["parked malformed_json", "unavailable deadline"]


async def test_no_span_holds_anything_of_a_body_an_id_or_a_key(collector: Collector) -> None:
    marker = Marker()
    marked = [marker.document(kind, event_id=marker.text()) for kind in ("prescription.created", "fill.status_changed")]
    bodies = [json.dumps(each.document).encode() for each in marked]
    bodies += [body.replace(b'"version": "1"', b'"version": "%s"' % marker.text().encode()) for body in bodies]
    with open_tracing("drx-bridge") as tracing:
        for profile in (None, Exploding()):
            async with running(profile=profile, tracing=tracing) as ingress:
                for body in (*bodies, b"{" + bodies[0]):
                    headers = signed_headers(body, webhook_id=marker.text()) | {"user-agent": marker.text()}
                    headers |= {"traceparent": marker.text(), "tracestate": f"x={marker.text()}", "baggage": "PHI=1"}
                    assert (await ingress.post(body, headers=headers))[0] in {200, 202}

    assert len(collector.spans()) == 10
    assert not [each for each in collector.requests if "PHI" in str(each)]


async def test_a_collector_that_hangs_delays_no_delivery_and_no_stop(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More deliveries than the queue has places: the SDK drops their spans."""
    collector.open.clear()
    for name, size in (("MAX_QUEUE_SIZE", "4"), ("MAX_EXPORT_BATCH_SIZE", "2")):
        monkeypatch.setenv(f"OTEL_BSP_{name}", size)
    with open_tracing("drx-bridge") as tracing:
        async with running(fast_path=fast_path_of("drx", "sandbox"), tracing=tracing) as ingress:
            answers = [(await ingress.post(webhook_id=f"evt_{each}"))[0] for each in range(40)]
            await until(collector.asked.is_set)

    assert answers == [200] * 40
    assert "flush-spans" in {each.name for each in threading.enumerate()}, "the stop has waited for the collector"
    collector.open.set()
    await until(lambda: "flush-spans" not in {each.name for each in threading.enumerate()})
    assert 0 < len(collector.spans()) < 40


@pytest.mark.parametrize(
    "name", ["OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none", "OTEL_EXPORTER_OTLP_ENDPOINT="]
)
def test_the_standard_variables_turn_traces_off(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv(*name.split("="))

    with open_tracing("drx-bridge") as tracing:
        assert tracing is None


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL: traces are exported by http/protobuf"),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, "OTEL_… has a value"),
    ],
)
def test_a_start_refuses_what_it_can_not_export_by(
    monkeypatch: pytest.MonkeyPatch, collector: Collector, variables: dict[str, str], complaint: str
) -> None:
    del collector
    for each in variables.items():
        monkeypatch.setenv(*each)

    with pytest.raises(ConfigError, match=complaint), open_tracing("drx-bridge"):
        pass


def test_a_start_refuses_an_endpoint_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with (
        pytest.raises(ConfigError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT needs opentelemetry.*`otel`"),
        open_tracing("x"),
    ):
        pass


def test_nothing_of_opentelemetry_is_imported_while_traces_are_off() -> None:
    code = "import sys, bridge.app, consumers.app; sys.exit('opentelemetry' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0  # noqa: S603 - our own
