"""Kafka below the calls of aiokafka: brokers and logs, and the clients that `KafkaConnection` makes.

The clients keep what `bridge.kafka` relies on of aiokafka 0.14: one request at a time for each broker, batches that are
sent again under their sequence numbers and never expire, metadata that is renewed on demand, positions. Brokers run in
the world: sent requests arrive even if the client ends.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiokafka import TopicPartition as ClientPartition  # noqa: TID251 - the fake of its wrapper
from aiokafka import errors as kafka_errors  # noqa: TID251 - as above

from bridge.kafka.connection import KafkaConnection
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from tests.simulation.loop import PROCESS
from tests.simulation.world import World

REQUEST_TIMEOUT_S = 5.0
RETRY_S = 0.1
METADATA_AGE_S = 60.0
FETCH_S = 0.5
LEADERLESS_S = 5.0
RECORD_BYTES = 61 + 36
HEADER_BYTES = 10
# Batches of a producer whose numbers a broker remembers.
REMEMBERED = 5
MAX_BYTES = 2 * 1024 * 1024


class Stored(NamedTuple):
    """A record in a log; readers see it from `visible_at` on."""

    key: bytes
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]
    timestamp_ms: int
    visible_at: float
    began: float  # when its producer was given it
    pid: int


@dataclass(eq=False)
class Broker:
    """`up`; `silent`: accepts connections but does not respond until it continues; or `down`."""

    id: int
    state: str = "up"
    ends: int = 0  # how often it went down
    arrived: list[Callable[[], None]] = field(default_factory=list)  # while it is silent


@dataclass(eq=False)
class Partition:
    """A log and its leader's producer state: the last batches of each, as first number, count and end."""

    tp: TopicPartition
    leader: int
    records: list[Stored] = field(default_factory=list)
    producers: dict[int, deque[tuple[int, int, int]]] = field(default_factory=dict)

    def end(self, now: float) -> int:
        """Return the offset after the last record that all in-sync replicas have."""
        end = len(self.records)
        while end and self.records[end - 1].visible_at > now:
            end -= 1
        return end


@dataclass(eq=False)
class Topic:
    """`refusal` is its leaders' error for writes, if any; `max_bytes` limits a batch."""

    partitions: list[Partition]
    refusal: type[kafka_errors.BrokerResponseError] | None = None
    max_bytes: int = MAX_BYTES


class Kafka:
    """A cluster of three brokers."""

    def __init__(self, world: World, topics: Mapping[str, int]) -> None:
        self.world = world
        self.rng = world.stream("kafka")
        self.brokers = [Broker(number) for number in range(3)]
        self.topics = {name: Topic([]) for name in topics}
        for name, count in topics.items():
            self.add_partitions(name, count)
        self.buried: list[Partition] = []  # of topics that were made anew
        self.ack_s = 0.0  # what replicas take beyond the usual
        self.lost_answers = 0.0  # probability that an answer to a write is lost with its connection
        self.lag_s = dict.fromkeys(topics, 0.0)  # what readers of each topic are behind
        self.cut_off: set[str] = set()  # hosts whose packets are dropped
        self.consumers: list[Consumer] = []
        self._pids = self._fenced = 0
        self._newest: dict[Any, int] = {}  # by process, the producer that it started last
        self.writers: dict[int, Any] = {}  # by producer, its process
        self._refused: dict[
            tuple[int, TopicPartition], int
        ] = {}  # the number of a batch that was refused when it first came
        self.on_bug: Callable[..., None] = lambda *_: None
        self.on_write: Callable[[Partition, Sequence[Stored]], None] = lambda _partition, _records: None

    def partitions(self) -> Iterable[Partition]:
        """All partitions, in a fixed order."""
        return (each for topic in self.topics.values() for each in topic.partitions)

    def add_partitions(self, name: str, count: int) -> None:
        topic = self.topics[name]
        for number in range(len(topic.partitions), count):
            topic.partitions.append(Partition(TopicPartition(name, number), number % len(self.brokers)))

    def make_anew(self, name: str) -> None:
        """Delete a topic with its records, and create it again."""
        topic = self.topics[name]
        count = len(topic.partitions)
        self.buried += topic.partitions
        topic.partitions = []
        self.add_partitions(name, count)
        self.wake()

    def find(self, tp: Any) -> Partition | None:
        topic = self.topics.get(tp[0])
        return topic.partitions[tp[1]] if topic and tp[1] < len(topic.partitions) else None

    def new_pid(self) -> int:
        self._pids += 1
        self.writers[self._pids] = process = PROCESS.get()
        self._newest[process] = self._pids
        return self._pids

    def fence(self) -> None:
        """Refuse further writes of the present producers."""
        self._fenced = self._pids

    def set_state(self, number: int, state: str) -> None:
        """Let a broker fail, hang or return; a new leader follows soon after a failure."""
        broker = self.brokers[number]
        broker.state = state
        if state == "up":
            arrived, broker.arrived = broker.arrived, []
            for each in arrived:
                each()
        if state == "down":
            broker.ends += 1
            broker.arrived = []
            self._cut_unreplicated(number)
        self.world.later(self.rng.uniform(0.2, 2.0) if state == "down" else 0.05, self._elect)
        self.wake()

    def _elect(self) -> None:
        alive = [each.id for each in self.brokers if each.state != "down"]
        for partition in self.partitions():
            if partition.leader not in alive:
                partition.leader = alive[partition.tp.partition % len(alive)] if alive else -1
        self.wake()

    def _cut_unreplicated(self, number: int) -> None:
        """A failed leader may lose records that no other replica has."""
        now = self.world.loop.time()
        for partition in self.partitions():
            end = partition.end(now)
            if partition.leader == number and end < len(partition.records) and self.rng.random() < 0.5:
                del partition.records[end:]
                for pid, recent in list(partition.producers.items()):
                    while recent and recent[-1][2] > end:
                        recent.pop()
                    if not recent:
                        del partition.producers[pid]

    def sees(self, host: str, number: int) -> str:
        """Return the state of a broker as a host sees it."""
        return "cut" if host in self.cut_off else self.brokers[number].state

    def latency(self) -> float:
        return self.rng.uniform(0.0005, 0.004)

    def wake(self, topic: str = "") -> None:
        """Wake waiting consumers."""
        for consumer in self.consumers:
            if not topic or topic in consumer.topics:
                consumer.wake()

    def produce(self, link: "Link", number: int, batches: Sequence["Batch"], answered: asyncio.Future[Any]) -> None:
        """Handle one request of a client; `answered` gets an error or None for each of its batches."""
        state = self.sees(link.host, number)
        if batches[0].pid != self._newest[PROCESS.get()]:
            self.on_bug("a producer sends that was replaced")
        if state == "cut":
            return
        arrive = lambda: self._arrive(link, number, batches, answered)  # noqa: E731
        self.world.later(self.latency(), arrive)

    def _arrive(self, link: "Link", number: int, batches: Sequence["Batch"], answered: asyncio.Future[Any]) -> None:
        broker = self.brokers[number]
        if broker.state == "silent":
            broker.arrived.append(lambda: self._arrive(link, number, batches, answered))
            return
        if link.aborted and self.rng.random() < 0.5:
            return
        if broker.state == "down":
            _fail(answered, kafka_errors.KafkaConnectionError())
            return
        errors, wait_s = [], 0.0
        for batch in batches:
            error, until = self._append(number, batch)
            errors.append(error)
            wait_s = max(wait_s, until - self.world.loop.time() if batch.acks == "all" else 0.0)
        ends = broker.ends
        self.world.later(wait_s + self.latency(), lambda: self._answer(link, number, errors, answered, ends))

    def _answer(self, link: "Link", number: int, errors: list[Any], answered: asyncio.Future[Any], ends: int) -> None:
        state = self.sees(link.host, number) if self.brokers[number].ends == ends else "down"
        if state == "cut":
            return
        if state == "silent":
            self.brokers[number].arrived.append(lambda: self._answer(link, number, errors, answered, ends))
        elif state == "down" or self.rng.random() < self.lost_answers:
            _fail(answered, kafka_errors.KafkaConnectionError())
        elif not answered.done():
            answered.set_result(errors)

    def _refusal(self, partition: Partition | None, number: int, size: int) -> Any:
        """Return the broker's error for a batch of this size, or None."""
        if partition is None:
            return kafka_errors.UnknownTopicOrPartitionError
        topic = self.topics[partition.tp.topic]
        if partition.leader != number:
            return kafka_errors.NotLeaderForPartitionError
        return topic.refusal or (kafka_errors.MessageSizeTooLargeError if size > topic.max_bytes else None)

    def _append(self, number: int, batch: "Batch") -> tuple[type[kafka_errors.BrokerResponseError] | None, float]:
        """Append a batch as the leader does; return the error, and when replicas have it."""
        now = self.world.loop.time()
        partition = self.find(batch.tp)
        refusal = self._refusal(partition, number, batch.builder.size())
        if partition is None or refusal is not None:
            if batch.retry_count > 1:  # its first answer was lost, so its numbers may have been used
                self._refused.pop((batch.pid, batch.tp), None)
            elif not refusal.retriable:
                self._refused.setdefault((batch.pid, batch.tp), batch.sequence)
            return refusal, now
        if batch.pid <= self._fenced:
            return kafka_errors.InvalidProducerEpoch, now
        # A producer that the leader does not know may begin with any number, as since Kafka 2.5.
        recent = partition.producers.setdefault(batch.pid, deque(maxlen=REMEMBERED))
        expected = recent[-1][0] + recent[-1][1] if recent else batch.sequence
        if batch.sequence < expected:
            end = next((end for first, _, end in recent if first == batch.sequence), None)
            if end is None:
                return kafka_errors.DuplicateSequenceNumber, now
            return None, max(now, partition.records[end - 1].visible_at)  # it waits for the replicas as well
        if batch.sequence > expected:
            if self._refused.get((batch.pid, batch.tp)) == expected:
                self.on_bug("a producer leaves out the numbers of what was refused")
            return kafka_errors.OutOfOrderSequenceNumber, now
        self._refused.pop((batch.pid, batch.tp), None)
        last = partition.records[-1].visible_at if partition.records else 0.0
        visible_at = max(last, now + self.rng.uniform(0.0005, 0.003) + self.ack_s * self.rng.random())
        stored = [Stored(*each, visible_at, batch.began, batch.pid) for each in batch.builder.records]
        partition.records += stored
        recent.append((batch.sequence, len(stored), len(partition.records)))
        self.world.later(visible_at + self.lag_s[partition.tp.topic] - now, lambda: self.wake(partition.tp.topic))
        self.on_write(partition, stored)
        return None, visible_at


class Link:
    """A client's connections as brokers see them: its host, and whether they were aborted."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.aborted = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection(KafkaConnection):
    """Makes simulated clients for one host."""

    bootstrap_servers: str = "b0:9092,b1:9092,b2:9092"
    kafka: Kafka
    host: str

    async def reach(self) -> dict[str, Any]:
        await asyncio.sleep(self.kafka.latency())
        answers = [each for each in self.kafka.brokers if self.kafka.sees(self.host, each.id) in ("up", "silent")]
        if self.host in self.kafka.cut_off:
            await asyncio.sleep(2.0)
        return {"bootstrap_servers": [f"b{each.id}:9092" for each in answers], "security_protocol": "PLAINTEXT"}

    def producer(self, **options: Any) -> Any:
        return Producer(self.kafka, self.host, options["max_batch_size"], options["acks"])

    def consumer(self, **_: Any) -> Any:
        return Consumer(self.kafka, self.host)


class Metadata:
    """A client's metadata of topics and leaders, and its renewal: `AIOKafkaClient` and its `cluster` in one."""

    def __init__(self, kafka: Kafka, host: str) -> None:
        self._kafka = kafka
        self._leaders: dict[str, dict[int, int]] = {}
        self._renewing: asyncio.Future[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.link = Link(host)
        self.cluster = self
        self._sync_task: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sync_task.add_done_callback(lambda _: self._end())
        self._conns: dict[int, Any] = {}

    async def bootstrap(self) -> None:
        """Connect; `KafkaConnectionError` if no broker responds."""
        if not await self._ask():
            raise kafka_errors.KafkaConnectionError
        self._leaders.clear()  # the bootstrap answer names no topics
        self._renew_later()

    def force_metadata_update(self) -> asyncio.Future[bool]:
        if self._renewing is None:
            self._renewing = asyncio.ensure_future(self._ask())
            self._renewing.add_done_callback(self._renewed)
        return asyncio.shield(self._renewing)

    def _renewed(self, _: object) -> None:
        self._renewing = None

    def _renew_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(METADATA_AGE_S, self._renew)

    def _renew(self) -> None:
        self.force_metadata_update()
        self._renew_later()

    def _end(self) -> None:
        self.link.aborted = True
        if self._timer is not None:
            self._timer.cancel()

    async def _ask(self) -> bool:
        kafka = self._kafka
        order = kafka.rng.sample(kafka.brokers, len(kafka.brokers))
        for broker in order:
            await asyncio.sleep(kafka.latency())
            state = kafka.sees(self.link.host, broker.id)
            if state in ("silent", "cut"):
                await asyncio.sleep(REQUEST_TIMEOUT_S)
                state = kafka.sees(self.link.host, broker.id)
            if state == "up" and not self.link.aborted:
                self._leaders = {
                    name: {each.tp.partition: each.leader for each in topic.partitions}
                    for name, topic in kafka.topics.items()
                }
                return True
        return False

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(self._leaders[topic]) if topic in self._leaders else None

    def available_partitions_for_topic(self, topic: str) -> set[int] | None:
        found = self._leaders.get(topic)
        return None if found is None else {number for number, leader in found.items() if leader != -1}

    def leader_for_partition(self, tp: Any) -> int | None:
        return self._leaders.get(tp.topic, {}).get(tp.partition)

    def brokers(self) -> list[Broker]:
        return self._kafka.brokers


class Builder:
    """Collects the records of a batch."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.records: list[tuple[bytes, bytes | None, Sequence[tuple[str, bytes]], int]] = []
        self._size = RECORD_BYTES

    def append(
        self, *, timestamp: int, key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> bool | None:
        size = len(key) + len(value or b"") + RECORD_BYTES
        size += sum([HEADER_BYTES + len(name) + len(content) for name, content in headers])
        if self.records and self._size + size > self._max_bytes:
            return None
        self.records.append((key, value, headers, timestamp))
        self._size += size
        return True

    def size(self) -> int:
        return self._size

    def record_count(self) -> int:
        return len(self.records)


class Batch:
    """A batch on its way."""

    def __init__(self, builder: Builder, tp: Any, loop: asyncio.AbstractEventLoop, acks: Any) -> None:
        self.builder = builder
        self.tp = tp
        self.acks = acks
        self.future: asyncio.Future[Any] = loop.create_future()
        self.retry_count = 0
        self.record_count = len(builder.records)
        self.began = loop.time()
        self.pid = self.sequence = -1

    def fail(self, exc: Exception) -> None:
        _fail(self.future, exc)


class Sequences:
    """The numbers of a producer, by partition."""

    def __init__(self) -> None:
        self._next: dict[Any, int] = {}

    def number(self, tp: Any) -> int:
        return self._next.get(tp, 0)

    def increment_sequence_number(self, tp: Any, count: int) -> None:
        self._next[tp] = self.number(tp) + count


class Accumulator:
    """Batches that wait, by partition."""

    def __init__(self, acks: Any) -> None:
        self._acks = acks
        self._loop = asyncio.get_running_loop()
        self.batches: dict[Any, deque[Batch]] = {}
        self.news: asyncio.Future[None] = self._loop.create_future()

    def _append_batch(self, builder: Builder, tp: Any) -> Batch:
        batch = Batch(builder, tp, self._loop, self._acks)
        self.batches.setdefault(tp, deque()).append(batch)
        if not self.news.done():
            self.news.set_result(None)
        return batch


class Producer:
    """As `AIOKafkaProducer` with idempotence."""

    def __init__(self, kafka: Kafka, host: str, max_bytes: int, acks: Any) -> None:
        self._max_bytes = max_bytes
        self._kafka = kafka
        self.client = Metadata(kafka, host)
        self._message_accumulator = Accumulator(acks)
        self._txn_manager = Sequences()
        self._sender = Sender(kafka, self.client, self._message_accumulator, self._txn_manager)
        self._closed = False

    async def start(self) -> None:
        await self.client.bootstrap()
        await asyncio.sleep(self._kafka.latency())
        self._sender.pid = self._kafka.new_pid()
        self._sender.sender_task = asyncio.create_task(self._sender.run())

    def create_batch(self) -> Builder:
        return Builder(self._max_bytes)


class Sender:
    """As aiokafka's: one request at a time for each broker, one batch at a time for each partition."""

    def __init__(self, kafka: Kafka, client: Metadata, accumulator: Accumulator, sequences: Sequences) -> None:
        self._kafka, self._client, self._accumulator, self._sequences = kafka, client, accumulator, sequences
        self.pid = -1
        self.sender_task: asyncio.Task[None] | None = None
        self._in_flight: set[int] = set()
        self._muted: set[Any] = set()

    async def run(self) -> None:
        tasks: dict[asyncio.Task[None], None] = {}
        while True:
            nodes, is_unknown = self._drain()
            for node, batches in nodes.items():
                self._in_flight.add(node)
                self._muted.update(each.tp for each in batches)
                tasks[asyncio.create_task(self._send_produce_req(node, batches))] = None
            other = self._client.force_metadata_update() if is_unknown else self._accumulator.news
            await asyncio.wait([*tasks, other], return_when=asyncio.FIRST_COMPLETED)
            for task in [each for each in tasks if each.done()]:
                task.result()
                del tasks[task]

    def _drain(self) -> tuple[dict[int, list[Batch]], bool]:
        accumulator, now = self._accumulator, asyncio.get_running_loop().time()
        nodes: dict[int, list[Batch]] = {}
        is_unknown = False
        for tp in list(accumulator.batches):
            leader = self._client.leader_for_partition(tp)
            if tp in self._muted or leader in self._in_flight:
                continue
            if leader in {None, -1}:
                is_unknown = True
                if now - accumulator.batches[tp][0].began > LEADERLESS_S:
                    missing = leader is None
                    error = kafka_errors.NotLeaderForPartitionError if missing else kafka_errors.LeaderNotAvailableError
                    self._take(tp).fail(error())
            elif leader is not None:
                nodes.setdefault(leader, []).append(self._take(tp))
        accumulator.news = asyncio.get_running_loop().create_future()
        return nodes, is_unknown

    def _take(self, tp: Any) -> Batch:
        batches = self._accumulator.batches[tp]
        batch = batches.popleft()
        if not batches:
            del self._accumulator.batches[tp]
        if not batch.retry_count:
            batch.pid, batch.sequence = self.pid, self._sequences.number(tp)
            self._sequences.increment_sequence_number(tp, batch.record_count)
        batch.retry_count += 1
        return batch

    async def _send_produce_req(self, node: int, batches: list[Batch]) -> None:
        again = []
        try:
            errors = await self._answer(node, batches)
            for batch, error in zip(batches, errors, strict=True):
                if error is None or error is kafka_errors.DuplicateSequenceNumber:
                    if not batch.future.done():
                        batch.future.set_result(None)
                elif not error.retriable:
                    is_fenced = error is kafka_errors.InvalidProducerEpoch
                    batch.fail(kafka_errors.ProducerFenced() if is_fenced else error())
                else:
                    if getattr(error, "invalid_metadata", False):
                        self._client.force_metadata_update()
                    again.append(batch)
            if again:
                await asyncio.sleep(RETRY_S)
                for batch in again:
                    self._accumulator.batches.setdefault(batch.tp, deque()).appendleft(batch)
        finally:
            self._in_flight.discard(node)
            self._muted.difference_update(each.tp for each in batches)

    async def _answer(self, node: int, batches: list[Batch]) -> Sequence[type[kafka_errors.KafkaError] | None]:
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._kafka.produce(self._client.link, node, batches, answered)
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                found: list[Any] = await answered
        except TimeoutError:
            return [kafka_errors.RequestTimedOutError] * len(batches)
        except kafka_errors.KafkaError as exc:
            return [type(exc)] * len(batches)
        return found


class Consumer:
    """As `AIOKafkaConsumer` without a group; it is its own fetcher and subscription."""

    def __init__(self, kafka: Kafka, host: str) -> None:
        self._kafka = kafka
        self._client = Metadata(kafka, host)
        self._loop = kafka.world.loop
        self._coordinator = None
        self._fetcher = Fetcher(self)
        self._subscription = self
        self.topics: set[str] = set()
        self.positions: dict[Any, int] = {}
        self.waiters: list[asyncio.Future[None]] = []

    async def start(self) -> None:
        await self._client.bootstrap()
        self._kafka.consumers.append(self)

    async def stop(self) -> None:
        self._client._sync_task.cancel()
        if self in self._kafka.consumers:
            self._kafka.consumers.remove(self)

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self._client.partitions_for_topic(topic)

    def assign(self, tps: Iterable[Any]) -> None:
        for tp in tps:
            self.topics.add(tp.topic)
            self.positions[tp] = -1

    def seek(self, tp: Any, offset: int) -> None:
        self.positions[ClientPartition(*tp)] = offset

    async def position(self, tp: Any) -> int:
        return self.positions[tp]

    async def beginning_offsets(self, tps: Sequence[Any]) -> dict[Any, int]:
        await self._answer()
        return dict.fromkeys(tps, 0)

    async def end_offsets(self, tps: Sequence[Any]) -> dict[Any, int]:
        await self._answer()
        now = self._loop.time()
        return {tp: self._partition(tp).end(now) for tp in tps}

    async def offsets_for_times(self, times: Mapping[Any, int]) -> dict[Any, Any]:
        await self._answer()
        found = {}
        for tp, since_ms in times.items():
            records = self._partition(tp).records
            at = next((n for n, each in enumerate(records) if each.timestamp_ms >= since_ms), None)
            found[tp] = None if at is None else Found(at)
        return found

    def _partition(self, tp: Any) -> Partition:
        found = self._kafka.find(tp)
        if found is None:
            raise kafka_errors.UnknownTopicOrPartitionError
        return found

    async def _answer(self) -> None:
        await asyncio.sleep(self._kafka.latency())
        waited_s = 0.0
        while not any(self._kafka.sees(self._client.link.host, each.id) == "up" for each in self._kafka.brokers):
            if waited_s > REQUEST_TIMEOUT_S:
                raise kafka_errors.KafkaTimeoutError
            await asyncio.sleep(FETCH_S)
            waited_s += FETCH_S

    def _heard(self, tp: Any) -> Partition | None:
        """Return a partition whose leader responds."""
        kafka, found = self._kafka, self._kafka.find(tp)
        if found is None or found.leader < 0 or kafka.brokers[found.leader].state != "up":
            return None
        return None if self._client.link.host in kafka.cut_off else found

    def end_of(self, tp: Any) -> int:
        """Return up to where a fetch has records now."""
        found = self._heard(tp)
        return self.positions[tp] if found is None else found.end(self._loop.time() - self._kafka.lag_s[found.tp.topic])

    def last_poll_timestamp(self, tp: Any) -> int | None:
        if self._heard(tp):
            self._fetcher.answers[tp] = int(self._loop.time() / FETCH_S)
        return self._fetcher.answers.get(tp)

    def last_stable_offset(self, tp: Any) -> int:
        if self._heard(tp):
            self._fetcher.ends[tp] = self.end_of(tp)
        return self._fetcher.ends.setdefault(tp, 0)

    async def getmany(self, tp: Any, *, max_records: int) -> Mapping[Any, list[ConsumedRecord]]:
        found, position = self._heard(tp), self.positions[tp]
        if found is None:
            return {}
        end = found.end(self._loop.time() - self._kafka.lag_s[found.tp.topic])
        if end < position:  # the topic was made anew
            raise kafka_errors.OffsetOutOfRangeError({tp: position})
        taken = found.records[position : min(end, position + max_records)]
        self.positions[tp] = position + len(taken)
        records = [
            ConsumedRecord(*found.tp, position + n, each.timestamp_ms, each.key, each.value, each.headers)
            for n, each in enumerate(taken)
        ]
        return {tp: records} if records else {}

    def wake(self) -> None:
        """Wake all waiting tasks."""
        waiters, self.waiters = self.waiters, []
        for each in waiters:
            if not each.done():
                each.set_result(None)


class Found(NamedTuple):
    """An offset for a time."""

    offset: int


class Fetcher:
    """The parts of aiokafka's that `FetchBuffer` and `Tail` look at."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._fetch_task: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending_tasks: set[Any] = set()
        self.answers: dict[Any, int] = {}
        self.ends: dict[Any, int] = {}

    @property
    def _records(self) -> dict[Any, None]:
        consumer = self._consumer
        return {tp: None for tp, at in consumer.positions.items() if at >= 0 and consumer.end_of(tp) != at}

    def _create_fetch_waiter(self) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._consumer.waiters.append(waiter)
        return waiter


def _fail(future: asyncio.Future[Any], exc: Exception) -> None:
    if not future.done():
        future.set_exception(exc)
        future.exception()  # observed: what is sent again may have been given up
