"""Take fetched records from an aiokafka consumer per partition, and identify unreadable batches.

aiokafka 0.14 unpacks batches inside `getmany`. On a corrupt batch it raises without naming the partition. By then it
has dropped the records before that batch, and records of other partitions whose positions it has advanced.
Here, `getmany` is called for one partition at a time, and batches are unpacked directly to `ConsumedRecord`.
"""

import asyncio
import struct
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import TopicPartition as ClientPartition  # noqa: TID251 - `bridge.kafka` wraps it
from aiokafka import errors as kafka_errors  # noqa: TID251 - as above
from aiokafka.protocol.fetch import FetchRequest  # noqa: TID251 - as above

from bridge.errors import BridgeError
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.unpack import bound_unpacking

bound_unpacking()  # applies to all readers of this process

# Equal to the window of a partition: unpacking more records at once would block the event loop for too long.
POLL_RECORDS = 1024
# Enough for the header of a batch; Kafka returns a whole batch even if the limit is smaller.
HEAD_BYTES = 1024
HEAD_WAIT_MS = 500
# Kafka protocol guide, "Record Batch", version 2: base offset, length, leader epoch, magic, CRC, attributes, last
# offset delta.
_HEAD = struct.Struct(">qiibIhi")
_MAGIC = 2

# Errors of `getmany` that are not about a corrupt batch.
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

    def __init__(self, tp: TopicPartition, offset: int) -> None:
        super().__init__(self.code)
        self.tp = tp
        self.offset = offset


class FetchBuffer:
    """The fetched records of one consumer."""

    def __init__(self, consumer: Any) -> None:
        """Wrap a started consumer; nothing else may call its `getmany`."""
        self._consumer = consumer
        # Partitions with an unreadable batch: read one record at a time, so that earlier records are not dropped.
        self._suspects: set[Any] = set()

    async def take(
        self, tps: Collection[TopicPartition], *, most: int = POLL_RECORDS
    ) -> Mapping[TopicPartition, list[ConsumedRecord]]:
        """Return up to `most` fetched records of `tps`, without waiting; raises like `getmany`.

        Raises `UnreadableBatchError` for a partition's next batch, once all records before that batch were returned.
        """
        found: dict[TopicPartition, list[ConsumedRecord]] = {}
        left = most
        fetched = self._consumer._fetcher._records  # noqa: SLF001 - partitions with fetched records, oldest first
        for each in [each for each in fetched if each in tps]:  # both are named tuples of topic and partition
            try:
                # Absent from an error, and once all records were taken.
                if (unpacked := getattr(fetched[each], "_partition_records", None)) is not None:
                    unpacked._consumer_record = _consumed  # noqa: SLF001 - replaces its method
                records = await self._records(each, left)
            except (UnreadableBatchError, *_OF_THE_CLIENT):
                if found:
                    break  # the next call raises it again
                raise
            if records:
                found[TopicPartition(*each)] = records
                left -= len(records)
            if not left:
                break
        return found

    async def news(self, timeout_s: float) -> None:
        """Wait until records are fetched, at most `timeout_s`."""
        fetcher = self._consumer._fetcher  # noqa: SLF001 - `getmany` would wait inside its context
        waiter = fetcher._create_fetch_waiter()  # noqa: SLF001 - as above
        await asyncio.wait({waiter, fetcher._fetch_task}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)  # noqa: SLF001 - as above
        if not waiter.cancel() and not waiter.cancelled():
            waiter.exception()  # the next `take` raises it

    async def after(self, tp: TopicPartition, offset: int) -> int:
        """Return the offset after the batch at `offset`, from its header; `KafkaError` if there is no response."""
        client = self._consumer._client  # noqa: SLF001 - `getmany` does not return the batch's header
        leader = client.cluster.leader_for_partition(ClientPartition(*tp))
        asked = [(tp.topic, [(tp.partition, offset, HEAD_BYTES)])]
        response = await client.send(leader, FetchRequest(HEAD_WAIT_MS, 1, HEAD_BYTES, 0, asked))
        content: bytes = response.topics[0][1][0][-1] or b""
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
                return []  # aiokafka has dropped the records before that batch, and fetches them again
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
        except Exception as exc:  # decompressors raise anything from `DecompressionError` to `IndexError`
            self._left_context()
            state = self._consumer._subscription.subscription.assignment.state_value(partition)  # noqa: SLF001 - `position()` may wait
            raise UnreadableBatchError(TopicPartition(*partition), state.position) from exc
        return found

    def _left_context(self) -> None:
        # aiokafka treats a context left by an exception as still entered, which disables the max-poll check.
        self._consumer._subscription._fetch_count = 0  # noqa: SLF001 - as above


def _consumed(tp: Any, record: Any) -> ConsumedRecord:
    """Convert an unpacked record of the client to a `ConsumedRecord`."""
    topic, partition = tp
    headers = record.headers
    for _, content in headers:
        if content is None:
            headers = [(name, content or b"") for name, content in headers]
            break
    return ConsumedRecord(topic, partition, record.offset, record.timestamp, record.key, record.value, headers)
