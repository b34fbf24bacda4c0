"""A start reads the ids in the topics of a real broker; faults of that never block deliveries indefinitely."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]  # its stub does not say what it hands on

from bridge.dev.kafka import create_topics
from bridge.event import Identity, ParkReason
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.known_ids_reader import LAG_MAX_S, KnownIdsReader, ReaderWaits
from bridge.kafka.reader import SLICE_RECORDS
from bridge.kafka.record import Record, event_record, unrecognized_record
from bridge.known.known_ids import KnownIds
from tests.builders import a_delivery, an_event
from tests.cluster import Cluster, Topics
from tests.kafka import HANG_S, killed, until
from tests.topic_filler import fill

pytestmark = pytest.mark.kafka

WHEN_S = datetime(2026, 9, 14, 15, 0, tzinfo=UTC).timestamp()
# Two attempts and no patience at all.
HASTY = ReaderWaits(retry_s=0.05, wait_max_s=0.0, retry_late_s=0.05)
# In the place of `SILENT_S`, after which a client that brings nothing is given up.
SHORT_S = 3.0
PATIENT = ReaderWaits(retry_s=0.05, wait_max_s=10 * HANG_S)


class Memory(KnownIds):
    def __init__(self, *, on_told: Callable[[int], None] = lambda _: None) -> None:
        super().__init__(windows_s={}, capacity=1)
        self.told: list[tuple[Identity, float]] = []
        self.on_told = on_told

    def recalled(self, identity: Identity, at_s: float, record_key: bytes = b"") -> None:
        del record_key
        self.told.append((identity, at_s))
        self.on_told(len(self.told))

    @property
    def ids(self) -> Counter[str]:
        return Counter(identity.id for identity, _ in self.told)


@asynccontextmanager
async def following(
    bootstrap_servers: str,
    topics: Sequence[str],
    memory: Memory,
    *,
    window_s: float = WHEN_S,
    records_max: int = 1_000_000,
    oldest_s: Callable[[], float | None] = lambda: None,
    patience: ReaderWaits = PATIENT,
) -> AsyncIterator[KnownIdsReader]:
    """Run a reader at `WHEN_S`; by default everything that is younger than 1970 counts."""
    reader = KnownIdsReader(
        connection=KafkaConnection(bootstrap_servers),
        topics=topics,
        known_ids=memory,
        window_s=window_s,
        records_max=records_max,
        oldest_s=oldest_s,
        now=lambda: WHEN_S,
        patience=patience,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(reader.run(stop))
    try:
        yield reader
        assert not task.done()
    finally:
        stop.set()
        async with asyncio.timeout(HANG_S):
            await task


def a_record(topic: str, event_id: str, *, at_s: float = WHEN_S, partition: int = 0) -> Record:
    delivery = a_delivery(id=event_id)._replace(received_at=datetime.fromtimestamp(at_s, UTC))
    event = an_event(id=event_id)
    return event_record(event, delivery, topic=topic, partition=partition, value=b"v", schema="x", ordinal=b"i:1")


def parked_record(topic: str, webhook_id: str) -> Record:
    park = unrecognized_record(a_delivery(id=webhook_id), ParkReason("unusable"), partition=0, value=b"v")
    return park._replace(topic=topic)


async def found(bootstrap_servers: str, topics: Sequence[str], **options: Any) -> Counter[str]:
    memory = Memory()
    async with following(bootstrap_servers, topics, memory, **options) as reader:
        await until(lambda: reader.ready)
        assert memory.finished
    return memory.ids


async def test_events_and_parked_deliveries_of_all_topics_are_found_with_their_receipt(topics: Topics) -> None:
    events, parked, empty = (topics.fresh(partitions=2) for _ in range(3))
    strange = Record(events, 0, b"k", b"v", [("ce_id", b"evt_3")], 0)
    written = [a_record(events, "evt_1"), strange, a_record(events, "evt_2", partition=1), parked_record(parked, "w_1")]
    fill(topics.bootstrap_servers, written)
    memory = Memory()

    async with following(topics.bootstrap_servers, [events, parked, empty], memory) as reader:
        await until(lambda: reader.ready)

    assert (Identity("drx", "evt_1", a_delivery(id="evt_1").body_sha256), WHEN_S) in memory.told
    assert [(each.id, each.reason) for each, _ in sorted(memory.told)] == [
        ("evt_1", ""),
        ("evt_2", ""),
        ("w_1", "unusable"),
    ]


async def test_only_the_window_is_read_and_what_was_written_late_however_old_it_is(topics: Topics) -> None:
    """After an outage longer than the window, a drain that died half-way has left old receipts at the end."""
    topic, servers = topics.fresh(partitions=1), topics.bootstrap_servers
    ages_s = {"evt_old": 3601, "evt_edge": 3600, "evt_young": 60}
    fill(servers, [a_record(topic, each, at_s=WHEN_S - age_s) for each, age_s in ages_s.items()])

    assert await found(servers, [topic], window_s=3600) == Counter(["evt_edge", "evt_young"])

    topic = topics.fresh(partitions=1)
    ages_s = {"evt_older": 9000, "evt_oldest_spooled": 8000, "evt_next": 7000}
    fill(servers, [a_record(topic, each, at_s=WHEN_S - age_s) for each, age_s in ages_s.items()])

    assert await found(servers, [topic], window_s=3600) == Counter()
    recalled = await found(servers, [topic], window_s=3600, oldest_s=lambda: WHEN_S - 8000)
    assert recalled == Counter(["evt_oldest_spooled", "evt_next"])


async def test_a_long_topic_is_read_to_its_end_while_others_work(topics: Topics) -> None:
    topic = topics.fresh(partitions=12)
    ids = [f"evt_{number}" for number in range(5_000)]
    fill(topics.bootstrap_servers, [a_record(topic, each, partition=n % 12) for n, each in enumerate(ids)])
    memory, at_each_turn = Memory(), [0]

    async with following(topics.bootstrap_servers, [topic], memory) as reader, asyncio.timeout(HANG_S):
        while not reader.ready:
            await asyncio.sleep(0)
            at_each_turn.append(len(memory.told))

    assert memory.ids == Counter(ids)
    assert max(after - before for before, after in pairwise(at_each_turn)) <= SLICE_RECORDS


async def test_of_too_many_the_newest_of_each_partition_are_read(topics: Topics) -> None:
    topic = topics.fresh(partitions=2)
    fill(
        topics.bootstrap_servers,
        [a_record(topic, f"evt_{partition}_{n}", partition=partition) for partition in (0, 1) for n in range(50)],
    )

    ids = await found(topics.bootstrap_servers, [topic], records_max=20)

    assert ids == Counter(f"evt_{partition}_{n}" for partition in (0, 1) for n in range(40, 50))


async def test_a_topic_that_is_made_anew_while_it_is_read_is_read_again(topics: Topics) -> None:
    """The old one's end is never reached."""
    topic = topics.fresh(partitions=1)
    fill(topics.bootstrap_servers, [a_record(topic, f"evt_{n}") for n in range(5_000)])
    admin = AdminClient({"bootstrap.servers": topics.bootstrap_servers})

    def make_anew(told: int) -> None:
        if told == SLICE_RECORDS:  # on the loop's own thread, so the reader cannot get on meanwhile
            admin.delete_topics([topic])[topic].result(HANG_S)
            create_topics(topics.bootstrap_servers, {topic: 1})
            fill(topics.bootstrap_servers, [a_record(topic, "evt_new")])

    memory = Memory(on_told=make_anew)

    async with following(topics.bootstrap_servers, [topic], memory) as reader:
        await until(lambda: reader.ready)

    assert memory.ids["evt_new"] == 1


async def test_a_topic_that_is_missing_is_waited_for(topics: Topics) -> None:
    late, memory = topics.unique_key("test"), Memory()

    async with following(
        topics.bootstrap_servers, [topics.fresh(partitions=1), late], memory, patience=HASTY
    ) as reader:
        await until(lambda: memory.finished)
        assert not reader.ready
        await asyncio.to_thread(create_topics, topics.bootstrap_servers, {late: 1})
        await until(lambda: reader.ready)


async def test_an_outage_is_waited_for_and_what_was_away_is_followed_on_from_where_it_was_left(
    cluster: Cluster, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing can be drained nobody is kept waiting, however long: not one who begins meanwhile either."""
    monkeypatch.setattr("bridge.kafka.known_ids_reader.SILENT_S", SHORT_S)
    monkeypatch.setattr("bridge.kafka.reader.SILENT_S", SHORT_S)
    topic = topics.fresh(partitions=2)
    fill(topics.bootstrap_servers, [a_record(topic, "evt_1"), a_record(topic, "evt_2", partition=1)])
    memory, late = Memory(), Memory()
    attempts: list[None] = []

    async with following(topics.bootstrap_servers, [topic], memory) as reader, AsyncExitStack() as stack:
        await until(lambda: reader.ready)
        async with killed(cluster):
            beginning = following(
                topics.bootstrap_servers, [topic], late, patience=HASTY, oldest_s=lambda: attempts.append(None)
            )
            newcomer = await stack.enter_async_context(beginning)
            # Whether aiokafka's client outlasts it or another one is opened.
            await until(lambda: len(attempts) > 2 and reader.lag_s > SHORT_S + 2)
            assert not late.finished
        fill(topics.bootstrap_servers, [a_record(topic, "evt_3", partition=1)])
        await reader.catch_up(topic, 1)
        await until(lambda: memory.ids["evt_3"] == 1 and reader.lag_s < SHORT_S)
        await until(lambda: newcomer.ready and late.ids["evt_3"] == 1)

    assert memory.ids == late.ids == Counter(["evt_1", "evt_2", "evt_3"])


async def test_a_client_that_dies_is_replaced(topics: Topics) -> None:
    topic, memory = topics.fresh(partitions=1), Memory()

    async with following(topics.bootstrap_servers, [topic], memory) as reader:
        await until(lambda: reader.ready)
        (state,) = reader._topics.values()
        before = state.tail
        assert before is not None
        before._consumer._fetcher._fetch_task.cancel()  # as a bug in the library ends it
        await until(lambda: state.tail not in {None, before})  # a request that is under way may still bring a record
        fill(topics.bootstrap_servers, [a_record(topic, "evt_1")])
        await until(lambda: memory.ids["evt_1"] == 1)


async def test_a_follow_that_fell_out_of_the_log_begins_at_the_window_again(topics: Topics) -> None:
    topic = topics.fresh(partitions=1)
    fill(topics.bootstrap_servers, [a_record(topic, f"evt_{n}") for n in range(10)])
    admin = AdminClient({"bootstrap.servers": topics.bootstrap_servers})
    memory = Memory()

    async with following(topics.bootstrap_servers, [topic], memory) as reader:
        await until(lambda: reader.ready)
        await asyncio.to_thread(admin.delete_topics([topic])[topic].result, HANG_S)
        await asyncio.to_thread(create_topics, topics.bootstrap_servers, {topic: 1})
        fill(topics.bootstrap_servers, [a_record(topic, "evt_new")])
        await until(lambda: memory.ids["evt_new"] == 1)
        await until(lambda: reader.ready and reader.lag_s < LAG_MAX_S)

    assert memory.ids == Counter([f"evt_{n}" for n in range(10)] + ["evt_new"])


async def test_partitions_and_topics_that_come_later_are_followed(topics: Topics) -> None:
    first, later = topics.fresh(partitions=1), topics.fresh(partitions=1)
    fill(topics.bootstrap_servers, [a_record(later, "evt_1")])
    admin = AdminClient({"bootstrap.servers": topics.bootstrap_servers})
    memory = Memory()

    async with following(topics.bootstrap_servers, [first], memory) as reader:
        await until(lambda: reader.ready)
        reader.follow(later)
        await until(lambda: memory.ids["evt_1"] == 1 and reader.ready)
        await asyncio.to_thread(admin.create_partitions([NewPartitions(first, 2)])[first].result, HANG_S)
        reader._topics[first].tail.refresh_metadata()  # type: ignore[union-attr]  # else within a minute
        fill(topics.bootstrap_servers, [a_record(first, "evt_2", partition=1)])
        await until(lambda: memory.ids["evt_2"] == 1)


async def test_one_record_that_is_not_ours_and_a_fault_of_the_memory_stop_nothing(topics: Topics) -> None:
    topic, memory = topics.fresh(partitions=1), Memory()

    def fail_once(told: int) -> None:
        if told == 1:
            raise ZeroDivisionError

    memory.on_told = fail_once
    strange = Record(topic, 0, b"k", None, [("ce_id", b"\xff"), ("drx_body_sha256", b"0" * 64)], 0)

    async with following(topics.bootstrap_servers, [topic], memory) as reader:
        await until(lambda: reader.ready)
        fill(topics.bootstrap_servers, [strange, a_record(topic, "evt_1"), a_record(topic, "evt_2")])
        await until(lambda: memory.ids["evt_2"] > 0)
