"""Take fetched records from an aiokafka consumer per partition, and identify unreadable batches.

aiokafka 0.14 unpacks batches inside `getmany`. For a corrupt one it raises without naming the partition. By then it has
dropped the records before that batch, and those of other partitions whose positions it has moved.

Batches are unpacked directly to our own records.
"""

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

bound_unpacking()  # applies to all readers of this process

# As many as the window of a partition: unpacking more at once would hold the loop for too long.
POLL_RECORDS = 1024
# The head of one batch is wanted; Kafka gives a whole batch however small the limit.
HEAD_BYTES = 1024
HEAD_WAIT_MS = 500
# Kafka's records of version 2, docs of the protocol, "Record Batch": base offset, length, leader epoch, magic, CRC,
# attributes, last offset delta.
_HEAD = struct.Struct(">qiibIhi")
_MAGIC = 2


# Errors of `getmany` about a partition, not about its batches.
_OF_THE_CLIENT = (
    kafka_errors.ConsumerStoppedError,
    kafka_errors.IllegalStateError,
    kafka_errors.NoOffsetForPartitionError,
    kafka_errors.OffsetOutOfRangeError,
    kafka_errors.TopicAuthorizationFailedError,
)


class UnreadableBatchError(BridgeError):
    """A batch is corrupt (wrong checksum), too large, or of an unknown codec, after two fetches."""

    code = "batch_unreadable"

    def __init__(self, place: Place, offset: int) -> None:
        super().__init__(self.code)
        self.place = place
        self.offset = offset


class FetchBuffer:
    """What one consumer has fetched."""

    def __init__(self, consumer: Any) -> None:
        """Wrap a started consumer; nothing else may call its `getmany`."""
        self._consumer = consumer
        # Partitions with an unreadable batch: read record by record, so that earlier records are not dropped.
        self._suspects: set[Any] = set()

    async def take(
        self, places: Collection[Place], *, most: int = POLL_RECORDS
    ) -> Mapping[Place, list[ConsumedRecord]]:
        """Return up to `most` fetched records of `places`, without waiting; raises as `getmany`.

        `UnreadableBatchError`: the next batch of a partition; all readable records before it were returned.
        """
        found: dict[Place, list[ConsumedRecord]] = {}
        left = most
        fetched = self._consumer._fetcher._records  # noqa: SLF001 - the partitions that have something, the oldest first
        for each in [each for each in fetched if each in places]:  # both are named tuples of a topic and a number
            try:
                self._prepare(fetched[each])
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

    def _prepare(self, fetched: Any) -> None:
        """Have `getmany` unpack to our records."""
        unpacked = getattr(fetched, "_partition_records", None)  # none in an error, and when all has been taken
        if unpacked is None:
            return
        unpacked._consumer_record = _consumed  # noqa: SLF001 - takes the place of its method

    async def news(self, timeout_s: float) -> None:
        """Wait until anything is fetched, at most `timeout_s`."""
        fetcher = self._consumer._fetcher  # noqa: SLF001 - `getmany` would wait inside of its context
        waiter = fetcher._create_fetch_waiter()  # noqa: SLF001 - as above
        await asyncio.wait({waiter, fetcher._fetch_task}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)  # noqa: SLF001 - as above
        if not waiter.cancel() and not waiter.cancelled():
            waiter.exception()  # the next look raises it

    async def after(self, place: Place, offset: int) -> int:
        """Return the offset behind the batch at `offset`, by its head; `KafkaError` if the leader does not answer."""
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
        # aiokafka counts a context that was left by an exception as still entered, with the max-poll check off.
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
