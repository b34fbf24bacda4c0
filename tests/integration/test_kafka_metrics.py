from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from bridge.errors import NotDurableError
from bridge.kafka.connection import Connection
from bridge.kafka.producer import KafkaProducer
from bridge.kafka.record import Record
from bridge.runtime.metrics import IngressMetrics
from tests.cluster import Topics
from tests.kafka import running, until

pytestmark = pytest.mark.kafka


async def test_the_producer_reports_what_kafka_said_and_how_it_is(topics: Topics) -> None:
    topic = await asyncio.to_thread(topics.fresh, partitions=3)
    registry = CollectorRegistry()
    producer = KafkaProducer(
        connection=Connection(topics.bootstrap_servers),
        topics=[topic],
        partitions=12,
        metrics=IngressMetrics(registry),
    )
    record = Record(topic, 0, b"rx_1", b"v", [], 1_772_366_400_000)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"drxbridge_{name}", labels)

    async with running(producer):
        await until(lambda: producer.wrong_counts == {topic: 3})
        await producer.write(topic, 0, [record, record])
        with pytest.raises(NotDurableError):
            await producer.write(topic, 7, [record])

        assert value("produce_total", topic=topic, outcome="acknowledged") == 2
        assert value("produce_total", topic=topic, outcome="topic_missing") == 1
        assert value("produce_duration_seconds_count", topic=topic) == 1
        assert value("producer_state", state="ready") == 1
        assert value("producer_generation") == 1
        assert value("partition_count_mismatch", topic=topic) == 1
    assert value("producer_state", state="ready") == 0
    assert value("producer_state", state="closed") == 1
