"""Maintain a working aiokafka producer: connect in the background, watch it, and replace it when it fails.

aiokafka 0.14 never expires an idempotent batch; `stop()` hangs while brokers are away, and batches are sent after it.
So every wait has a bound of ours, and a producer is never stopped: its tasks are cancelled, its connections aborted,
and a new one, the next generation, replaces it. This module uses private parts of aiokafka, so the version range is
pinned (docs/adr/0005-aiokafka-fenced.md).
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from aiokafka import TopicPartition  # noqa: TID251 - this module wraps it
from aiokafka import errors as kafka_errors  # noqa: TID251 - as above

from bridge.errors import CodedError, ConfigError, NotDurableError, RecordRefusedError
from bridge.kafka.connection import CLIENT_FAILURES, KafkaConnection, refusal
from bridge.kafka.record import Record
from bridge.runtime.backoff import backoff_s
from bridge.runtime.lifecycle import first_of, is_cancelled
from bridge.runtime.logging import log, trail
from bridge.runtime.metrics import IngressMetrics

# Timeout of one request (the broker's and ours) and of one connect. Half the default session timeout of a dead broker
# (9 s), so that a hung one is abandoned early; the batch is then resent with the same sequence number.
REQUEST_TIMEOUT_MS = 5_000
# Seconds for bootstrap and the producer id: more than two requests that time out.
START_S = 15.0
METADATA_S = 2.0
METADATA_MAX_AGE_MS = 60_000
# Seconds for which a missing topic is not looked up again.
MISSING_S = 1.0
# Seconds between checks of a partition without a leader, and until its batch has failed, as in aiokafka.
LEADER_LOOK_S = 0.1
LEADER_LOOKS = 50
# Half of the smallest common `max.message.bytes`; a larger record is sent alone.
BATCH_MAX_BYTES = 512 * 1024
# Seconds; cancelled tasks and aborted connections need a few iterations of the event loop.
END_S = 1.0
# Seconds without any response of the only broker, not even to metadata requests, which are sent each second. The
# default response deadline is 4 s.
QUIET_S = 3.0
# Seconds to settle other writes before a generation is ended for one failing partition.
SETTLE_S = 1.0


class InvalidRecordError(kafka_errors.BrokerResponseError):  # type: ignore[misc]  # aiokafka is untyped
    """Error of a broker that validates records, for example schema ids; missing in aiokafka 0.14."""

    errno = 87
    message = "INVALID_RECORD"


kafka_errors.kafka_errors.setdefault(InvalidRecordError.errno, InvalidRecordError)

# Errors after which the broker has certainly not written the batch, with our codes.
_RECORD_FAULTS = {
    kafka_errors.MessageSizeTooLargeError: "record_too_large",
    kafka_errors.RecordListTooLargeError: "record_too_large",
    kafka_errors.CorruptRecordException: "record_refused",
    kafka_errors.InvalidTimestampError: "record_refused",
    kafka_errors.PolicyViolationError: "record_refused",
    kafka_errors.for_code(InvalidRecordError.errno): "record_refused",
}
_TOPIC_FAULTS = {
    kafka_errors.TopicAuthorizationFailedError: "not_authorized",
    kafka_errors.ClusterAuthorizationFailedError: "not_authorized",
    kafka_errors.InvalidTopicError: "topic_missing",
    # aiokafka fails with these when no leader was found in time.
    kafka_errors.NotLeaderForPartitionError: "topic_missing",
    kafka_errors.LeaderNotAvailableError: "kafka_unavailable",
}


ProducerState = Literal["connecting", "ready", "stalled", "failed", "closed"]


class NotConnectedError(CodedError):
    """No producer is connected. The code is for logs and readiness; senders get their delivery's code.

    Codes: `unreachable`, `handshake_failed`, `no_token` and `not_authorized`.
    """

    retriable = True


@dataclass(frozen=True, slots=True)
class Patience:
    """Waits of the producer, in seconds."""

    tick_s: float = 0.25  # between two checks
    # Between two metadata requests while a topic does not exist yet, or nothing else is sent.
    ask_s: float = 1.0
    # Without any response for this long, new deliveries are refused at once; just over the response deadline.
    stalled_s: float = 5.0
    # Without any response for this long, the producer is replaced; more than the 11 s that losing a leader may take.
    silent_s: float = 20.0
    stuck_s: float = 120.0  # the same for one partition while others respond
    retry_first_s: float = 0.25  # before the second attempt to connect; then doubled
    retry_max_s: float = 5.0  # maximum between two attempts
    close_s: float = 10.0  # maximum for closing at the end of `run`


class KafkaProducer:
    """The producer of the bridge; it exists from the start and becomes ready once connected."""

    def __init__(
        self,
        *,
        connection: KafkaConnection,
        topics: Sequence[str],
        partitions: int | None,
        metrics: IngressMetrics,
        patience: Patience = Patience(),
        now: Callable[[], float] = time.time,
    ) -> None:
        """Check that `topics` have `partitions` (None: any number); other topics may be written, too."""
        self._connection = connection
        self._topics = topics
        self._partitions = partitions
        self._metrics = metrics
        self._patience = patience
        self._now = now
        self._generation: Generation | None = None
        self._retired: Generation | None = None  # writes not ended yet, or not begun
        self._attempts = 0  # failed attempts to connect since the last success
        self._generations = 0
        self._work: asyncio.Task[None] | None = None
        self._closed = False
        self._counts: dict[str, int | None] = {}
        for topic in topics:
            metrics.produce_duration.labels(topic)  # exists before the first write, so that `rate` sees it
            metrics.produce.labels(topic, "acknowledged")
            metrics.partition_count_mismatch.labels(topic).set(0)
        self.code = ""
        self._enter("connecting")

    @property
    def ready(self) -> bool:
        """True if a write may succeed now."""
        return self.state == "ready"

    @property
    def quiet(self) -> bool:
        """True if no broker has responded for too long, even if nothing waits to be written."""
        generation = self._generation
        return generation is not None and generation.quiet_s(asyncio.get_running_loop().time()) > generation.patient_s

    @property
    def untried(self) -> bool:
        """True until the first attempt to connect has ended."""
        return self.state == "connecting" and not self.code

    @property
    def wrong_counts(self) -> dict[str, int | None]:
        """Topics with another partition count than expected; None for a missing topic."""
        return {topic: seen for topic, seen in self._counts.items() if not self._expects(seen)}

    def _expects(self, seen: int | None) -> bool:
        return seen is not None and self._partitions in {None, seen}

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions of a topic; None while unknown."""
        return None if self._generation is None else self._generation.partitions(topic)

    async def run(self, stop: asyncio.Event) -> None:
        """Keep connected until `stop` is set or `close` is called; after that nothing is sent."""
        self._work = asyncio.create_task(self._keep_connected())
        try:
            await first_of({self._work}, stop)
        finally:
            await self.close(self._patience.close_s)
        if not self._work.cancelled():
            self._work.result()

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Write the first `records` that fit one batch; return how many all in-sync replicas have.

        The call has its own timeout.

        Raises:
            RecordRefusedError: One of the records is at fault.
            NotDurableError: Not written, or the outcome is unknown.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        generation = self._generation
        if generation is None:
            raise NotDurableError("kafka_unavailable")
        try:
            written = await generation.write(topic, partition, records)
        except NotDurableError as exc:
            self._metrics.produce.labels(topic, exc.code).inc(len(records))
            raise
        self._metrics.produce_duration.labels(topic).observe(loop.time() - began)
        self._metrics.produce.labels(topic, "acknowledged").inc(written)
        return written

    async def close(self, timeout_s: float) -> None:
        """Finish writes in flight within `timeout_s`, then close every connection, also during an outage."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._generation is not None:
                await self._generation.settle(max(0.0, timeout_s - 2 * END_S))
            if self._work is not None:
                self._work.cancel()
                await asyncio.wait({self._work})
        finally:
            await self._retire(settle_s=0.0)
            self._enter("closed")

    async def _keep_connected(self) -> None:
        """Replace each failed producer, after any exception."""
        while True:
            try:
                await self._connect_and_watch()
            except (Exception, asyncio.CancelledError) as exc:
                if is_cancelled():
                    raise
                # aiokafka raises undocumented exceptions: `TypeError` for bytes that are not a response,
                # `CancelledError` for a connection that was closed meanwhile.
                log.error("worker.failed", reason="producer", where=trail(exc))
                self._enter("failed", "unexpected")

    async def _connect_and_watch(self) -> None:
        """End the last generation, connect the next, and watch it until it must be replaced."""
        await self._retire(settle_s=SETTLE_S)
        if self._attempts:
            patience = self._patience
            await asyncio.sleep(backoff_s(self._attempts, first_s=patience.retry_first_s, max_s=patience.retry_max_s))
        self._attempts += 1
        if await self._connect():
            self._attempts = 0
            reason = await self._watch()
            self._enter("connecting", reason)
            log.warning("worker.producer_replaced", code=reason, generation=self._generations)

    async def _connect(self) -> bool:
        try:
            await self._open()
        except (ConfigError, NotConnectedError) as exc:
            if exc.code != self.code:
                log.warning("worker.producer_unavailable", code=exc.code, address=self._connection.bootstrap_servers)
            self._enter("connecting" if exc.code == "unreachable" else "failed", exc.code)
            return False
        self._generations += 1
        self._metrics.producer_generation.set(self._generations)
        self._enter("ready")
        return True

    async def _open(self) -> None:
        options = await self._connection.reach()
        if not options["bootstrap_servers"]:
            raise NotConnectedError("unreachable")
        self._retired = Generation(options, client=self._connection.producer, now=self._now)
        await self._retired.start()
        self._generation, self._retired = self._retired, None

    async def _watch(self) -> str:
        """Wait until the generation must be replaced; return why."""
        generation, patience = self._generation, self._patience
        if generation is None:
            return "ended"
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            self._check_topics(generation)
            is_missing = any(generation.partitions(topic) is None for topic in self._topics)
            is_quiet = generation.quiet_s(loop.time()) > patience.ask_s
            if (is_missing or is_quiet) and loop.time() - looked_at > patience.ask_s:
                looked_at = loop.time()
                generation.refresh_metadata()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience.tick_s):
                    await generation.broken.wait()
            now = loop.time()
            oldest, silent = generation.oldest_s(now), generation.silent_s(now)
            self._metrics.oldest_unacked.set(oldest)
            if generation.broken.is_set() or generation.dead:
                return "broken"
            if silent > patience.silent_s or oldest > patience.stuck_s:
                return "no_answer"
            self._enter("stalled" if silent > patience.stalled_s else "ready")

    def _check_topics(self, generation: "Generation") -> None:
        """Log a wrong partition count; the expected one stays in use, so that keys keep their partition."""
        for topic in self._topics:
            seen = generation.partitions(topic)
            if seen == self._counts.get(topic, self._partitions):
                continue
            self._counts[topic] = seen
            self._metrics.partition_count_mismatch.labels(topic).set(not self._expects(seen))
            if not self._expects(seen):
                log.error("worker.partition_count", topic=topic, seen=seen, expected=self._partitions)

    async def _retire(self, *, settle_s: float) -> None:
        """End the current generation, also one that did not start or whose end was interrupted."""
        self._retired, self._generation = self._generation or self._retired, None
        if self._retired is not None:
            try:
                await self._retired.settle(settle_s)
            finally:
                await self._retired.end()
            self._retired = None
        self._metrics.oldest_unacked.set(0)

    def _enter(self, state: ProducerState, code: str = "") -> None:
        if (getattr(self, "state", None), self.code) == (state, code):
            return
        self.state: ProducerState = state
        self.code = code
        for each in get_args(ProducerState):
            self._metrics.producer_state.labels(each).set(each == state)


class Generation:
    """One aiokafka producer from its start to its end."""

    def __init__(
        self, options: dict[str, Any], *, client: Callable[..., Any], now: Callable[[], float] = time.time
    ) -> None:
        """`client` is built with `options`, for the connection; `now` is as in `KafkaProducer`."""
        self._options = options
        self.broken = asyncio.Event()  # set if it must be replaced
        self._now = now
        self._client = client(
            **options,
            client_id="drx-bridge",
            acks="all",
            enable_idempotence=True,
            linger_ms=0,  # records are batched while a request is in flight
            max_batch_size=BATCH_MAX_BYTES,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
        self._requests = _track_requests(self._client._sender)  # noqa: SLF001 - there is no public way to end them
        self._accumulator = self._client._message_accumulator  # noqa: SLF001 - shows whether a batch was sent twice
        self._metadata = self._client.client.cluster
        self._writes: dict[asyncio.Future[Any], float] = {}
        self._answered_at = 0.0  # loop time of the last response to a write
        self._heard_at = 0.0  # loop time of the last response to a request for metadata
        self._ended = False
        self._missing: dict[str, float] = {}

    async def start(self) -> None:
        """Connect and get a producer id; `NotConnectedError` has the reason."""
        try:
            async with asyncio.timeout(START_S):
                await self._client.start()
                # The bootstrap response contains no topics; a client with an empty list of topics requests all it may
                # see.
                await self._client.client.force_metadata_update()
                self._heard_at = asyncio.get_running_loop().time()
        except kafka_errors.ClusterAuthorizationFailedError as exc:
            raise NotConnectedError("not_authorized") from exc
        except CLIENT_FAILURES as exc:
            raise NotConnectedError(refusal(self._options).code) from exc

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """As `KafkaProducer.write`."""
        try:
            return await self._write(topic, partition, records)
        except NotDurableError:
            raise
        except (Exception, asyncio.CancelledError) as exc:
            if is_cancelled():
                raise
            # An undocumented exception of aiokafka: the state of the batch is unknown.
            self.broken.set()
            log.error("worker.write_failed", topic=topic, partition=partition, where=trail(exc))
            raise NotDurableError("outcome_unknown") from exc

    async def _write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        tp = TopicPartition(topic, partition)
        await self._find(topic, partition)
        await self._until_led(tp)
        builder = self._client.create_batch()
        # Brokers refuse a timestamp more than an hour ahead (`message.timestamp.after.max.ms`), so one from a wrong
        # clock would block its partition until that time.
        now_ms = int(self._now() * 1000)
        for record in records:
            timestamp_ms = min(record.timestamp_ms, now_ms)
            fits = builder.append(timestamp=timestamp_ms, key=record.key, value=record.value, headers=record.headers)
            if fits is None:
                break
        if self._ended or self.dead:
            self.broken.set()
            raise NotDurableError("kafka_unavailable")
        # The core of `send_batch` if the topic is known and nothing of the partition waits; saves 5 µs.
        batch = self._accumulator._append_batch(builder, tp)  # noqa: SLF001 - as above
        loop = asyncio.get_running_loop()
        self._writes[batch.future] = loop.time()
        try:
            await batch.future
        except kafka_errors.KafkaError as exc:
            raise self._failure(exc, tp, batch, builder.size()) from exc
        finally:
            del self._writes[batch.future]
        self._answered_at = loop.time()
        return int(builder.record_count())

    def partitions(self, topic: str) -> int | None:
        """Return the number of partitions of a topic; None while the topic is unknown."""
        known = self._metadata.partitions_for_topic(topic)
        return None if known is None else len(known)

    def refresh_metadata(self) -> None:
        """Renew the metadata in the background."""
        self._client.client.force_metadata_update().add_done_callback(self._heard)

    def _heard(self, renewed: asyncio.Future[bool]) -> None:
        if not renewed.cancelled() and renewed.result():
            self._heard_at = renewed.get_loop().time()

    def quiet_s(self, now: float) -> float:
        """Return the seconds since the last response of any broker."""
        return now - max(self._answered_at, self._heard_at)

    @property
    def patient_s(self) -> float:
        """Return the `quiet_s` up to which only one of several brokers may hang: after its timeout another is asked."""
        return QUIET_S + (REQUEST_TIMEOUT_MS / 1000 if len(self._metadata.brokers()) > 1 else 0)

    def oldest_s(self, now: float) -> float:
        """Return the age in seconds of the oldest unanswered write."""
        return now - min(self._writes.values()) if self._writes else 0.0

    def silent_s(self, now: float) -> float:
        """Return the seconds that writes have waited without any response."""
        return min(self.oldest_s(now), now - self._answered_at)

    @property
    def dead(self) -> bool:
        """True if its sender or metadata task has ended."""
        tasks = (self._client._sender.sender_task, self._client.client._sync_task)  # noqa: SLF001 - no public way
        return any(task is None or task.done() for task in tasks)

    async def settle(self, timeout_s: float) -> None:
        """Wait for the writes in flight."""
        if self._writes:
            await asyncio.wait(self._writes, timeout=timeout_s)

    async def end(self) -> None:
        """Ensure that nothing is sent any more; the outcome of unanswered writes is unknown."""
        self._ended = True
        for future in self._writes:
            if not future.done():
                future.set_exception(NotDurableError("outcome_unknown"))
        self._client._closed = True  # noqa: SLF001 - otherwise its finalizer warns that `stop()` was not called
        await end_client(self._client.client, [*self._requests, self._client._sender.sender_task])  # noqa: SLF001

    async def _find(self, topic: str, partition: int) -> None:
        """Check that the topic exists: aiokafka would wait for it, and may create it with wrong settings."""
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

    async def _until_led(self, tp: Any) -> None:
        """Wait for a partition's leader; with a waiting batch, aiokafka would request metadata 900 times a second."""
        looks = LEADER_LOOKS
        while self._metadata.leader_for_partition(tp) in {None, -1}:
            if not (looks and await self._refresh()):
                raise NotDurableError("kafka_unavailable")
            looks -= 1
            await asyncio.sleep(LEADER_LOOK_S)

    async def _refresh(self) -> bool:
        try:
            async with asyncio.timeout(METADATA_S):
                return bool(await self._client.client.force_metadata_update())
        except TimeoutError:
            return False

    def _failure(self, exc: Exception, tp: Any, batch: Any, size: int) -> NotDurableError:
        """Translate the exception of a batch of `size` bytes."""
        fault = _RECORD_FAULTS.get(type(exc)) or _TOPIC_FAULTS.get(type(exc))
        if fault is None or batch.retry_count > 1:
            # The outcome is unknown, and the sequence numbers of the partition now have a gap.
            self.broken.set()
            return NotDurableError("outcome_unknown")
        # Sent once and refused: reset its unused sequence numbers, or the next batch would be out of order.
        self._client._txn_manager.increment_sequence_number(tp, -batch.record_count)  # noqa: SLF001
        if type(exc) in _RECORD_FAULTS:
            # A record's time is never later than our clock, so the clock is wrong.
            return RecordRefusedError(fault, for_good=type(exc) is not kafka_errors.InvalidTimestampError, size=size)
        return NotDurableError(fault)


def _track_requests(sender: Any) -> set[asyncio.Task[Any]]:
    """Return the live set of tasks in which `sender` has a request in flight."""
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
    """Reliably end aiokafka's inner client and the `tasks` that use it: its own `close()` may hang."""
    ending = [task for task in (*tasks, client._sync_task) if task is not None]  # noqa: SLF001
    for task in ending:
        task.cancel()
    try:
        if ending:
            ended, _ = await asyncio.wait(ending, timeout=END_S)
            for task in ended:
                if not task.cancelled():
                    task.exception()  # retrieved, otherwise the loop logs it
    finally:
        closed = [_abort(connection) for connection in client._conns.values()]  # noqa: SLF001
    if closed:
        await asyncio.wait(closed, timeout=END_S)


def _abort(connection: Any) -> asyncio.Future[None]:
    """Abort the connection: a normal close would first send buffered data."""
    writer = connection._writer  # noqa: SLF001
    try:
        closed: asyncio.Future[None] = connection.close()
    finally:
        if writer is not None:
            writer.transport.abort()
    return closed
