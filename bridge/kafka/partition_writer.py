"""Write accepted records to Kafka, or to the spool while Kafka is unavailable, in order within each partition.

Each partition has a writer, whose task moves one batch at a time. A writer is in one of three modes:

- `direct`: records wait in memory and are written to Kafka.
- `spooling`: new records are appended to the spool, after those it holds. The task writes records still in memory, then
  drains the spool, oldest record first.
- `finishing`: a drain has at most `BATCH_MAX` records left. New records wait in memory until the spool is empty and the
  writer is direct again; otherwise a drain would never end under steady load.

A direct writer begins to spool when a write fails, a delivery has waited `WriterLimits.spool_after_s`, or the spool has
records of an earlier process. It also begins when a record arrives while Kafka is unavailable or the ids in the topics
have not been read. Records in memory are appended to the spool, the batch in flight first, since its outcome is
unknown. If Kafka acknowledges that batch after all, the drain finds its ids in the topic and skips it.

A record is durable once all in-sync replicas have it (`committed`) or the spool has synced it (`spooled`). A delivery
is acknowledged when all of its records are durable, or fails at its deadline.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client import Counter

from bridge.errors import NotDurableError, RecordRefusedError
from bridge.event import Durable, Settled
from bridge.kafka.accepted import Accepted, from_entry
from bridge.kafka.known_ids_reader import KnownIdsReader
from bridge.kafka.producer import KafkaProducer
from bridge.kafka.record import Record
from bridge.known.known_ids import KnownIds
from bridge.runtime.backoff import backoff_s
from bridge.runtime.failpoints import hit
from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import log, trail
from bridge.spool.disk import FULL
from bridge.spool.segment import Entry
from bridge.spool.store import NoSpool, Spool

# Bytes of headers, key and our own objects per record, besides its value.
OVERHEAD_BYTES = 1024
# Records of one write. With 500, a drain of twelve partitions needed 20 MiB more and was not faster.
BATCH_MAX = 250
# Bytes of one read from the spool: twice a producer batch.
PEEK_MAX_BYTES = 1024 * 1024
# Seconds: about as long as an append to the spool takes.
APPEND_S = 0.01
# Seconds between checks whether Kafka is back, and between attempts of a failing drain, doubling up to the maximum.
CHECK_S = 0.1
RETRY_FIRST_S = 0.25
RETRY_MAX_S = 5.0
# Seconds: twice as long as the alert `SpoolStuck` waits, so that the topic can be repaired first.
SET_ASIDE_AFTER_S = 600.0
# Seconds to pause after a bug: long enough not to flood the log, short compared with senders' retry intervals.
FAULT_PAUSE_S = 1.0
# Seconds by which deadlines may be late, so that all deliveries share one timer.
SWEEP_S = 0.1
# Seconds reserved at shutdown to spool unwritten records and close the producer.
RESCUE_S = 3.0
PRODUCER_CLOSE_S = 2.0
# Seconds for tasks to end after the producer has closed; then they are cancelled.
END_S = 0.5
# Errors of Kafka about a record or its topic, which last until the topic or its permissions change.
_REFUSALS = {"record_too_large", "record_refused", "topic_missing", "not_authorized"}

Mode = Literal["direct", "spooling", "finishing"]


@dataclass(frozen=True, slots=True)
class WriterLimits:
    """Time and memory limits."""

    deadline_s: float = 4.0  # from acceptance to the response
    spool_after_s: float = 2.0  # from acceptance until a delivery is spooled, unless Kafka has acknowledged it
    set_aside_after_s: float = SET_ASIDE_AFTER_S  # from the first refusal of a single record until it is set aside
    records_max: int = 10_000  # records in memory; a single delivery may exceed it
    bytes_max: int = 128 * 1024 * 1024  # bytes of records in memory


class Acknowledgement:
    """Acknowledges a delivery when all of its records are durable."""

    __slots__ = ("_left", "_spooled", "deadline_at", "future", "spool_at", "writers")

    def __init__(
        self, future: asyncio.Future[Durable], writers: "list[PartitionWriter]", spool_at: float, deadline_at: float
    ) -> None:
        """Expect one record in each of `writers`."""
        self.future = future  # result: where its events became durable, or `NotDurableError`
        self.writers = writers  # the writers of its records
        self.spool_at = spool_at  # loop time after which it is spooled
        self.deadline_at = deadline_at  # loop time at which the sender gets 503
        self._left = len(writers)
        self._spooled = False

    def count(self, durable: Durable) -> None:
        """Note that one more record is durable; the delivery is committed only if all of its records are."""
        self._spooled |= durable == "spooled"
        self._left -= 1
        if not self._left and not self.future.done():
            self.future.set_result("spooled" if self._spooled else "committed")

    def fail(self, code: str) -> None:
        """Fail the delivery, since one of its records will not become durable."""
        if not self.future.done():
            self.future.set_exception(NotDurableError(code))


class Pending:
    """An accepted record in memory."""

    __slots__ = ("accepted", "acknowledgement", "in_flight", "size", "state")

    def __init__(self, accepted: Accepted, acknowledgement: Acknowledgement) -> None:
        self.accepted = accepted
        self.size = OVERHEAD_BYTES + len(accepted.record.value or b"")  # approximate memory, in bytes
        self.acknowledgement = acknowledgement
        self.state: Literal["open", "durable", "failed"] = "open"  # `open` until durable or failed
        self.in_flight = False  # handed to Kafka, which has not responded yet

    @property
    def is_answered(self) -> bool:
        """True if its delivery has its response; if the record is still open, the sender was asked to retry."""
        return self.acknowledgement.future.done()


@dataclass(kw_only=True, eq=False, repr=False)
class PartitionWriters:
    """The partition writers of a process, and their shared memory limit, deadlines and shutdown."""

    producer: KafkaProducer
    spool: Spool | NoSpool  # keeps records that cannot be written in time
    known_ids: KnownIds  # receives the final state of each event
    late_acks: Counter  # counts acknowledgements that arrive after the sender got another response
    limits: WriterLimits
    known_ids_reader: KnownIdsReader | None = None  # reads the records of other replicas, if there are any
    records: int = 0  # records in memory: waiting, in flight, or being appended to the spool
    bytes: int = 0  # approximate bytes of these records
    drained: int = 0  # records drained to Kafka, or found there already
    # Set when writers must not start anything new; a write in flight is still settled.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _logged_drained: int = 0
    _writers: "dict[tuple[str, int], PartitionWriter]" = field(default_factory=dict)
    # Acknowledgements by deadline, since all have the same time limit; `_sweep` removes those that have ended.
    _unanswered: deque[Acknowledgement] = field(default_factory=deque)
    _sweeper: asyncio.TimerHandle | None = None
    _closing: bool = False

    @property
    def blocked(self) -> int:
        """Number of partitions whose head record Kafka refuses."""
        return sum(bool(writer.blocked) for writer in self._writers.values())

    @property
    def spooling(self) -> int:
        """Number of partitions that are not in direct mode."""
        return sum(writer.mode != "direct" for writer in self._writers.values())

    def log_drained(self) -> None:
        """Log that no partition is spooling any more, if something was drained."""
        if self.drained > self._logged_drained and not self.spooling:
            log.info("worker.spool_drained", records=self.drained - self._logged_drained)
            self._logged_drained = self.drained

    def check_open(self) -> None:
        """Raise `NotDurableError` if nothing can be accepted now."""
        if self._closing:
            raise NotDurableError("shutting_down")
        if self.spool.code and not self.producer.ready:
            raise NotDurableError("kafka_unavailable")

    def enqueue(self, accepted: Sequence[Accepted]) -> asyncio.Future[Durable]:
        """Accept the records of one delivery, all or none; the future ends when all are durable.

        Raises:
            NotDurableError: Immediately or by the future; a record already handed to Kafka may still appear.
        """
        if not accepted:
            raise ValueError(accepted)  # a 2xx response without a durable record would lose the delivery
        self.check_open()
        writers = [self._writer(record.topic, record.partition) for record, _, _ in accepted]
        loop = asyncio.get_running_loop()
        now, limits = loop.time(), self.limits
        takes_direct = [writer.takes_direct(now) for writer in writers]
        acknowledgement = Acknowledgement(
            loop.create_future(), writers, now + limits.spool_after_s, now + limits.deadline_s
        )
        pending = [Pending(each, acknowledgement) for each in accepted]
        size = pending[0].size if len(pending) == 1 else sum(each.size for each in pending)
        # A delivery larger than the whole limit is accepted if nothing else is in memory; otherwise it never could be.
        if self.records and (self.records + len(pending) > limits.records_max or self.bytes + size > limits.bytes_max):
            raise NotDurableError("queue_full")
        self.records += len(pending)
        self.bytes += size
        self._unanswered.append(acknowledgement)
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop)
        for writer, each, direct in zip(writers, pending, takes_direct, strict=True):
            writer.add(each, direct=direct)
        return acknowledgement.future

    def recovered(self, entry: Entry) -> None:
        """Take over a spool entry of an earlier process.

        Raises:
            UnreadableEntryError: Not an entry that this version can read; nothing was taken over.
        """
        record, identity, _ = from_entry(entry)
        self.known_ids.settled(identity, "spooled")
        self._writer(record.topic, record.partition).start_drain()

    def passed_over(self) -> None:
        """Forget the ids of spooled records: one may belong to the lost record, whose retry must be accepted as new."""
        self.known_ids.forget_spooled()

    async def close(self, timeout_s: float) -> None:
        """Stop accepting, and spool what Kafka does not acknowledge in time; takes about `timeout_s` at most."""
        self._closing = True
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        waiting = [each.future for each in self._unanswered if not each.future.done()]
        if waiting and self.producer.ready:
            await asyncio.wait(waiting, timeout=max(0.0, timeout_s - RESCUE_S - PRODUCER_CLOSE_S))
        self.stopping.set()
        for writer in self._writers.values():
            writer.spool_memory()
        if appends := [append for writer in self._writers.values() for append in writer.appends]:
            await asyncio.wait(appends, timeout=max(0.0, ends_at - PRODUCER_CLOSE_S - loop.time()))
        for acknowledgement in self._unanswered:
            acknowledgement.fail("shutting_down")
        await self.producer.close(max(0.0, ends_at - loop.time()))
        await self._end_tasks()
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _end_tasks(self) -> None:
        """Wait for the tasks, which end once the producer is closed; cancel tasks that wait for a hanging disk."""
        tasks = [writer.task for writer in self._writers.values() if writer.task is not None]
        if tasks:
            _, hanging = await asyncio.wait(tasks, timeout=END_S)
            for task in hanging:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _writer(self, topic: str, partition: int) -> "PartitionWriter":
        writer = self._writers.get((topic, partition))
        if writer is None:
            writer = self._writers[topic, partition] = PartitionWriter(self, topic, partition)
            if self.known_ids_reader is not None:
                self.known_ids_reader.follow(topic)
        return writer

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fail deliveries whose deadline has passed, and spool deliveries that Kafka did not acknowledge in time."""
        # First, so that the timer survives any exception below.
        self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop)
        now = loop.time()
        while self._unanswered and (self._unanswered[0].future.done() or self._unanswered[0].deadline_at <= now):
            self._unanswered.popleft().fail("deadline")
        for acknowledgement in self._unanswered:
            if acknowledgement.spool_at > now:
                break
            if not acknowledgement.future.done():
                for writer in acknowledgement.writers:
                    writer.spool_memory()
        if not self._unanswered:
            self._sweeper.cancel()
            self._sweeper = None


class PartitionWriter:
    """Writes the records of one partition; see the module docstring."""

    def __init__(self, shared: PartitionWriters, topic: str, partition: int) -> None:
        self._shared = shared
        self._producer, self._spool, self._known_ids = shared.producer, shared.spool, shared.known_ids
        self._topic, self._partition = self._tp = topic, partition
        self.mode: Mode = "direct"
        self.blocked = ""  # code of Kafka's refusal of the head of the spool, or empty
        self.task: asyncio.Task[None] | None = None  # runs while there are records to write or drain
        self._waiting: deque[Pending] = deque()  # handed neither to Kafka nor to the spool
        self._in_flight: list[Pending] = []  # handed to Kafka, from memory
        self._writing_since: float | None = None  # loop time
        self.appends: dict[asyncio.Task[None], list[Pending]] = {}  # in progress, unless abandoned by `_leave_spool`
        self._one_by_one_left = 0  # number of next records to write one by one, to find the one that Kafka refuses
        self._failures = 0  # consecutive failures of the drain
        self._blocked_at = 0.0  # loop time at which `blocked` was set
        self._caught_up = False  # records of other replicas from before this drain have been read

    def takes_direct(self, now: float) -> bool:
        """Return whether the next record is written from memory (True) or spooled; `now` is loop time.

        Raises:
            NotDurableError: Neither is possible.
        """
        if self.mode == "finishing":
            return True
        code = self._spool.code
        # Until the topics have been read, it may be a repeat; the drain then skips it.
        may_repeat = not self._known_ids.finished and not code
        if self.mode == "direct" and self._producer.ready and not may_repeat and not self._is_stuck(now):
            return True
        if not code:
            return False
        raise NotDurableError(_spool_fault(code) if self.mode == "spooling" else "kafka_unavailable")

    def _is_stuck(self, now: float) -> bool:
        since = self._writing_since
        if since is None:
            return False
        limits = self._shared.limits
        return now - since > (limits.deadline_s if self._spool.code else limits.spool_after_s)

    def add(self, pending: Pending, *, direct: bool) -> None:
        """Add a record; `direct` is the result of `takes_direct`."""
        if direct:
            self._waiting.append(pending)
            self._start()
        else:
            if self.mode == "direct":
                self._switch_to_spool()
            self._append([pending])

    def _start(self) -> None:
        if self.task is None and not self._shared.stopping.is_set():
            self.task = asyncio.get_running_loop().create_task(self._run())
            self.task.add_done_callback(self._ended)

    async def _run(self) -> None:
        """Move one batch after another, until nothing is left."""
        self._failures = 0
        while not self._shared.stopping.is_set():
            if self.mode == "finishing" or (self.mode == "spooling" and not self._waiting):
                self._drop_answered()
                await self._drain()
            elif batch := self._take(self._batch_max()):
                await self._write(batch)
            elif self.mode == "direct":
                return

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Continue if there is more to do; after a bug only after a pause, since it may recur at once."""
        fault = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self._shared.stopping.is_set() or task.cancelling():
            self.task = None
        elif fault is None:
            self._resume()
        else:
            self._log_bug("partition_writer", fault)
            self._fail_in_flight()
            self.blocked = "" if self.mode == "direct" else "unexpected"
            asyncio.get_running_loop().call_later(FAULT_PAUSE_S, self._resume)

    def _resume(self) -> None:
        self.task = None
        if self.mode != "direct" or self._waiting:
            self._start()

    def _fail_in_flight(self) -> None:
        """Fail the batch in flight after a bug, unless it is being spooled: its outcome is unknown."""
        in_flight, self._in_flight = self._in_flight, []
        for pending in in_flight:
            pending.in_flight = False
            if pending not in self._appending():
                self._fail(pending, "unexpected")

    def _appending(self) -> list[Pending]:
        return [pending for records in self.appends.values() for pending in records]

    def _batch_max(self) -> int:
        if not self._one_by_one_left:
            return BATCH_MAX
        self._one_by_one_left -= 1
        return 1

    def _take(self, most: int) -> list[Pending]:
        """Take the next waiting records, except records whose senders were asked to retry."""
        batch: list[Pending] = []
        while self._waiting and len(batch) < most:
            pending = self._waiting.popleft()
            if pending.is_answered:
                self._fail(pending, "deadline")
            else:
                batch.append(pending)
        return batch

    def _drop_answered(self) -> None:
        """Fail records that waited too long for the end of a drain; a stalled drain would fill the memory."""
        while self._waiting and self._waiting[0].is_answered:
            self._fail(self._waiting.popleft(), "deadline")

    async def _write(self, batch: list[Pending]) -> None:
        """Write a batch from memory; if the writer switches to the spool meanwhile, it spools this batch first."""
        self._in_flight = batch
        for pending in batch:
            pending.in_flight = True
        written, refusal = await self._put([pending.accepted.record for pending in batch])
        hit("after_produce")
        for pending in batch:
            pending.in_flight = False
        self._in_flight = []
        for pending in batch[:written]:
            self._commit(pending)
        appending = set(self._appending())
        left = [each for each in batch[written:] if each.state == "open" and each not in appending]
        if not left:
            return
        if refusal is None:
            self._waiting.extendleft(reversed(left))
        elif isinstance(refusal, RecordRefusedError) and len(batch) > 1:
            self._one_by_one_left = len(batch)
            self._waiting.extendleft(reversed(left))
        elif self.mode != "direct" or not self._switch_to_spool(left):
            # They cannot be spooled: the spool accepts nothing, or may have records that were accepted later.
            for pending in left:
                self._fail(pending, refusal.code)

    async def _put(self, records: Sequence[Record]) -> tuple[int, NotDurableError | None]:
        """Write once; return how many records were written, and the error if none was."""
        self._writing_since = asyncio.get_running_loop().time()
        try:
            return await self._producer.write(self._topic, self._partition, records), None
        except NotDurableError as exc:
            return 0, exc
        finally:
            self._writing_since = None

    def spool_memory(self) -> None:
        """Switch to the spool if any record is only in memory."""
        if self.mode != "spooling" and (self._in_flight or self._waiting):
            self._switch_to_spool()

    def _switch_to_spool(self, front: Sequence[Pending] = ()) -> bool:
        """Spool the batch in flight, `front`, and waiting records, in this order; return whether the spool accepts."""
        if self._spool.code:
            return False
        self.mode, self._caught_up = "spooling", False
        pending = [each for each in self._in_flight if each.state == "open"]
        pending += front
        pending += self._take(len(self._waiting))
        if pending:
            self._append(pending)
        self._start()
        return True

    def _append(self, records: list[Pending]) -> None:
        """Append records to the spool, after all earlier appends, since tasks start in order."""
        entries = [pending.accepted.to_entry() for pending in records]
        append = asyncio.get_running_loop().create_task(self._spool.append(entries))
        self.appends[append] = records
        append.add_done_callback(self._appended)

    def _appended(self, append: asyncio.Task[None]) -> None:
        records = self.appends.pop(append, None)  # None if abandoned by `_leave_spool`
        fault = asyncio.CancelledError() if append.cancelled() else append.exception()
        for pending in records or ():
            if fault is None:
                self._spooled(pending)
            elif not pending.in_flight:  # the batch in flight may still be acknowledged
                self._fail(pending, _spool_fault(getattr(fault, "code", "")))
        if fault is None and records is None:
            # It was abandoned, so its senders were asked to retry; if they have, the drain skips its records as known.
            self.start_drain()
        elif fault is not None and not (self.appends or self._spool.depth(self._tp)):
            # The spool is empty. The batch in flight may be appended later, if it is not acknowledged.
            self._go_direct()

    def _leave_spool(self) -> bool:
        """Switch to direct mode if no sender waits for an append; return whether it did. The spool is empty.

        Appends without a waiting sender are abandoned: a disk may hang for longer than the outage of Kafka.
        """
        appending = self._appending()
        if any(each.state == "open" and not each.is_answered for each in appending):
            return False
        for pending in appending:
            self._fail(pending, "deadline")
        self.appends.clear()
        self._go_direct()
        return True

    def _go_direct(self) -> None:
        self.mode, self.blocked = "direct", ""

    def start_drain(self) -> None:
        """Drain records found in the spool, after the batch in flight; spool waiting records behind them."""
        if self.mode == "direct":
            self.mode = "spooling"
            if not self._spool.code and (waiting := self._take(len(self._waiting))):
                self._append(waiting)
        self._caught_up = False
        self._start()

    async def _drain(self) -> None:
        """Write the head of the spool to Kafka, or pause briefly."""
        if not self._spool.depth(self._tp):
            if self._leave_spool():
                self._shared.log_drained()
            else:
                await pause(self._shared.stopping, APPEND_S)
            return
        if not (self._producer.ready and self._known_ids.finished):
            self._switch_to_spool()
            await pause(self._shared.stopping, CHECK_S)
            return
        if not self._caught_up:
            # Another replica may have written the same events meanwhile.
            self._caught_up = True
            if self._shared.known_ids_reader is not None:
                await self._shared.known_ids_reader.catch_up(self._topic, self._partition)
            return
        entries = await self._spool.peek(self._tp, most=self._batch_max(), most_bytes=PEEK_MAX_BYTES)
        if not entries:  # the disk is unreadable now
            await pause(self._shared.stopping, CHECK_S)
        elif batch := await self._skip_known([from_entry(each) for each in entries]):
            written, refusal = await self._put([each.record for each in batch])
            self._note_drained(batch[:written])
            if refusal is not None:
                await self._drain_refused(refusal, len(batch))
                return
        self._failures = 0
        self.blocked = ""

    async def _skip_known(self, batch: list[Accepted]) -> list[Accepted]:
        """Acknowledge the first records if the topic has them; return the following ones that it lacks.

        If the topic has the id with another body, the record was accepted before that was known. It is set aside; if
        that fails, it is written, and consumers park it.
        """
        # True: the topic has the id with this body; False: with another body; None: it lacks the id.
        found = [self._known_ids.in_topic(each.identity) for each in batch]
        head = next((n for n, each in enumerate(found) if not each), len(batch))
        self._spool.acknowledge(self._tp, head)
        self._shared.drained += head
        if head < len(batch) and found[head] is False and await self._spool.set_aside(self._tp, code="id_conflict"):
            return []
        # After damage a batch may have an id twice: the next pass then knows the first of the two.
        first: dict[tuple[str, str], int] = {}
        for n, each in enumerate(batch):
            is_second = first.setdefault((each.identity.source, each.identity.id), n) < n
            if n > head and (found[n] is not None or is_second):
                return batch[head:n]
        return batch[head:]

    def _note_drained(self, batch: list[Accepted]) -> None:
        hit("drained_before_drop")
        self._spool.acknowledge(self._tp, len(batch))
        self._shared.drained += len(batch)
        for each in batch:
            self._known_ids.settled(each.identity, "committed")
        if self._spool.depth(self._tp) <= BATCH_MAX:
            self.mode = "finishing"

    async def _drain_refused(self, refusal: NotDurableError, count: int) -> None:
        """Isolate the refused record, or wait, longer each time."""
        self._switch_to_spool()
        if isinstance(refusal, RecordRefusedError):
            if count > 1:
                self._one_by_one_left, self._failures = count, 0
                return
            if await self._set_aside(refusal):
                self.blocked, self._failures = "", 0
                return
        code = refusal.code if refusal.code in _REFUSALS else ""
        if code and code != self.blocked:
            topic, partition = self._tp
            log.error("worker.drain_blocked", topic=topic, partition=partition, code=code, bytes=refusal.size)
            self._blocked_at = asyncio.get_running_loop().time()
        self.blocked = code
        self._failures += 1
        wait_s = backoff_s(self._failures, first_s=RETRY_FIRST_S, max_s=RETRY_MAX_S)
        await pause(self._shared.stopping, wait_s)

    async def _set_aside(self, refusal: RecordRefusedError) -> bool:
        """Set the head of the spool aside if Kafka has refused it, alone, for long enough; return whether it did."""
        if not (refusal.for_good and self.blocked == refusal.code):
            return False
        blocked_s = asyncio.get_running_loop().time() - self._blocked_at
        is_due = blocked_s >= self._shared.limits.set_aside_after_s
        return is_due and await self._spool.set_aside(self._tp, code=refusal.code)

    def _commit(self, pending: Pending) -> None:
        """Note that all in-sync replicas have a record, possibly after its delivery got another response."""
        if pending.state != "open" or pending.is_answered:
            self._shared.late_acks.inc()
        if pending.state == "open":
            pending.state = "durable"
            pending.acknowledgement.count("committed")
            self._free_memory(pending)
        self._report(pending, "committed")

    def _spooled(self, pending: Pending) -> None:
        if pending.state == "open":
            pending.state = "durable"
            pending.acknowledgement.count("spooled")
            self._report(pending, "spooled")
            self._free_memory(pending)

    def _fail(self, pending: Pending, code: str) -> None:
        """Fail a record that is not durable."""
        if pending.state != "open":
            return
        pending.state = "failed"
        pending.acknowledgement.fail(code)
        self._free_memory(pending)
        self._report(pending, "failed")

    def _report(self, pending: Pending, state: Settled) -> None:
        try:
            self._known_ids.settled(pending.accepted.identity, state)
        except Exception as exc:  # noqa: BLE001 - a bug there must not affect other records of a batch
            self._log_bug("known_ids", exc)

    def _log_bug(self, reason: str, exc: BaseException) -> None:
        log.error("worker.failed", reason=reason, topic=self._topic, partition=self._partition, where=trail(exc))

    def _free_memory(self, pending: Pending) -> None:
        self._shared.records -= 1
        self._shared.bytes -= pending.size


def _spool_fault(code: str) -> str:
    return "spool_full" if code == FULL else "spool_unavailable"
