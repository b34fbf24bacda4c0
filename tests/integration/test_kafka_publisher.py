"""What a consumer sees of published deliveries, on a real broker."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import confluent_kafka
import pytest
from prometheus_client import CollectorRegistry, Counter

from bridge.event import ParkReason
from bridge.kafka.partition_writer import NoSpool, PartitionWriters, WriterLimits
from bridge.kafka.publisher import Publisher
from bridge.kafka.record import MESSAGE_MAX_BYTES
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC, RoutingTable
from bridge.kafka.transport import ConsumedRecord
from tests.builders import a_delivery, an_event
from tests.cluster import Cluster, Topics
from tests.fakes import FakeKnownIds
from tests.kafka import read_all, ready_producer

pytestmark = pytest.mark.kafka

PARTITIONS = 12


def encode(record: str, value: Any) -> bytes:
    return f"{record} {value.get('event_id', '')}".encode()


@pytest.fixture
async def publisher(topics: Topics) -> AsyncIterator[Publisher]:
    names = await asyncio.to_thread(topics.standard)
    async with ready_producer(topics.bootstrap_servers, *names) as producer:
        publisher = Publisher(
            writers=PartitionWriters(
                producer=producer,
                spool=NoSpool(),
                known_ids=FakeKnownIds(),
                late_acks=Counter("late", "late", registry=CollectorRegistry()),
                limits=WriterLimits(deadline_s=30),
            ),
            encode=encode,
            schemas={"prescription.processed": "drx.v1.PrescriptionProcessed"},
            routing=RoutingTable(),
            partitions=PARTITIONS,
            instance="test",
            ordinals=itertools.count(1),
            message_max_bytes=MESSAGE_MAX_BYTES,
        )
        yield publisher
        await publisher.close(10)


async def records_of(cluster: Cluster, topic: str, key: str) -> list[ConsumedRecord]:
    return [record for record in await read_all(cluster.bootstrap_servers, topic) if record.key == key.encode()]


async def test_an_event_is_where_any_client_looks_for_its_key(
    publisher: Publisher, cluster: Cluster, topics: Topics
) -> None:
    key = topics.unique_key()
    event = an_event(key=key)

    await publisher.publish(a_delivery(), (event,))

    (record,) = await records_of(cluster, PRESCRIPTIONS_TOPIC, key)
    assert record.partition == confluent_kafka.murmur2(key.encode(), PARTITIONS)
    assert record.value == b"drx.v1.PrescriptionProcessed evt_1"
    assert record.timestamp_ms == int(event.received_at.timestamp() * 1000)
    assert dict(record.headers)["ce_subject"] == key.encode()
    assert dict(record.headers)["drx_ordinal"].startswith(b"test:")


async def test_events_of_a_key_keep_the_order_of_acceptance(
    publisher: Publisher, cluster: Cluster, topics: Topics
) -> None:
    keys = [topics.unique_key() for _ in range(5)]
    wanted = [(key, f"{key}/{n:03}") for n, key in itertools.product(range(40), keys)]

    await asyncio.gather(*[publisher.publish(a_delivery(), (an_event(id=i, key=key),)) for key, i in wanted])

    for key in keys:
        written = [
            dict(record.headers)["ce_id"].decode() for record in await records_of(cluster, PRESCRIPTIONS_TOPIC, key)
        ]
        assert written == [i for k, i in wanted if k == key]


async def test_a_parked_delivery_is_on_its_own_topic(publisher: Publisher, cluster: Cluster, topics: Topics) -> None:
    webhook_id = topics.unique_key("wh")

    await publisher.publish(a_delivery(b"{", id=webhook_id), ParkReason("malformed_json", detail="syntax"))

    (record,) = await records_of(cluster, UNRECOGNIZED_TOPIC, webhook_id)
    assert dict(record.headers)["drx_reason"] == b"malformed_json"
