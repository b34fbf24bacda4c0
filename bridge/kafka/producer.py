"""The door to aiokafka's producer: one generation of it, with our own bound on every wait and a certain end.

aiokafka 0.14 never expires an idempotent batch, hangs in `stop()` while brokers are away and goes on sending after it.
So a generation is never stopped: its tasks are cancelled and its connections aborted, and a new one takes its place.
What is private to aiokafka is touched in this module only; its version range is pinned for that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition  # noqa: TID251 - this is the door
from aiokafka import errors as kafka_errors  # noqa: TID251 - as above

from bridge.errors import NotDurableError, RecordRefusedError
from bridge.kafka.connection import CLIENT_FAILURES
from bridge.kafka.record import Record
from bridge.runtime.lifecycle import is_cancelled
from bridge.runtime.logging import trail

log = structlog.get_logger()

# The broker's and our bound of one request, and of one connect. Half the default session time-out of a dead broker
# (9 s), so that a hung one is left early; a batch that outlives it is sent again under the same sequence number.
REQUEST_TIMEOUT_MS = 5_000
# Bootstrap and the wait for a producer id: two requests that time out, and some.
START_S = 15.0
METADATA_S = 2.0
METADATA_MAX_AGE_MS = 60_000
# A topic found missing is not asked for again by every write.
MISSING_S = 1.0
# Half of the smallest common `max.message.bytes`; a larger record travels alone.
BATCH_MAX_BYTES = 512 * 1024
# Cancelled tasks and aborted connections need a few turns of the loop.
END_S = 1.0

# After these the broker has certainly not written the batch; the code says what is at fault.
_RECORD_FAULTS = {
    kafka_errors.MessageSizeTooLargeError: "record_too_large",
    kafka_errors.RecordListTooLargeError: "record_too_large",
    kafka_errors.CorruptRecordException: "record_refused",
    kafka_errors.InvalidTimestampError: "record_refused",
    kafka_errors.PolicyViolationError: "record_refused",
}
_TOPIC_FAULTS = {
    kafka_errors.TopicAuthorizationFailedError: "not_authorized",
    kafka_errors.ClusterAuthorizationFailedError: "not_authorized",
    kafka_errors.InvalidTopicError: "topic_missing",
    # aiokafka gives these up by itself when no leader was found in time.
    kafka_errors.NotLeaderForPartitionError: "topic_missing",
    kafka_errors.LeaderNotAvailableError: "kafka_unavailable",
}


class Generation:
    """One aiokafka producer from its start to its end.

    Attributes:
        broken: Set when it must be replaced.
    """

    def __init__(self, options: dict[str, Any], *, now: Callable[[], float] = time.time) -> None:
        """Build it; `options` say how to connect, and `now` gives Unix seconds."""
        self.broken = asyncio.Event()
        self._now = now
        self._client = AIOKafkaProducer(
            **options,
            client_id="drx-bridge",
            acks="all",
            enable_idempotence=True,
            linger_ms=0,  # the request in flight is the batching
            max_batch_size=BATCH_MAX_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
        self._requests = _track_requests(self._client._sender)  # noqa: SLF001 - no public way to end them
        self._accumulator = self._client._message_accumulator  # noqa: SLF001 - tells whether a batch was sent twice
        self._metadata = self._client.client.cluster
        self._writes: dict[asyncio.Future[Any], float] = {}
        self._answered_at = 0.0
        self._ended = False
        self._missing: dict[str, float] = {}

    async def start(self) -> None:
        """Connect and get a producer id.

        Raises:
            NotDurableError: Not now; the code says why.
        """
        try:
            async with asyncio.timeout(START_S):
                await self._client.start()
                # The bootstrap answer names no topics; a client that was told of none asks for all it may see.
                await self._client.client.force_metadata_update()
        except kafka_errors.ClusterAuthorizationFailedError as exc:
            raise NotDurableError("not_authorized") from exc
        except CLIENT_FAILURES as exc:
            raise NotDurableError("handshake_failed") from exc

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Write the first `records`, as many as a batch holds; return how many all in-sync replicas have.

        Raises:
            RecordRefusedError: One of the records is at fault.
            NotDurableError: Not written, or not known to be.
        """
        try:
            return await self._write(topic, partition, records)
        except NotDurableError:
            raise
        except (Exception, asyncio.CancelledError) as exc:
            if is_cancelled():
                raise
            # aiokafka raises more than it says, and nothing is known of the batch.
            self.broken.set()
            log.error("worker.write_failed", topic=topic, partition=partition, where=trail(exc))
            raise NotDurableError("outcome_unknown") from exc

    async def _write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        await self._find(topic, partition)
        builder = self._client.create_batch()
        # Brokers refuse a time stamp more than an hour ahead (`message.timestamp.after.max.ms`), so one that a wrong
        # clock gave would block its partition for as long as that clock was ahead.
        now_ms = int(self._now() * 1000)
        for record in records:
            timestamp_ms = min(record.timestamp_ms, now_ms)
            fits = builder.append(timestamp=timestamp_ms, key=record.key, value=record.value, headers=record.headers)
            if fits is None:
                break
        place = TopicPartition(topic, partition)
        try:
            future = await self._client.send_batch(builder, topic, partition=partition)
        except kafka_errors.KafkaError as exc:
            self.broken.set()
            raise NotDurableError("kafka_unavailable") from exc
        if self._ended:
            raise NotDurableError("outcome_unknown")
        batch = self._accumulator._batches[place][-1]  # noqa: SLF001 - as above
        self._writes[future] = asyncio.get_running_loop().time()
        try:
            await future
        except kafka_errors.KafkaError as exc:
            raise self._failure(exc, place, batch) from exc
        finally:
            del self._writes[future]
        self._answered_at = asyncio.get_running_loop().time()
        return int(builder.record_count())

    def partitions(self, topic: str) -> int | None:
        """How many partitions the cluster says a topic has; None while it knows no such topic."""
        known = self._metadata.partitions_for_topic(topic)
        return None if known is None else len(known)

    def look_again(self) -> None:
        """Have the metadata renewed in the background."""
        self._client.client.force_metadata_update()

    def oldest_s(self, now: float) -> float:
        """Age of the oldest write without an answer."""
        return now - min(self._writes.values()) if self._writes else 0.0

    def silent_s(self, now: float) -> float:
        """How long writes have waited without any answer at all."""
        return min(self.oldest_s(now), now - self._answered_at)

    @property
    def dead(self) -> bool:
        """True when nothing sends, or renews the metadata, any more."""
        tasks = (self._client._sender.sender_task, self._client.client._sync_task)  # noqa: SLF001 - no public way to know
        return any(task is None or task.done() for task in tasks)

    async def settle(self, timeout_s: float) -> None:
        """Give writes in flight a last chance."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=timeout_s)

    async def end(self) -> None:
        """Make sure that nothing is sent any more; writes without an answer become unknown."""
        self._ended = True
        for future in self._writes:
            if not future.done():
                future.set_exception(NotDurableError("outcome_unknown"))
        self._client._closed = True  # noqa: SLF001 - else its finalizer complains that nobody called `stop()`
        await end_client(self._client.client, [*self._requests, self._client._sender.sender_task])  # noqa: SLF001

    async def _find(self, topic: str, partition: int) -> None:
        """Look before writing: aiokafka would wait for a missing topic, and have it created with other settings."""
        if partition < (self.partitions(topic) or 0):
            return
        now = asyncio.get_running_loop().time()
        if now - self._missing.get(topic, -MISSING_S) >= MISSING_S:
            if not await self._refresh():
                raise NotDurableError("kafka_unavailable")
            if partition < (self.partitions(topic) or 0):
                return
            self._missing[topic] = now
        raise NotDurableError("topic_missing")

    async def _refresh(self) -> bool:
        try:
            async with asyncio.timeout(METADATA_S):
                return bool(await self._client.client.force_metadata_update())
        except TimeoutError:
            return False

    def _failure(self, exc: Exception, place: Any, batch: Any) -> NotDurableError:
        """Translate what became of a batch."""
        fault = _RECORD_FAULTS.get(type(exc)) or _TOPIC_FAULTS.get(type(exc))
        if fault is None or batch.retry_count > 1:
            # Nothing certain is known, and the sequence numbers of the partition have a hole now.
            self.broken.set()
            return NotDurableError("outcome_unknown")
        # Sent once and refused: the numbers were not used. Without this the next batch would be out of order.
        self._client._txn_manager.increment_sequence_number(place, -batch.record_count)  # noqa: SLF001
        return RecordRefusedError(fault) if type(exc) in _RECORD_FAULTS else NotDurableError(fault)


def _track_requests(sender: Any) -> set[asyncio.Task[Any]]:
    """Return the set of tasks that `sender` has a request out with, kept up to date."""
    requests: set[asyncio.Task[Any]] = set()
    send = sender._send_produce_req  # noqa: SLF001 - see `Generation.end`

    async def send_tracked(node_id: int, batches: Any) -> None:
        task = asyncio.current_task()
        if task is not None:
            requests.add(task)
            task.add_done_callback(requests.discard)
        await send(node_id, batches)

    sender._send_produce_req = send_tracked  # noqa: SLF001
    return requests


async def end_client(client: Any, tasks: Iterable[asyncio.Task[Any] | None] = ()) -> None:
    """End aiokafka's inner client and `tasks` that use it, for certain: its own `close()` may hang."""
    ending = [task for task in (*tasks, client._sync_task) if task is not None]  # noqa: SLF001
    for task in ending:
        task.cancel()
    try:
        if ending:
            ended, _ = await asyncio.wait(ending, timeout=END_S)
            for task in ended:
                if not task.cancelled():
                    task.exception()  # or the loop complains that nobody has asked for it
    finally:
        closed = [_abort(connection) for connection in client._conns.values()]  # noqa: SLF001
    if closed:
        await asyncio.wait(closed, timeout=END_S)


def _abort(connection: Any) -> asyncio.Future[None]:
    """Close at once: an orderly close would first deliver what is still buffered."""
    writer = connection._writer  # noqa: SLF001
    try:
        closed: asyncio.Future[None] = connection.close()
    finally:
        if writer is not None:
            writer.transport.abort()
    return closed
