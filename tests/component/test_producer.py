"""After an exception of its client, exactly one working producer exists again."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient  # noqa: TID251 - what it does by itself is limited
from aiokafka.structs import BrokerMetadata, PartitionMetadata  # noqa: TID251 - as above
from prometheus_client import CollectorRegistry

from bridge.errors import NotDurableError
from bridge.kafka import producer as producer_module
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.producer import (
    LEADER_LOOKS,
    REQUEST_TIMEOUT_MS,
    Generation,
    KafkaProducer,
    NotConnectedError,
    Patience,
)
from bridge.kafka.record import Record
from bridge.runtime.metrics import IngressMetrics
from tests.waiting import HANG_S

TOPIC = "drx.prescriptions.v1"
RECORD = Record(TOPIC, 0, b"rx_1", b"v", [], 1_772_366_400_000)
HASTY = Patience(tick_s=0.01, ask_s=0.0, retry_first_s=0.01, retry_max_s=0.01)


class FakeGeneration:
    """A producer that works, or raises at the step that a test sets."""

    def __init__(self, cluster: "FakeCluster") -> None:
        self.cluster = cluster
        self.broken = asyncio.Event()
        self.dead = False
        self.state = "new"
        cluster.generations.append(self)

    async def start(self) -> None:
        self.state = "started"
        await asyncio.sleep(0)
        self.cluster.met("start")

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        del topic, partition
        await asyncio.sleep(0)
        self.cluster.met("write")
        return len(records)

    async def settle(self, timeout_s: float) -> None:
        del timeout_s
        await asyncio.sleep(0)
        self.cluster.met("settle")

    async def end(self) -> None:
        await asyncio.sleep(0)
        self.cluster.met("end")
        self.state = "ended"

    def partitions(self, topic: str) -> int | None:
        del topic
        self.cluster.met("partitions")
        return self.cluster.partitions

    def refresh_metadata(self) -> None:
        self.cluster.met("refresh_metadata")
        self.cluster.refreshed += 1

    def oldest_s(self, now: float) -> float:
        del now
        self.cluster.met("oldest_s")
        return 0.0

    def quiet_s(self, now: float) -> float:
        del now
        self.cluster.met("quiet_s")
        return 0.0

    def silent_s(self, now: float) -> float:
        del now
        self.cluster.met("silent_s")
        return 0.0


class FakeCluster:
    """What every generation has in common; `faults` is what the next calls of a method raise."""

    def __init__(self) -> None:
        self.generations: list[FakeGeneration] = []
        self.faults: dict[str, list[BaseException]] = {}
        self.partitions: int | None = 12
        self.refreshed = 0

    def met(self, method: str) -> None:
        if faults := self.faults.get(method):
            raise faults.pop()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    made = FakeCluster()

    async def reach(connection: KafkaConnection) -> dict[str, Any]:
        await asyncio.sleep(0)
        made.met("reach")
        return connection.options()

    monkeypatch.setattr(producer_module, "Generation", lambda _options, **_: FakeGeneration(made))
    monkeypatch.setattr(KafkaConnection, "reach", reach)
    return made


def a_producer(*, partitions: int | None = 12, patience: Patience = HASTY) -> KafkaProducer:
    return KafkaProducer(
        connection=KafkaConnection("127.0.0.1:1"),
        topics=[TOPIC],
        partitions=partitions,
        metrics=IngressMetrics(CollectorRegistry()),
        patience=patience,
    )


async def until_it_writes(producer: KafkaProducer) -> None:
    async with asyncio.timeout(HANG_S):
        while True:
            await asyncio.sleep(0.005)
            try:
                if producer.ready and await producer.write(TOPIC, 0, [RECORD]) == 1:
                    return
            except NotDurableError:
                continue


async def live_through(producer: KafkaProducer, cluster: FakeCluster) -> None:
    """Connect, be replaced, fail to connect once, connect again, write, and end; whatever else is raised meanwhile."""
    stop = asyncio.Event()
    task = asyncio.create_task(producer.run(stop))
    await until_it_writes(producer)
    cluster.faults.setdefault("start", []).insert(0, NotConnectedError("handshake_failed"))
    cluster.generations[-1].broken.set()
    async with asyncio.timeout(HANG_S):
        while cluster.faults["start"]:  # noqa: ASYNC110 - a fake has no event for it
            await asyncio.sleep(0.005)
    await until_it_writes(producer)
    assert not task.done()
    assert [each.state for each in cluster.generations[:-1]] == ["ended"] * (len(cluster.generations) - 1)
    stop.set()
    async with asyncio.timeout(HANG_S):
        await task
    assert cluster.generations[-1].state == "ended"


@pytest.mark.parametrize("exc", [TypeError, asyncio.CancelledError])
@pytest.mark.parametrize(
    "method", ["start", "settle", "end", "partitions", "refresh_metadata", "oldest_s", "quiet_s", "silent_s", "reach"]
)
async def test_it_survives_whatever_a_client_raises(
    cluster: FakeCluster, method: str, exc: type[BaseException]
) -> None:
    cluster.partitions = None if method == "refresh_metadata" else 12
    cluster.faults[method] = [exc()]

    await live_through(a_producer(), cluster)

    assert not cluster.faults[method]


@pytest.mark.parametrize("expected", [12, None])
async def test_a_missing_topic_is_asked_for_again_and_again(cluster: FakeCluster, expected: int | None) -> None:
    cluster.partitions = None
    stop = asyncio.Event()
    task = asyncio.create_task(a_producer(partitions=expected).run(stop))
    async with asyncio.timeout(HANG_S):
        while cluster.refreshed < 3:  # noqa: ASYNC110 - a fake has no event for it
            await asyncio.sleep(0.005)
    stop.set()
    await task


async def test_a_write_to_a_partition_without_a_leader_floods_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library asks again at each answer for as long as the batch waits."""
    asked = 0

    async def answer(_self: Any, _cluster: object, _topics: object) -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return True

    monkeypatch.setattr(AIOKafkaClient, "_metadata_update", answer)
    monkeypatch.setattr(producer_module, "REQUEST_TIMEOUT_MS", 500)
    monkeypatch.setattr(producer_module, "LEADER_LOOK_S", 0.001)
    connection = KafkaConnection("127.0.0.1:1")
    generation = Generation(connection.options(), client=connection.producer)
    client = generation._client
    client.client.cluster._partitions = {TOPIC: {0: PartitionMetadata(TOPIC, 0, -1, [3], [3], 5)}}
    client._txn_manager.set_pid_and_epoch(1, 0)
    client.client._sync_task = asyncio.create_task(client.client._md_synchronizer())
    await client._sender.start()
    try:
        with pytest.raises(NotDurableError, match="kafka_unavailable"):
            await generation.write(TOPIC, 0, [Record(TOPIC, 0, b"rx_1", b"v", [], 0)])
    finally:
        await generation.end()

    assert asked == LEADER_LOOKS


@pytest.mark.virtual_time
@pytest.mark.parametrize(("brokers", "quiet"), [(1, True), (3, False)])
async def test_a_question_has_the_time_to_reach_another_broker_if_one_hangs(brokers: int, *, quiet: bool) -> None:
    connection, metrics = KafkaConnection("127.0.0.1:1"), IngressMetrics(CollectorRegistry())
    producer = KafkaProducer(connection=connection, topics=[TOPIC], partitions=12, metrics=metrics)
    generation = producer._generation = Generation(connection.options(), client=connection.producer)
    generation._metadata._brokers = {n: BrokerMetadata(n, "127.0.0.1", n, None) for n in range(brokers)}
    generation._heard_at = asyncio.get_running_loop().time()

    await asyncio.sleep(REQUEST_TIMEOUT_MS / 1000 + Patience().ask_s)
    assert producer.quiet is quiet
    await asyncio.sleep(REQUEST_TIMEOUT_MS / 1000)
    assert producer.quiet

    generation._client._closed = True
