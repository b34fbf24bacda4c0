"""Read topics without a consumer group; wraps aiokafka's consumer."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Any

from aiokafka import TopicPartition as ClientPartition  # noqa: TID251 - this module wraps it
from aiokafka.errors import KafkaError  # noqa: TID251 - as above

from bridge.errors import CodedError
from bridge.kafka.connection import CLIENT_FAILURES, KafkaConnection, refusal
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.fetch_buffer import POLL_RECORDS, FetchBuffer, UnreadableBatchError
from bridge.kafka.producer import END_S, METADATA_MAX_AGE_MS, REQUEST_TIMEOUT_MS, START_S, end_client

# Seconds for which one poll waits for records.
POLL_S = 0.5
# Seconds without a response: a fetch takes up to `POLL_S`; this allows one timed-out request and its retry.
SILENT_S = 15.0
# A tail is read alongside other work: a slice takes a millisecond or two to unpack, and little is prefetched.
SLICE_RECORDS = 100
TAIL_FETCH_MAX_BYTES = 2 * 1024 * 1024
TAIL_PARTITION_MAX_BYTES = 256 * 1024

# From a consumer and the ends of its partitions to start offsets.
_Starts = Callable[[Any, Mapping[Any, int]], Awaitable[Mapping[Any, int]]]
# Called for an unreadable batch, with its partition, its first offset, and the offset where reading continues.
Unreadable = Callable[[TopicPartition, int, int], None]


class ReadError(CodedError):
    """Kafka cannot be read now; the message is one line for an operator."""

    retriable = True


@asynccontextmanager
async def open_reader(
    connection: KafkaConnection,
    topics: Sequence[str],
    *,
    from_beginning: bool,
    since_ms: int = 0,
    newest: int | None = None,
    starts: Mapping[TopicPartition, int] = MappingProxyType({}),
    unreadable: Unreadable | None = None,
) -> "AsyncIterator[TopicReader]":
    """Open a reader of `topics` at their beginning, their end, or the `starts` that the log still has.

    `from_beginning` skips records older than `since_ms`, and all but the last `newest` ones of each partition. An
    unreadable batch is skipped and `unreadable` called; without `unreadable`, reading ends there. Raises `ConfigError`
    if a file cannot be used, `ReadError` if no broker responds or a topic does not exist.
    """
    begin = partial(_starts, since_ms=since_ms, newest=newest if from_beginning else 0, noted=starts)
    async with _open(connection, topics, begin, unreadable) as reader:
        yield reader


@asynccontextmanager
async def open_tail(
    connection: KafkaConnection,
    topic: str,
    *,
    since_ms: int,
    records_max: int,
    noted: Mapping[int, int],
    unreadable: Unreadable,
) -> "AsyncIterator[Tail]":
    """Open a reader of the newest and all following records of `topic`, polled in small slices.

    A partition is read from its `noted` offset or, if the log no longer has that, from the first record since
    `since_ms`, but at most its share of the newest `records_max`. Raises like `open_reader`, also if no partition has a
    leader.
    """

    async def begin(consumer: Any, ends: Mapping[Any, int]) -> Mapping[Any, int]:
        places = {TopicPartition(topic, partition): offset for partition, offset in noted.items()}
        return await _starts(consumer, ends, since_ms=since_ms, newest=records_max // len(ends), noted=places)

    options = {"fetch_max_bytes": TAIL_FETCH_MAX_BYTES, "max_partition_fetch_bytes": TAIL_PARTITION_MAX_BYTES}
    async with _open(connection, [topic], begin, unreadable, led_only=True, **options) as reader:
        yield Tail(reader, topic)


@asynccontextmanager
async def _open(
    connection: KafkaConnection,
    topics: Sequence[str],
    starts: _Starts,
    unreadable: Unreadable | None,
    *,
    led_only: bool = False,
    **options: int,
) -> "AsyncIterator[TopicReader]":
    reach = await connection.reach()
    if not reach["bootstrap_servers"]:
        raise ReadError("unreachable", f"no broker answers at {connection.bootstrap_servers}")
    consumer = connection.consumer(
        **reach,
        **options,
        client_id="drx-bridge-reader",
        enable_auto_commit=False,
        auto_offset_reset="none",  # other policies skip or repeat silently
        isolation_level="read_committed",  # as every reader of the bridge
        request_timeout_ms=REQUEST_TIMEOUT_MS,
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
    )
    try:
        try:
            async with asyncio.timeout(START_S):
                await consumer.start()
                await consumer._client.force_metadata_update()  # noqa: SLF001 - the bootstrap response contains no topics
                tps = partitions_of(consumer, topics)
                if led_only:
                    tps = [tp for tp in tps if tp.partition in led(consumer, tp.topic)]
                if not tps:
                    raise ReadError("no_leader", f"no partition of {', '.join(topics)} has a leader")
                consumer.assign(tps)
                ends = await consumer.end_offsets(tps)
                offsets = await starts(consumer, ends)
        except CLIENT_FAILURES as exc:
            raise no_session(connection, reach) from exc
        for tp, offset in offsets.items():
            consumer.seek(tp, offset)
        yield TopicReader(consumer, ends, unreadable)
    finally:
        await end_consumer(consumer)


def no_session(connection: KafkaConnection, options: Mapping[str, Any]) -> ReadError:
    """Return the error for brokers that accept TCP connections of this client but do not start a session."""
    code, doubt = refusal(options)
    return ReadError(code, f"{connection.bootstrap_servers} accepts connections but begins no session: {doubt}")


async def _starts(
    consumer: Any, ends: Mapping[Any, int], *, since_ms: int, newest: int | None, noted: Mapping[Any, int]
) -> Mapping[Any, int]:
    firsts = await consumer.beginning_offsets(list(ends))
    since = await consumer.offsets_for_times(dict.fromkeys(ends, since_ms)) if since_ms > 0 else None
    starts = {}
    for tp, end in ends.items():
        start = noted.get(tp, -1)
        if not firsts[tp] <= start <= end:  # the topic was recreated, or its log truncated at either end
            start = firsts[tp] if since is None else end if since[tp] is None else since[tp].offset
        starts[tp] = min(max(firsts[tp], start, 0 if newest is None else end - newest), end)
    return starts


class TopicReader:
    """Records of all partitions, each partition in order."""

    def __init__(self, consumer: Any, ends: Mapping[Any, int], unreadable: Unreadable | None) -> None:
        """Read from the positions of `consumer`."""
        self._consumer = consumer
        self._fetch_buffer = FetchBuffer(consumer)
        self.ends = ends  # by partition (the client's type), the end offset at the opening
        self._unreadable = unreadable
        self._heard_at = 0.0

    async def until_end(self) -> AsyncGenerator[ConsumedRecord, None]:
        """Yield records up to the ends at opening; `ReadError` after `SILENT_S` without any, or if unreadable."""
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        while left := [tp for tp, end in self.ends.items() if await self._consumer.position(tp) < end]:
            for record in await self.poll(left):
                if record.offset < self.ends[ClientPartition(record.topic, record.partition)]:
                    yield record
                self._heard_at = loop.time()
            if loop.time() - self._heard_at > SILENT_S:
                raise ReadError("no_answer", "the brokers have stopped answering")

    async def by_time(self) -> AsyncGenerator[ConsumedRecord, None]:
        """Yield the records of `until_end`, oldest first across partitions; `forever` continues from there."""
        waiting: dict[Any, deque[ConsumedRecord]] = {tp: deque() for tp in self.ends}
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        while True:
            for tp, records in waiting.items():
                while not records and await self._consumer.position(tp) < self.ends[tp]:
                    found = await self.poll([tp], most=SLICE_RECORDS)
                    records += [each for each in found if each.offset < self.ends[tp]]
                    if len(records) < len(found):
                        self._consumer.seek(tp, self.ends[tp])
                    self._heard_at = loop.time() if found else self._heard_at
                    if loop.time() - self._heard_at > SILENT_S:
                        raise ReadError("no_answer", "the brokers have stopped answering")
            if not any(waiting.values()):
                return
            oldest = min(filter(None, waiting.values()), key=lambda records: records[0].timestamp_ms)
            yield oldest.popleft()
            self._heard_at = loop.time()

    async def forever(self) -> AsyncGenerator[ConsumedRecord, None]:
        """Yield records as they arrive, also after an outage; an unreadable batch raises `ReadError`."""
        while True:
            for record in await self.poll(list(self.ends)):
                yield record

    async def poll(self, tps: list[Any], *, most: int = POLL_RECORDS) -> list[ConsumedRecord]:
        """Return new records of `tps`, empty after `POLL_S`; `ReadError` if refused or unreadable."""
        try:
            found = await self._fetch_buffer.take(tps, most=most)
            if not found:
                await self._fetch_buffer.news(POLL_S)
                found = await self._fetch_buffer.take(tps, most=most)
        except UnreadableBatchError as exc:
            await self._pass_over(exc)
            return []
        except KafkaError as exc:
            raise ReadError("read_failed", "the brokers refuse to be read; offsets out of range, or ACL?") from exc
        return [each for records in found.values() for each in records]

    async def _pass_over(self, batch: UnreadableBatchError) -> None:
        topic, partition = batch.tp
        if self._unreadable is None:
            message = f"{topic}/{partition}: the batch at offset {batch.offset} cannot be read: it is corrupt"
            raise ReadError(batch.code, message) from batch
        try:
            after = await self._fetch_buffer.after(batch.tp, batch.offset)
        except KafkaError:
            return  # the next poll raises it again
        self._consumer.seek(ClientPartition(topic, partition), after)
        self._heard_at = asyncio.get_running_loop().time()
        self._unreadable(batch.tp, batch.offset, after)


class Tail:
    """The newest and all following records of one topic, with positions."""

    def __init__(self, reader: TopicReader, topic: str) -> None:
        """Use `reader`, which reads this topic only."""
        self._reader = reader
        self._consumer = reader._consumer  # noqa: SLF001 - of this module
        self._topic = topic
        self._places = list(reader.ends)
        # By partition, the end offset at the opening.
        self.ends = {tp.partition: end for tp, end in reader.ends.items()}

    async def poll(self) -> list[ConsumedRecord]:
        """Return new records, empty after `POLL_S`. Raises `ReadError` like `TopicReader.poll`."""
        return await self._reader.poll(self._places, most=SLICE_RECORDS)

    async def positions(self) -> dict[int, int]:
        """Return the offset of the next record by partition."""
        return {tp.partition: await self._consumer.position(tp) for tp in self._places}

    def heard(self) -> dict[int, tuple[int, int]]:
        """Return by partition an opaque time of the last response, and the end of the log in it."""
        responses = {
            tp.partition: (self._consumer.last_poll_timestamp(tp), self._consumer.last_stable_offset(tp))
            for tp in self._places
        }
        return {partition: (at, end) for partition, (at, end) in responses.items() if at is not None}

    async def end_of(self, partition: int) -> int:
        """Request the end offset of a partition; `ReadError` without a response."""
        tp = ClientPartition(self._topic, partition)
        try:
            found: dict[Any, int] = await self._consumer.end_offsets([tp])
        except CLIENT_FAILURES as exc:
            raise ReadError("no_answer", "the brokers have stopped answering") from exc
        return found[tp]

    def is_whole(self) -> bool:
        """Whether all partitions of the topic are being read."""
        known: set[int] | None = self._consumer.partitions_for_topic(self._topic)
        return known == self.ends.keys()

    def is_stale(self) -> bool:
        """Whether to replace this reader: a task of the client ended, or the partitions with a leader have changed.

        Without its task a client waits endlessly; for a partition without leader aiokafka requests metadata in a loop.
        """
        tasks = self._consumer._fetcher._fetch_task, self._consumer._client._sync_task  # noqa: SLF001 - no public way
        if any(task.done() for task in tasks):
            return True
        return led(self._consumer, self._topic) != self.ends.keys()

    def refresh_metadata(self) -> None:
        """Refresh the metadata in the background."""
        self._consumer._client.force_metadata_update()  # noqa: SLF001 - no public way


def led(consumer: Any, topic: str) -> set[int]:
    """Return the partitions of a topic that have a leader."""
    found: set[int] = consumer._client.cluster.available_partitions_for_topic(topic) or set()  # noqa: SLF001 - no public way
    return found


def partitions_of(consumer: Any, topics: Sequence[str]) -> list[Any]:
    """Return all partitions of the topics (the client's type); `ReadError` if a topic does not exist."""
    tps = []
    for topic in topics:
        partitions = consumer.partitions_for_topic(topic)
        if not partitions:
            raise ReadError("topic_missing", f"no such topic: {topic}; `drx-bridge topics create` makes standard ones")
        tps += [ClientPartition(topic, partition) for partition in sorted(partitions)]
    return tps


async def end_consumer(consumer: Any) -> None:
    """End a consumer in bounded time; `stop()` may hang, or raise `CancelledError` and leave connections and tasks."""
    stopping = asyncio.ensure_future(consumer.stop())
    await asyncio.wait({stopping}, timeout=END_S)
    stopping.cancel()
    await asyncio.wait({stopping}, timeout=END_S)
    if stopping.done() and not stopping.cancelled():
        stopping.exception()  # observed and ignored
    parts = [part for part in (consumer._coordinator, consumer._fetcher) if part is not None]  # noqa: SLF001 - no other handle
    tasks = [task for part in parts for task in vars(part).values() if isinstance(task, asyncio.Task)]
    if consumer._fetcher is not None:  # noqa: SLF001 - as above
        tasks += consumer._fetcher._pending_tasks  # noqa: SLF001 - as above
    await end_client(consumer._client, tasks)  # noqa: SLF001 - there is no other way to its connections
