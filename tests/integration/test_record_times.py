"""A clock that was ahead blocks nothing once it is right again: brokers refuse time stamps of the future."""

from __future__ import annotations

import asyncio
import time

import pytest
from prometheus_client import CollectorRegistry, Counter

from bridge.event import Identity
from bridge.kafka.partition_writer import Accepted, PartitionWriters, WriterLimits
from bridge.kafka.record import Record
from tests.cluster import Cluster, Topics
from tests.fakes import FakeKnownIds, FakeSpool
from tests.kafka import HANG_S, a_producer, read_all, running, until

pytestmark = pytest.mark.kafka

# Beyond the hour that brokers allow by default (`message.timestamp.after.max.ms`).
AHEAD_S = 7_200.0
DIGEST = b"00" * 32


class Clock:
    """A wall clock that may be wrong."""

    def __init__(self) -> None:
        """Begin right."""
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


def received(clock: Clock, topic: str, event_id: str) -> Accepted:
    headers = [("ce_source", b"drx"), ("ce_id", event_id.encode()), ("drx_body_sha256", DIGEST)]
    record = Record(topic, 0, b"rx_1", event_id.encode(), headers, int(clock() * 1000))
    return Accepted(record, Identity("drx", event_id, DIGEST.decode()), 0)


async def test_what_was_received_under_a_clock_that_was_ahead_is_written(cluster: Cluster, topics: Topics) -> None:
    clock = Clock()
    topic = await asyncio.to_thread(topics.fresh)
    async with running(a_producer(cluster.bootstrap_servers, topic, now=clock)) as producer:
        await until(lambda: producer.ready and not producer.wrong_counts)
        clock.ahead_s = AHEAD_S
        ahead = received(clock, topic, "ahead").record
        clock.ahead_s = 0.0
        right = received(clock, topic, "right").record
        assert await producer.write(topic, 0, [ahead, right]) == 2

    written = await read_all(cluster.bootstrap_servers, topic)
    assert [record.value for record in written] == [b"ahead", b"right"]
    assert written[0].timestamp_ms <= time.time() * 1000
    assert written[1].timestamp_ms == right.timestamp_ms


async def test_what_was_spooled_under_a_clock_that_was_ahead_drains_when_it_is_right(
    cluster: Cluster, topics: Topics
) -> None:
    clock, spool = Clock(), FakeSpool()
    topic = await asyncio.to_thread(topics.fresh)
    async with running(a_producer(cluster.bootstrap_servers, topic, now=clock)) as producer:
        await until(lambda: producer.ready and not producer.wrong_counts)
        writers = PartitionWriters(
            producer=producer,
            spool=spool,
            known_ids=FakeKnownIds(),
            late_acks=Counter("late", "late", registry=CollectorRegistry()),
            limits=WriterLimits(deadline_s=HANG_S, spool_after_s=HANG_S / 2),
        )
        clock.ahead_s = AHEAD_S
        taken = [writers.enqueue([received(clock, topic, each)]) for each in "abc"]
        assert await asyncio.gather(*taken) == ["spooled"] * 3
        await until(lambda: writers.blocked == 1)

        clock.ahead_s = 0.0
        await until(lambda: not writers.spooling)
        assert await writers.enqueue([received(clock, topic, "d")]) == "committed"
        await writers.close(5)

    assert [record.value for record in await read_all(cluster.bootstrap_servers, topic)] == [b"a", b"b", b"c", b"d"]
    assert not spool.entries
