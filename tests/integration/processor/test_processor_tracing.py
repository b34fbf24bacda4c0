import pytest

from bridge.event import Event
from bridge.runtime.tracing import open_tracing
from consumers.api import Consumer
from consumers.postgres.pool import Database
from tests.collector import attributes, collecting
from tests.kafka import until
from tests.logs import capture_logs
from tests.settling import PLACE, Effects, a_record, at_work

TRACES = [f"{number:032x}" for number in range(1, 5)]
PHI = "PHI000001IHP"


def bug(event: Event, tried: int) -> Exception | None:
    del tried
    return ValueError(PHI) if event.id == "evt_3" else None


async def test_spans_of_a_consumer_are_linked_to_the_deliveries(
    consumer: Consumer, database: Database, effects: Effects, monkeypatch: pytest.MonkeyPatch
) -> None:
    effects.fail = bug
    records = [
        record._replace(headers=[*record.headers, ("traceparent", f"00-{trace}-b7ad6b7169203331-01".encode())])
        for record, trace in zip((a_record(each, f"{PHI}_{each}") for each in range(4)), TRACES, strict=True)
    ]
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        with open_tracing("tests") as tracing, capture_logs() as lines:
            async with at_work(consumer, database, tracing=tracing) as bench:
                await bench.feed_all(records)
                await until(lambda: bench.outcome("parked") == 1)

    settled = [span for span in collector.spans("settle") if not span.status.code]
    assert {link.trace_id.hex() for span in settled for link in span.links} == set(TRACES[:3])
    failed = [span for span in collector.spans("handle") if span.status.code]
    assert {link.trace_id.hex() for link in failed[-1].links} == {TRACES[3]}
    assert attributes(failed[-1]) == {
        "messaging.system": "kafka",
        "messaging.consumer.group.name": "tests",
        "messaging.destination.name": PLACE.topic,
        "messaging.destination.partition.id": "0",
        "drx.code": "unexpected",
    }
    assert attributes(settled[0].links[0]) == {"drx.source": "drx", "drx.event_type": "prescription.sent"}
    assert [line["trace_id"] for line in lines if line["event"] == "record.parked"] == [TRACES[3]]
    assert not [each for each in collector.requests if PHI in str(each) or "evt_" in str(each)]
