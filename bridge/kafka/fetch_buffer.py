"""Takes what an aiokafka consumer has fetched, one partition at a time, and names the batch that cannot be read.

aiokafka 0.14 unpacks batches inside `getmany`. One that is corrupt makes it raise without the name of the partition,
after it has dropped the records before that batch, also those of other partitions, whose positions it has moved.

It unpacks them to our own records at once, without a record of aiokafka's in between.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import TopicPartition  # noqa: TID251 - part of the door
from aiokafka import errors as kafka_errors  # noqa: TID251 - as above
from aiokafka.protocol.fetch import FetchRequest  # noqa: TID251 - as above

from bridge.errors import BridgeError
from bridge.kafka.transport import ConsumedRecord, Place
from bridge.kafka.unpack import bound_unpacking

bound_unpacking()  # of all that read topics in this process

# As many as the window of a partition: unpacking more at once would hold the loop for too long.
POLL_RECORDS = 1024
# The head of one batch is wanted; Kafka gives a whole batch however small the limit.
HEAD_BYTES = 1024
HEAD_WAIT_MS = 500
# Kafka's records of version 2, docs of the protocol, "Record Batch": base offset, length, leader epoch, magic, CRC,
# attributes, last offset delta.
_HEAD = struct.Struct(">qiibIhi")
_MAGIC = 2

# Of one partition, those that were written and not read again yet. They are read within 0.1 s; this is for seconds.
OWN_MAX = 1024

# What `getmany` raises of a partition that is not about its batches.
_OF_THE_CLIENT = (
    kafka_errors.ConsumerStoppedError,
    kafka_errors.IllegalStateError,
    kafka_errors.NoOffsetForPartitionError,
    kafka_errors.OffsetOutOfRangeError,
    kafka_errors.TopicAuthorizationFailedError,
)


class UnreadableBatchError(BridgeError):
    """A batch is corrupt (its sum is wrong), too large, or no codec unpacks it; it was fetched twice."""

    code = "batch_unreadable"

    def __init__(self, place: Place, offset: int) -> None:
        """Keep where it begins to be unreadable."""
        super().__init__(self.code)
        self.place = place
        self.offset = offset


class OwnBatches:
    """Batches that this process has written and that Kafka has acknowledged, so that there is nothing to read in them.

    What a write of unknown outcome has left in a topic is none of them: it must be read.
    """

    def __init__(self) -> None:
        # By place and base offset: who wrote it, and the offset behind it.
        self._noted: dict[tuple[str, int], dict[int, tuple[int, int]]] = {}

    def note(self, topic: str, partition: int, offset: int, *, records: int, producer_id: int) -> None:
        """Note an acknowledged batch of some records that begins at `offset`."""
        noted = self._noted.setdefault((topic, partition), {})
        noted[offset] = producer_id, offset + records
        if len(noted) > OWN_MAX:
            del noted[next(iter(noted))]

    def take(self, place: tuple[str, int], offset: int, producer_id: int) -> bool:
        """Return whether a batch is one of them, and forget it."""
        noted = self._noted.get(place)
        return noted is not None and noted.pop(offset, (None, 0))[0] == producer_id

    def end_of(self, place: tuple[str, int], offset: int) -> int:
        """Return the offset behind those of them that follow each other from `offset` on, and forget them."""
        noted = self._noted.get(place)
        while noted and (batch := noted.pop(offset, None)) is not None:
            offset = batch[1]
        return offset

    def forget(self, topic: str) -> None:
        """Forget all of a topic, which may have been made anew."""
        for place in [place for place in self._noted if place[0] == topic]:
            del self._noted[place]


class _Unopened:
    """Stands for a batch that need not be read: behind a control batch aiokafka moves on without opening it."""

    __slots__ = ("next_offset",)
    is_control_batch = True
    producer_id = None

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset

    def validate_crc(self) -> bool:
        return True


class _WithoutOwn:
    """The batches of one fetch, an `_Unopened` in the place of each of our own."""

    __slots__ = ("_batches", "_place", "_records", "has_next")

    def __init__(self, batches: FetchBuffer, place: tuple[str, int], records: Any) -> None:
        self._batches = batches
        self._place = place
        self._records = records
        self.has_next = records.has_next

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        return _Unopened(batch.next_offset) if self._batches.pass_over(self._place, batch) else batch


class FetchBuffer:
    """What one consumer has fetched.

    Attributes:
        passed: Batches of our own that were passed over so far.
    """

    def __init__(self, consumer: Any, own: OwnBatches | None = None) -> None:
        """Take a started consumer, whose `getmany` is called here alone; pass over `own` without opening them."""
        self._consumer = consumer
        self._own = own
        self.passed = 0
        # Of which a batch could not be read: they are read record by record, so that those before it are not dropped.
        self._suspects: set[Any] = set()

    async def take(
        self, places: Collection[Place], *, most: int = POLL_RECORDS
    ) -> Mapping[Place, list[ConsumedRecord]]:
        """Return the records that were fetched of `places`, `most` of them, without a wait.

        Raises:
            UnreadableBatchError: The next batch of a partition; what can be read before it has been returned.
            KafkaError: As `getmany`.
        """
        found: dict[Place, list[ConsumedRecord]] = {}
        left = most
        fetched = self._consumer._fetcher._records  # noqa: SLF001 - the partitions that have something, the oldest first
        for each in [each for each in fetched if each in places]:  # both are named tuples of a topic and a number
            try:
                self._prepare(each, fetched[each])
                records = await self._records(each, left)
            except (UnreadableBatchError, *_OF_THE_CLIENT):
                if found:
                    break  # it is raised by the next look again
                raise
            if records:
                found[Place(*each)] = records
                left -= len(records)
            if not left:
                break
        return found

    def _prepare(self, place: Any, fetched: Any) -> None:
        """Have `getmany` unpack to our records, and leave out the batches of our own."""
        unpacked = getattr(fetched, "_partition_records", None)  # none in an error, and when all has been taken
        if unpacked is None:
            return
        unpacked._consumer_record = _consumed  # noqa: SLF001 - takes the place of its method
        if self._own is not None and not isinstance(unpacked._records, _WithoutOwn):  # noqa: SLF001 - `getmany` unpacks them
            unpacked._records = _WithoutOwn(self, place, unpacked._records)  # noqa: SLF001 - as above

    def pass_over(self, place: tuple[str, int], batch: Any) -> bool:
        """Return whether a batch is one of our own, and count it."""
        is_own = self._own is not None and self._own.take(place, batch.base_offset, batch.producer_id)
        self.passed += is_own
        return is_own

    async def news(self, timeout_s: float) -> None:
        """Return when anything was fetched, of whatever partition, or after `timeout_s`."""
        fetcher = self._consumer._fetcher  # noqa: SLF001 - `getmany` would wait inside of its context
        waiter = fetcher._create_fetch_waiter()  # noqa: SLF001 - as above
        await asyncio.wait({waiter, fetcher._fetch_task}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)  # noqa: SLF001 - as above
        if not waiter.cancel() and not waiter.cancelled():
            waiter.exception()  # the next look raises it

    async def after(self, place: Place, offset: int) -> int:
        """Return the offset behind the batch that holds `offset`, by the head of the batch, or the next one.

        Raises:
            KafkaError: The leader does not answer.
        """
        client = self._consumer._client  # noqa: SLF001 - what `getmany` makes of an answer holds no batch
        leader = client.cluster.leader_for_partition(TopicPartition(*place))
        asked = [(place.topic, [(place.partition, offset, HEAD_BYTES)])]
        answer = await client.send(leader, FetchRequest(HEAD_WAIT_MS, 1, HEAD_BYTES, 0, asked))
        content: bytes = answer.topics[0][1][0][-1] or b""
        if len(content) < _HEAD.size:
            return offset + 1
        base, _, _, magic, _, _, delta = _HEAD.unpack_from(content)
        return max(offset, base + delta) + 1 if magic == _MAGIC else offset + 1

    async def _records(self, partition: Any, limit: int) -> list[ConsumedRecord]:
        if partition not in self._suspects:
            try:
                return (await self._getmany(partition, limit)).get(partition, [])
            except UnreadableBatchError:
                self._suspects.add(partition)
                return []  # aiokafka has dropped what lay before that batch, and fetches it once more
        found: list[ConsumedRecord] = []
        try:
            while len(found) < limit and (one := (await self._getmany(partition, 1)).get(partition)):
                found += one
        except UnreadableBatchError:
            if not found:
                raise
        else:
            if found:
                self._suspects.discard(partition)
        return found

    async def _getmany(self, partition: Any, limit: int) -> Mapping[Any, list[ConsumedRecord]]:
        try:
            found: Mapping[Any, list[ConsumedRecord]] = await self._consumer.getmany(partition, max_records=limit)
        except _OF_THE_CLIENT:
            self._left_context()
            raise
        except Exception as exc:  # the decompressors raise anything, from `DecompressionError` to `IndexError`
            self._left_context()
            state = self._consumer._subscription.subscription.assignment.state_value(partition)  # noqa: SLF001 - `position()` may wait
            raise UnreadableBatchError(Place(*partition), state.position) from exc
        return found

    def _left_context(self) -> None:
        # The context that it left by a raise counts as entered for good, and the max-poll check as off.
        self._consumer._subscription._fetch_count = 0  # noqa: SLF001 - as above


def _consumed(place: Any, record: Any) -> ConsumedRecord:
    """Return an unpacked record of the client's as ours."""
    topic, partition = place
    headers = record.headers
    for _, content in headers:
        if content is None:
            headers = [(name, content or b"") for name, content in headers]
            break
    return ConsumedRecord(topic, partition, record.offset, record.timestamp, record.key, record.value, headers)
