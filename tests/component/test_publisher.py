"""What the publisher makes of a delivery, and what becomes of it where there is no spool."""

import asyncio
import itertools
from collections.abc import Awaitable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from bridge.errors import NotDurableError
from bridge.event import Durable, Event, ParkReason
from bridge.kafka.partition_writer import PartitionWriters, WriterLimits
from bridge.kafka.publisher import Publisher
from bridge.kafka.record import MESSAGE_MAX_BYTES, Record
from bridge.kafka.routing import RoutingTable, partition
from tests.builders import a_delivery, an_event
from tests.fakes import FakeKnownIds, FakeProducer, FakeSpool

TOPICS = {"drx.prescriptions.v1": 12, "drx.accounts.v1": 12, "drx.unrecognized.v1": 12}
# Never reached unless a test is about the deadline.
LONG_S = 60.0
pytestmark = pytest.mark.virtual_time


class UnfitError(Exception):
    """Stands for the codec's refusal of a value."""


def encode(record: str, value: Any) -> bytes:
    if value.get("unfit"):
        raise UnfitError
    return record.encode()


def a_publisher(producer: FakeProducer, *, deadline_s: float = LONG_S, records_max: int = 1000) -> Publisher:
    spool = FakeSpool()
    spool.code = "disabled"
    writers = PartitionWriters(
        producer=producer,
        spool=spool,
        known_ids=FakeKnownIds(),
        late_acks=Counter("late", "late", registry=CollectorRegistry()),
        limits=WriterLimits(deadline_s=deadline_s, spool_after_s=LONG_S, records_max=records_max),
    )
    return Publisher(
        writers=writers,
        encode=encode,
        schemas={"prescription.processed": "drx.v1.PrescriptionProcessed"},
        routing=RoutingTable(),
        partitions=12,
        instance="pod-1",
        ordinals=itertools.count(100),
        message_max_bytes=MESSAGE_MAX_BYTES,
    )


def send(publisher: Publisher, *events: Event) -> asyncio.Future[Durable]:
    return asyncio.ensure_future(publisher.publish(a_delivery(id=events[0].id), events))


def ids(records: list[Record]) -> list[str]:
    return [dict(record.headers)["ce_id"].decode() for record in records]


async def code_of(waiting: Awaitable[Durable]) -> str:
    with pytest.raises(NotDurableError) as caught:
        await waiting
    return caught.value.code


@pytest.fixture
def producer() -> FakeProducer:
    return FakeProducer(dict(TOPICS))


async def test_an_event_lands_on_the_topic_and_partition_of_its_type_and_key_under_the_next_ordinal(
    producer: FakeProducer,
) -> None:
    publisher = a_publisher(producer)
    for key in ("rx_7", "rx_8"):
        await send(publisher, an_event(id=key, key=key))

    records = [producer.log["drx.prescriptions.v1", partition(key, 12)][0] for key in (b"rx_7", b"rx_8")]
    assert [(record.key, record.value) for record in records] == [
        (key, b"drx.v1.PrescriptionProcessed") for key in (b"rx_7", b"rx_8")
    ]
    assert [dict(record.headers)["drx_ordinal"] for record in records] == [b"pod-1:100", b"pod-1:101"]


async def test_a_delivery_that_is_no_event_is_keyed_by_its_id(producer: FakeProducer) -> None:
    await a_publisher(producer).publish(a_delivery(id="wh_9"), ParkReason("malformed_json", detail="syntax"))

    (record,) = producer.log["drx.unrecognized.v1", partition(b"wh_9", 12)]
    assert (record.key, dict(record.headers)["drx_reason"]) == (b"wh_9", b"malformed_json")


async def test_nothing_of_a_delivery_is_written_when_one_event_does_not_fit_its_schema(producer: FakeProducer) -> None:
    publisher = a_publisher(producer)

    with pytest.raises(UnfitError):
        await send(publisher, an_event(id="e0"), an_event(id="e1", value={"unfit": True}))

    await send(publisher, an_event(id="e2"))
    assert ids(producer.records) == ["e2"]


async def test_an_outcome_without_events_is_a_bug_and_never_answered_as_durable(producer: FakeProducer) -> None:
    with pytest.raises(ValueError, match=r"^\[\]$"):
        await a_publisher(producer).publish(a_delivery(), ())


async def test_a_record_that_nobody_waits_for_any_more_is_not_written(producer: FakeProducer) -> None:
    """Its sender was answered 503 and will come again; writing it too would only make a duplicate."""
    producer.hold()
    publisher = a_publisher(producer)
    first = send(publisher, an_event(id="e0"))
    await producer.wait_for_write()
    gone = send(publisher, an_event(id="e1"))
    last = send(publisher, an_event(id="e2"))

    gone.cancel()
    producer.flow()
    await asyncio.gather(first, last)

    assert ids(producer.records) == ["e0", "e2"]


async def test_a_partition_that_does_not_answer_is_not_waited_for_again_and_its_late_record_stays(
    producer: FakeProducer,
) -> None:
    """A record already handed over may still appear: it is unknown, not undone."""
    producer.hold()
    publisher = a_publisher(producer, deadline_s=0.01)
    assert await code_of(send(publisher, an_event())) == "deadline"

    with pytest.raises(NotDurableError, match="kafka_unavailable"):
        publisher.publish(a_delivery(), (an_event(),))

    producer.flow()
    await publisher.close(1)
    assert ids(producer.records) == ["evt_1"]


async def test_the_queue_is_bounded_and_a_delivery_larger_than_it_is_taken_when_nothing_else_is(
    producer: FakeProducer,
) -> None:
    """Refused, it would be refused for ever: an order of Photon may have 10,080 fills."""
    producer.hold()
    publisher = a_publisher(producer, records_max=2)
    events = tuple(an_event(id=f"d/{n}") for n in range(3))
    sent = [send(publisher, an_event(id="e0"))]
    with pytest.raises(NotDurableError, match="queue_full"):
        publisher.publish(a_delivery(), events)
    sent.append(send(publisher, an_event(id="e1")))
    with pytest.raises(NotDurableError, match="queue_full"):
        publisher.publish(a_delivery(), (an_event(id="e2"),))

    producer.flow()
    await asyncio.gather(*sent)
    assert await publisher.publish(a_delivery(), events) == "committed"
    assert ids(producer.records) == ["e0", "e1", "d/0", "d/1", "d/2"]


async def test_a_write_that_fails_tells_its_senders_and_the_next_one_is_tried(producer: FakeProducer) -> None:
    publisher = a_publisher(producer)
    producer.failure = "outcome_unknown"
    assert await code_of(send(publisher, an_event())) == "outcome_unknown"

    producer.failure = None
    assert await send(publisher, an_event(id="e1")) == "committed"


@pytest.mark.parametrize(("timeout_s", "answers"), [(30, True), (0, False)])
async def test_close_takes_nothing_more_and_finishes_what_kafka_answers(
    producer: FakeProducer, timeout_s: float, *, answers: bool
) -> None:
    producer.hold()
    publisher = a_publisher(producer)
    sent = send(publisher, an_event())
    await producer.wait_for_write()
    closing = asyncio.ensure_future(publisher.close(timeout_s))
    await asyncio.sleep(0)

    with pytest.raises(NotDurableError, match="shutting_down"):
        publisher.publish(a_delivery(), (an_event(id="late"),))

    if answers:
        producer.flow()
        assert await sent == "committed"
    else:
        assert await code_of(sent) == "shutting_down"
    await closing
    assert ids(producer.records) == ["evt_1"] * answers
    assert producer.closed
