from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from bridge.errors import NotDurableError
from bridge.event import Delivery, Durable, Event, ParkReason
from bridge.kafka.partition_writer import PartitionWriters, WriterLimits
from bridge.kafka.publisher import Publisher
from bridge.kafka.record import MESSAGE_MAX_BYTES, Record
from bridge.kafka.routing import RoutingTable, partition
from tests.fakes import FakeKnownIds, FakeProducer, FakeSpool

TOPICS = {"drx.prescriptions.v1": 12, "drx.accounts.v1": 12, "drx.unrecognized.v1": 12}
SCHEMAS = {"prescription.sent": "drx.v1.PrescriptionSent", "system.ping": "drx.v1.SystemPing"}
RECEIVED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
# Never reached unless a test is about the deadline.
LONG_S = 60.0


class UnfitError(Exception):
    """Stands for the codec's refusal of a value."""


def encode(record: str, value: Any) -> bytes:
    if "unfit" in value:
        raise UnfitError
    return f"{record} {value.get('n', '')}".encode()


def no_spool() -> FakeSpool:
    spool = FakeSpool()
    spool.code = "disabled"
    return spool


def a_publisher(
    producer: FakeProducer,
    spool: FakeSpool | None = None,
    known_ids: FakeKnownIds | None = None,
    *,
    deadline_s: float = LONG_S,
    spool_after_s: float = LONG_S,
    records_max: int = 1000,
) -> Publisher:
    writers = PartitionWriters(
        producer=producer,
        spool=spool or no_spool(),
        known_ids=FakeKnownIds() if known_ids is None else known_ids,
        late_acks=Counter("late", "late", registry=CollectorRegistry()),
        limits=WriterLimits(deadline_s=deadline_s, spool_after_s=spool_after_s, records_max=records_max),
    )
    return Publisher(
        writers=writers,
        encode=encode,
        schemas=SCHEMAS,
        routing=RoutingTable(),
        partitions=12,
        instance="pod-1",
        ordinals=itertools.count(100),
        message_max_bytes=MESSAGE_MAX_BYTES,
    )


def a_delivery(delivery_id: str = "wh_1", *, body: bytes = b"{}") -> Delivery:
    return Delivery(
        source="drx",
        environment="sandbox",
        id=delivery_id,
        received_at=RECEIVED_AT,
        body=body,
        body_sha256="00" * 32,
        key_slot="current",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        headers={},
    )


def an_event(event_id: str = "evt_1", *, key: str = "rx_1", **value: object) -> Event:
    return Event(
        id=event_id,
        type="prescription.sent",
        source="drx",
        key=key,
        occurred_at=RECEIVED_AT,
        received_at=RECEIVED_AT,
        value=value,
    )


def send(publisher: Publisher, event: Event) -> asyncio.Future[Durable]:
    return asyncio.ensure_future(publisher.publish(a_delivery(event.id), (event,)))


def ids(records: list[Record]) -> list[bytes]:
    return [dict(record.headers)["ce_id"] for record in records]


async def code_of(waiting: Awaitable[Durable]) -> str:
    with pytest.raises(NotDurableError) as caught:
        await waiting
    return caught.value.code


@pytest.fixture
def producer() -> FakeProducer:
    return FakeProducer(dict(TOPICS))


async def test_publish_returns_only_when_kafka_has_the_record(producer: FakeProducer) -> None:
    producer.hold()
    sent = send(a_publisher(producer), an_event())
    await producer.wait_for_write()
    assert not sent.done()

    producer.flow()
    await sent

    assert ids(producer.records) == [b"evt_1"]


async def test_an_event_lands_on_the_topic_and_partition_of_its_type_and_key(producer: FakeProducer) -> None:
    await send(a_publisher(producer), an_event(key="rx_7", n=1))

    (record,) = producer.log["drx.prescriptions.v1", partition(b"rx_7", 12)]
    assert record.key == b"rx_7"
    assert record.value == b"drx.v1.PrescriptionSent 1"


async def test_events_of_one_partition_are_written_in_the_order_of_acceptance(producer: FakeProducer) -> None:
    """Whatever waits behind a write in flight makes the next batch, and nothing overtakes."""
    producer.hold()
    publisher = a_publisher(producer)
    first = send(publisher, an_event("e0"))
    await producer.wait_for_write()
    rest = [send(publisher, an_event(f"e{n}")) for n in range(1, 6)]

    producer.flow()
    await asyncio.gather(first, *rest)

    assert ids(producer.records) == [b"e0", b"e1", b"e2", b"e3", b"e4", b"e5"]
    assert producer.batches == [1, 5]


async def test_what_does_not_fit_a_batch_is_written_by_the_next_in_order(producer: FakeProducer) -> None:
    producer.batch_max = 2
    publisher = a_publisher(producer)

    await asyncio.gather(*[send(publisher, an_event(f"e{n}")) for n in range(5)])

    assert ids(producer.records) == [b"e0", b"e1", b"e2", b"e3", b"e4"]
    assert producer.batches == [2, 2, 1]


async def test_partitions_do_not_wait_for_each_other(producer: FakeProducer) -> None:
    producer.hold()
    publisher = a_publisher(producer)
    keys = ["rx_1", next(f"k{n}" for n in range(99) if partition(f"k{n}".encode(), 12) != partition(b"rx_1", 12))]

    sent = [send(publisher, an_event(key, key=key)) for key in keys]
    await producer.wait_for_write()
    await producer.wait_for_write()

    producer.flow()
    await asyncio.gather(*sent)


async def test_ordinals_rise_in_the_order_of_acceptance(producer: FakeProducer) -> None:
    publisher = a_publisher(producer)

    await asyncio.gather(*[send(publisher, an_event(f"e{n}", key=f"rx_{n}")) for n in range(4)])

    ordinals = {h["ce_id"]: h["drx_ordinal"] for h in (dict(record.headers) for record in producer.records)}
    assert [ordinals[f"e{n}".encode()] for n in range(4)] == [
        b"pod-1:100",
        b"pod-1:101",
        b"pod-1:102",
        b"pod-1:103",
    ]


async def test_a_delivery_of_several_events_waits_for_all_of_them(producer: FakeProducer) -> None:
    producer.batch_max = 1
    events = (an_event("e/0"), an_event("e/1"))

    await a_publisher(producer).publish(a_delivery(), events)

    assert ids(producer.records) == [b"e/0", b"e/1"]


async def test_a_delivery_that_is_no_event_is_kept_byte_for_byte(producer: FakeProducer) -> None:
    park = ParkReason("malformed_json", detail="syntax")

    await a_publisher(producer).publish(a_delivery("wh_9"), park)

    (record,) = producer.log["drx.unrecognized.v1", partition(b"wh_9", 12)]
    assert record.key == b"wh_9"
    assert dict(record.headers)["drx_reason"] == b"malformed_json"


async def test_nothing_of_a_delivery_is_written_when_one_event_does_not_fit_its_schema(producer: FakeProducer) -> None:
    publisher = a_publisher(producer)

    with pytest.raises(UnfitError):
        await publisher.publish(a_delivery(), (an_event("e0"), an_event("e1", unfit=True)))

    await send(publisher, an_event("e2"))
    assert ids(producer.records) == [b"e2"]


async def test_an_outcome_without_events_is_a_bug_and_never_answered_as_durable(producer: FakeProducer) -> None:
    with pytest.raises(ValueError, match=r"^\[\]$"):
        await a_publisher(producer).publish(a_delivery(), ())


async def test_without_kafka_the_answer_is_at_once(producer: FakeProducer) -> None:
    producer.connected = False

    assert await code_of(send_now(a_publisher(producer))) == "kafka_unavailable"


async def send_now(publisher: Publisher) -> Durable:
    return await publisher.publish(a_delivery(), (an_event(),))


async def test_a_sender_is_told_when_its_time_is_up_and_the_late_record_is_not_failed(producer: FakeProducer) -> None:
    """A record already handed over may still appear: it is unknown, not undone."""
    producer.hold()
    publisher = a_publisher(producer, deadline_s=0.01)

    assert await code_of(send_now(publisher)) == "deadline"

    producer.flow()
    await publisher.close(1)
    assert ids(producer.records) == [b"evt_1"]


async def test_a_record_that_nobody_waits_for_any_more_is_not_written(producer: FakeProducer) -> None:
    """Its sender was answered 503 and will come again; writing it too would only make a duplicate."""
    producer.hold()
    publisher = a_publisher(producer)
    first = send(publisher, an_event("e0"))
    await producer.wait_for_write()
    gone = send(publisher, an_event("e1"))
    last = send(publisher, an_event("e2"))

    gone.cancel()
    producer.flow()
    await asyncio.gather(first, last)

    assert ids(producer.records) == [b"e0", b"e2"]


async def test_a_partition_that_does_not_answer_is_not_waited_for_again(producer: FakeProducer) -> None:
    producer.hold()
    publisher = a_publisher(producer, deadline_s=0.01)
    await code_of(send_now(publisher))

    with pytest.raises(NotDurableError, match="kafka_unavailable"):
        publisher.publish(a_delivery(), (an_event(),))

    producer.flow()


async def test_the_queue_is_bounded(producer: FakeProducer) -> None:
    producer.hold()
    publisher = a_publisher(producer, records_max=2)
    sent = [send(publisher, an_event(f"e{n}")) for n in range(2)]

    with pytest.raises(NotDurableError, match="queue_full"):
        publisher.publish(a_delivery(), (an_event("e2"),))

    producer.flow()
    await asyncio.gather(*sent)
    await send(publisher, an_event("e3"))
    assert ids(producer.records) == [b"e0", b"e1", b"e3"]


async def test_a_delivery_of_more_events_than_the_queue_holds_is_taken_when_nothing_else_is(
    producer: FakeProducer,
) -> None:
    """Refused, it would be refused for ever: an order of Photon may have 10,080 fills."""
    producer.hold()
    publisher = a_publisher(producer, records_max=2)
    events = tuple(an_event(f"d/{n}") for n in range(3))
    first = send(publisher, an_event("e0"))
    with pytest.raises(NotDurableError, match="queue_full"):
        publisher.publish(a_delivery(), events)

    producer.flow()
    await first
    assert await publisher.publish(a_delivery(), events) == "committed"
    assert ids(producer.records) == [b"e0", b"d/0", b"d/1", b"d/2"]


async def test_a_record_that_kafka_refuses_fails_alone(producer: FakeProducer) -> None:
    producer.hold()
    producer.too_large = lambda record: dict(record.headers)["ce_id"] == b"e2"
    publisher = a_publisher(producer)
    sent = [send(publisher, an_event(f"e{n}")) for n in range(4)]
    await producer.wait_for_write()

    producer.flow()
    results = await asyncio.gather(*sent, return_exceptions=True)

    assert [str(result) for result in results] == ["committed", "committed", "record_too_large", "committed"]
    assert ids(producer.records) == [b"e0", b"e1", b"e3"]


async def test_a_write_that_fails_tells_its_senders_and_the_next_one_is_tried(producer: FakeProducer) -> None:
    publisher = a_publisher(producer)
    producer.failure = "outcome_unknown"
    assert await code_of(send_now(publisher)) == "outcome_unknown"

    producer.failure = None
    await send(publisher, an_event("e1"))

    assert ids(producer.records) == [b"e1"]


async def test_close_finishes_what_was_accepted_and_takes_nothing_more(producer: FakeProducer) -> None:
    producer.hold()
    publisher = a_publisher(producer)
    sent = send(publisher, an_event())
    await producer.wait_for_write()
    closing = asyncio.ensure_future(publisher.close(30))
    await asyncio.sleep(0)

    with pytest.raises(NotDurableError, match="shutting_down"):
        publisher.publish(a_delivery(), (an_event("late"),))

    producer.flow()
    await closing
    await sent
    assert ids(producer.records) == [b"evt_1"]
    assert producer.closed


async def test_close_ends_when_kafka_does_not(producer: FakeProducer) -> None:
    producer.hold()
    publisher = a_publisher(producer)
    sent = send(publisher, an_event())
    await producer.wait_for_write()

    await publisher.close(0)

    assert await code_of(sent) == "shutting_down"
    assert producer.closed
