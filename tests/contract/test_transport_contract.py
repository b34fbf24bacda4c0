"""One suite for the fake group member and the real one."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bridge.kafka.connection import KafkaConnection
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.producer import KafkaProducer
from bridge.kafka.record import Record
from consumers.runtime.transport import Bounds, GroupTransport, Timing, TransportError
from tests.cluster import Topics
from tests.fake_transport import FakeKafka, FakeTransport
from tests.kafka import HANG_S, ready_producer, reset_connections, until

PARTITIONS = 2
HASTY = Timing(session_s=10, rebalance_s=10, max_poll_s=60)
SHORT_S = 0.2


@dataclass
class Listener:
    """Hears of rebalances and keeps them."""

    heard: list[tuple[str, frozenset[TopicPartition]]] = field(default_factory=list)
    joined: asyncio.Event = field(default_factory=asyncio.Event)

    async def revoked(self, tps: frozenset[TopicPartition]) -> None:
        self.heard.append(("revoked", tps))

    def assigned(self, tps: frozenset[TopicPartition]) -> None:
        self.heard.append(("assigned", tps))
        self.joined.set()


@dataclass
class Subject:
    """A group, its topic, and ways to fill that and to become a member."""

    topic: str
    stack: AsyncExitStack
    fake: FakeKafka | None = None
    producer: KafkaProducer | None = None
    topics: Topics | None = None
    group: str = ""
    members: list[GroupTransport] = field(default_factory=list)

    @property
    def tps(self) -> list[TopicPartition]:
        return [TopicPartition(self.topic, number) for number in range(PARTITIONS)]

    async def write(self, tp: TopicPartition, *ids: str) -> None:
        if self.fake is not None:
            self.fake.add(tp, *ids)
            return
        assert self.producer is not None
        for each in ids:
            record = Record(*tp, b"rx_1", each.encode(), [("ce_id", each.encode())], 1_772_366_400_000)
            await self.producer.write(*tp, [record])

    async def member(self) -> tuple[GroupTransport, Listener]:
        listener, transport = Listener(), self._new()
        await transport.start(listener)
        self.stack.push_async_callback(transport.stop)
        async with asyncio.timeout(HANG_S):
            await listener.joined.wait()
        self.members.append(transport)
        return transport, listener

    def _new(self) -> GroupTransport:
        if self.fake is not None:
            return FakeTransport(self.fake)
        assert self.topics is not None
        connection = KafkaConnection(self.topics.bootstrap_servers)
        return GroupTransport(connection, group=self.group, topics=[self.topic], timing=HASTY)

    async def share(self, transport: GroupTransport, listener: Listener) -> None:
        """Have another member join, so that `transport` keeps one partition."""
        listener.joined.clear()
        if isinstance(transport, FakeTransport):
            await transport.rebalance([TopicPartition(self.topic, 0)])
            return
        other = self._new()
        await other.start(Listener())
        self.stack.push_async_callback(other.stop)
        async with asyncio.timeout(HANG_S):
            await listener.joined.wait()


@pytest.fixture(params=["fake", pytest.param("kafka", marks=pytest.mark.kafka)])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    async with AsyncExitStack() as stack:
        if request.param == "fake":
            yield Subject("t", stack, fake=FakeKafka({"t": PARTITIONS}))
            return
        topics: Topics = request.getfixturevalue("topics")
        topic = await asyncio.to_thread(topics.fresh, partitions=PARTITIONS)
        producer = await stack.enter_async_context(
            ready_producer(topics.bootstrap_servers, topic, partitions=PARTITIONS)
        )
        yield Subject(topic, stack, producer=producer, topics=topics, group=topics.unique_key("group"))


async def poll_for(transport: GroupTransport, tps: Collection[TopicPartition], count: int) -> list[ConsumedRecord]:
    found: list[ConsumedRecord] = []
    async with asyncio.timeout(HANG_S):
        while len(found) < count:
            for records in (await transport.poll(tps, timeout_s=SHORT_S)).values():
                found += records
    return found


def ids(records: Sequence[ConsumedRecord]) -> list[str]:
    return [record.header("ce_id") for record in records]


async def test_records_come_in_order_from_where_it_was_sought(subject: Subject) -> None:
    first, _ = subject.tps
    await subject.write(first, "a", "b", "c")
    transport, _ = await subject.member()

    transport.seek(first, 1)

    records = await poll_for(transport, [first], 2)
    assert [(record.offset, record.header("ce_id"), record.key) for record in records] == [
        (1, "b", b"rx_1"),
        (2, "c", b"rx_1"),
    ]


async def test_only_the_partitions_asked_for_are_returned_and_none_means_none(subject: Subject) -> None:
    """For aiokafka an empty list means all."""
    first, second = subject.tps
    await subject.write(first, "a")
    await subject.write(second, "b")
    transport, _ = await subject.member()
    for tp in subject.tps:
        transport.seek(tp, 0)

    assert ids(await poll_for(transport, [second], 1)) == ["b"]
    for _ in range(3):
        assert await transport.poll([], timeout_s=SHORT_S) == {}
    assert ids(await poll_for(transport, [first], 1)) == ["a"]


async def test_a_partition_without_any_offset_is_told_and_only_when_it_is_asked_for(subject: Subject) -> None:
    first, second = subject.tps
    await subject.write(first, "a")
    transport, _ = await subject.member()
    transport.seek(first, 0)
    assert ids(await poll_for(transport, [first], 1)) == ["a"]

    with pytest.raises(TransportError) as caught:
        await poll_for(transport, [second], 1)

    assert (caught.value.code, caught.value.tps) == ("offset_missing", frozenset([second]))


async def test_an_offset_outside_the_log_is_told(subject: Subject) -> None:
    """With another setting aiokafka would skip or repeat silently."""
    first, _ = subject.tps
    transport, _ = await subject.member()
    transport.seek(first, 7)

    with pytest.raises(TransportError) as caught:
        await poll_for(transport, [first], 1)

    assert (caught.value.code, caught.value.tps) == ("offset_out_of_range", frozenset([first]))


async def test_it_goes_on_from_the_committed_offset(subject: Subject) -> None:
    first, _ = subject.tps
    await subject.write(first, "a", "b")
    transport, _ = await subject.member()
    await transport.commit({first: 1})
    await transport.stop()

    transport, _ = await subject.member()

    assert ids(await poll_for(transport, [first], 1)) == ["b"]


async def test_bounds_are_where_a_log_starts_and_ends(subject: Subject) -> None:
    first, second = subject.tps
    await subject.write(first, "a", "b")
    transport, _ = await subject.member()

    assert await transport.bounds([first, second]) == {first: Bounds(0, 2), second: Bounds(0, 0)}


async def test_what_is_paused_is_not_returned_and_comes_after_it_is_resumed(subject: Subject) -> None:
    first, second = subject.tps
    await subject.write(first, "a")
    transport, _ = await subject.member()
    for tp in subject.tps:
        transport.seek(tp, 0)
    transport.pause([first])
    await subject.write(second, "b")

    assert ids(await poll_for(transport, subject.tps, 1)) == ["b"]
    transport.resume([first])

    assert ids(await poll_for(transport, subject.tps, 1)) == ["a"]


async def test_a_rebalance_takes_everything_and_gives_some_back(subject: Subject) -> None:
    """The protocol is the eager one; and an offset that was sought is not kept over it, nor a pause."""
    transport, listener = await subject.member()
    for tp in subject.tps:
        transport.seek(tp, 0)
    transport.pause(subject.tps)

    await subject.share(transport, listener)

    (kept,) = transport.assigned()
    assert listener.heard[-2:] == [("revoked", frozenset(subject.tps)), ("assigned", frozenset([kept]))]
    with pytest.raises(TransportError, match=r"^offset_missing$"):
        await poll_for(transport, [kept], 1)


async def test_a_commit_for_a_partition_that_was_lost_is_refused(subject: Subject) -> None:
    transport, listener = await subject.member()
    await subject.share(transport, listener)
    (lost,) = set(subject.tps) - transport.assigned()

    with pytest.raises(TransportError, match=r"^not_member$"):
        await transport.commit({lost: 1})


async def test_seek_pause_and_resume_of_what_is_not_ours_do_nothing(subject: Subject) -> None:
    """A rebalance may have taken it in this moment."""
    transport, listener = await subject.member()
    await subject.share(transport, listener)
    (lost,) = set(subject.tps) - transport.assigned()

    transport.seek(lost, 0)
    transport.pause([lost])
    transport.resume([lost])

    assert await transport.poll([lost], timeout_s=SHORT_S) == {}


async def test_a_member_that_was_stopped_or_never_started_can_be_stopped(subject: Subject) -> None:
    transport, _ = await subject.member()
    for each in (transport, subject._new()):
        await each.stop()
        await each.stop()


async def test_without_a_broker_a_start_says_so() -> None:
    """On the fake: see below for the real one."""
    kafka = FakeKafka({"t": 1})
    kafka.go_away()
    for transport in (FakeTransport(kafka), GroupTransport(KafkaConnection("127.0.0.1:1"), group="g", topics=["t"])):
        with pytest.raises(TransportError, match=r"^no_answer$"):
            await transport.start(Listener())


async def test_a_file_that_cannot_be_used_now_is_waited_for(tmp_path: Path) -> None:
    """A certificate is replaced, and its key is not yet: the process has checked both at its start."""
    connection = KafkaConnection("127.0.0.1:1", security_protocol="SSL", ssl_certfile=tmp_path / "away")
    transport = GroupTransport(connection, group="g", topics=["t"])

    with pytest.raises(TransportError, match=r"^config$"):
        await transport.start(Listener())
    await transport.stop()


@pytest.mark.kafka
async def test_a_member_that_has_ended_leaves_no_task(topics: Topics) -> None:
    topic = await asyncio.to_thread(topics.fresh, partitions=PARTITIONS)
    transport = GroupTransport(
        KafkaConnection(topics.bootstrap_servers), group=topics.unique_key("group"), topics=[topic], timing=HASTY
    )
    listener = Listener()
    await transport.start(listener)
    await listener.joined.wait()

    await transport.stop()

    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


@pytest.fixture
async def reset(topics: Topics) -> AsyncIterator[Any]:
    """Give a member that has joined and whose connections have then been reset, but for the one to its coordinator."""
    topic = await asyncio.to_thread(topics.fresh, partitions=1)
    member: Any = GroupTransport(
        KafkaConnection(topics.bootstrap_servers), group=topics.unique_key("group"), topics=[topic], timing=HASTY
    )
    listener = Listener()
    await member.start(listener)
    async with asyncio.timeout(HANG_S):
        await listener.joined.wait()
    reset_connections(member._consumer._client)
    yield member
    await member.stop()


@pytest.mark.kafka
async def test_a_question_over_a_connection_that_was_reset_has_no_answer(reset: Any) -> None:
    """And is no bug that would end the process."""
    with pytest.raises(TransportError, match=r"^no_answer$"):
        await reset.bounds(reset.assigned())


@pytest.mark.kafka
async def test_a_member_whose_metadata_nobody_renews_any_more_says_so(reset: Any) -> None:
    """It would wait for them for ever: the error has ended the task that renews them."""
    reset._consumer._client.force_metadata_update()

    with pytest.raises(TransportError, match=r"^no_answer$"):
        await poll_for(reset, [], 1)
