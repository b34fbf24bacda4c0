"""Records that the publisher builds from a delivery."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from bridge.app import open_durability
from bridge.event import ParkReason
from bridge.kafka.partition_writer import PartitionWriters, WriterLimits
from bridge.kafka.publisher import Publisher, ordinals
from bridge.kafka.record import MESSAGE_MAX_BYTES
from bridge.kafka.routing import RoutingTable, partition
from bridge.runtime.metrics import IngressMetrics
from bridge.settings import Settings
from tests.builders import a_delivery, an_event, identity_in
from tests.fakes import FakeKnownIds, FakeProducer, FakeSpool

TOPICS = {"drx.prescriptions.v1": 12, "drx.unrecognized.v1": 12}


class UnfitError(Exception):
    """Stands for the codec's refusal of a value."""


def encode(record: str, value: Any) -> bytes:
    if value.get("unfit"):
        raise UnfitError
    return record.encode()


@pytest.fixture
def producer() -> FakeProducer:
    return FakeProducer(TOPICS)


@pytest.fixture
def publisher(producer: FakeProducer) -> Publisher:
    writers = PartitionWriters(
        producer=producer,
        spool=FakeSpool(),
        known_ids=FakeKnownIds(),
        late_acks=Counter("late", "late", registry=CollectorRegistry()),
        limits=WriterLimits(),
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


async def test_an_event_lands_on_the_topic_and_partition_of_its_type_and_key_under_the_next_ordinal(
    publisher: Publisher, producer: FakeProducer
) -> None:
    for key in ("rx_7", "rx_8"):
        await publisher.publish(a_delivery(id=key), (an_event(id=key, key=key),))

    records = [producer.log["drx.prescriptions.v1", partition(key, 12)][0] for key in (b"rx_7", b"rx_8")]
    assert [(record.key, record.value) for record in records] == [
        (key, b"drx.v1.PrescriptionProcessed") for key in (b"rx_7", b"rx_8")
    ]
    assert [dict(record.headers)["drx_ordinal"] for record in records] == [b"pod-1:100", b"pod-1:101"]


async def test_a_delivery_that_is_no_event_is_keyed_by_its_id(publisher: Publisher, producer: FakeProducer) -> None:
    await publisher.publish(a_delivery(id="wh_9"), ParkReason("malformed_json", detail="syntax"))

    (record,) = producer.log["drx.unrecognized.v1", partition(b"wh_9", 12)]
    assert (record.key, dict(record.headers)["drx_reason"]) == (b"wh_9", b"malformed_json")


async def test_nothing_of_a_delivery_is_written_when_one_event_does_not_fit_its_schema(
    publisher: Publisher, producer: FakeProducer
) -> None:
    with pytest.raises(UnfitError):
        publisher.publish(a_delivery(), (an_event(id="e0"), an_event(id="e1", value={"unfit": True})))

    await publisher.publish(a_delivery(), (an_event(id="e2"),))
    assert [identity_in(record).id for record in producer.records] == ["e2"]


async def test_an_outcome_without_events_is_a_bug_and_never_answered_as_durable(publisher: Publisher) -> None:
    with pytest.raises(ValueError, match=r"^\[\]$"):
        publisher.publish(a_delivery(), ())


def test_ordinals_rise_above_what_is_spooled_whatever_the_clock_says() -> None:
    """A spool may be opened late, and the clock may have been set back since it was filled."""
    numbers = ordinals(iter([0, 0, 5_000, 5_000, 0]).__next__, now_ns=lambda: 1_000_000)

    assert [next(numbers) for _ in range(5)] == [1000, 1001, 5001, 5002, 5003]


async def test_the_publisher_knows_how_large_a_record_the_topics_of_a_site_take(tmp_path: Path) -> None:
    settings = Settings.model_validate(
        {"kafka": {"bootstrap_servers": "127.0.0.1:1", "message_max_bytes": 4_194_304}, "spool": {"dir": tmp_path}}
    )
    metrics = IngressMetrics(CollectorRegistry())
    durability = open_durability(settings, routing=RoutingTable(), encode=encode, windows_s={}, metrics=metrics)
    async with durability as opened:
        assert opened.publisher.message_max_bytes == 4_194_304
