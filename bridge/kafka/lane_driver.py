"""Move one partition on: write what waits, or drain what the spool holds; one batch at a time, so always in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from bridge.errors import NotDurableError
from bridge.kafka.lane import Item, Lane
from bridge.kafka.lane_accounts import Accounts
from bridge.kafka.ports import Buffer, CatchUp, Memory, Producer, RecordRefusedError
from bridge.kafka.record import Record
from bridge.kafka.spooled import identity_of, unpack
from bridge.runtime import failpoints
from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import trail

log = structlog.get_logger()

# What a write may take from a lane; a producer's batch is full long before with records of 1 KB.
BATCH_MAX = 500
# The same of the spool, whose records come from the disk; twice a producer's batch.
PEEK_MAX_BYTES = 1024 * 1024
# About what a call of the spool takes.
APPEND_S = 0.01
# Between two looks whether Kafka is back, and between two attempts of a drain that fails, doubling up to the most.
LOOK_S = 0.1
RETRY_FIRST_S = 0.25
RETRY_MAX_S = 5.0
# After a bug: long enough to flood no log, and short beside what senders wait before they come again.
FAULT_PAUSE_S = 1.0
# What Kafka says about a record or its topic; it says so again until somebody changes something there.
_REFUSALS = {"record_too_large", "record_refused", "topic_missing", "not_authorized"}


class LaneDriver:
    """Drives lanes, each by a task of its own that ends when nothing is left."""

    def __init__(
        self,
        *,
        producer: Producer,
        spool: Buffer,
        memory: Memory,
        accounts: Accounts,
        trip: Callable[[Lane, Sequence[Item]], bool],
        catch_up: CatchUp,
    ) -> None:
        """Have `trip` spool what cannot be written; it answers whether the spool takes it."""
        self._producer = producer
        self._spool = spool
        self._memory = memory
        self._accounts = accounts
        self._trip = trip
        self._catch_up = catch_up
        self._ending = asyncio.Event()

    def start(self, lane: Lane) -> None:
        """See to it that a lane moves."""
        if lane.task is None and not self._ending.is_set():
            lane.task = asyncio.get_running_loop().create_task(self._drive(lane))
            lane.task.add_done_callback(partial(self._ended, lane))

    def end(self) -> None:
        """Begin nothing more; a write in flight is still settled."""
        self._ending.set()

    async def _drive(self, lane: Lane) -> None:
        attempt = 0
        while not self._ending.is_set():
            if lane.drains:
                attempt = await self._drain(lane, attempt)
            elif batch := self._take(lane):
                await self._write(lane, batch)
            elif not lane.spooling:
                return

    def _ended(self, lane: Lane, task: asyncio.Task[None]) -> None:
        """Go on where there is more to do; after a fault only when a pause is over, since it may be met again."""
        fault = asyncio.CancelledError() if task.cancelled() else task.exception()
        if self._ending.is_set() or task.cancelling():
            lane.task = None
        elif fault is None:
            self._resume(lane)
        else:
            log.error("worker.failed", topic=lane.topic, partition=lane.partition, where=trail(fault))
            self._give_back(lane)
            lane.blocked = "unexpected" if lane.spooling else ""
            asyncio.get_running_loop().call_later(FAULT_PAUSE_S, self._resume, lane)

    def _resume(self, lane: Lane) -> None:
        lane.task = None
        if lane.spooling or lane.waiting:
            self.start(lane)

    def _give_back(self, lane: Lane) -> None:
        """Settle what was in flight at a fault: nothing is known of it, and what goes to the disk is settled there."""
        appended = {item for append in lane.appends for item in append.items}
        flight, lane.flight = lane.flight, []
        lane.writing_since = None
        for item in flight:
            item.flying = False
            if item not in appended:
                self._accounts.fail(item, "unexpected")

    def _take(self, lane: Lane) -> list[Item]:
        """Take the next records that somebody still waits for."""
        batch: list[Item] = []
        most = lane.most(BATCH_MAX)
        while lane.waiting and len(batch) < most:
            item = lane.waiting.popleft()
            if item.unwanted:
                self._accounts.fail(item, "deadline")
            else:
                batch.append(item)
        return batch

    async def _write(self, lane: Lane, batch: list[Item]) -> None:
        """Write a batch directly; if meanwhile the lane came to spool, the batch is the head of what is on disk."""
        lane.flight = batch
        for item in batch:
            item.flying = True
        written, refusal = await self._put(lane, [item.accepted.record for item in batch])
        failpoints.hit(failpoints.AFTER_PRODUCE)
        for item in batch:
            item.flying = False
        lane.flight = []
        for item in batch[:written]:
            self._accounts.commit(item)
        left = batch[written:]
        if lane.spooling:
            await self._reconcile(lane, batch[:written])
            left = [item for item in left if item.state == "open"]
        if not left:
            return
        if not refusal:
            lane.waiting.extendleft(reversed(left))
        elif isinstance(refusal, RecordRefusedError) and len(batch) > 1:
            lane.singly = len(batch)
            lane.waiting.extendleft(reversed(left))
        elif lane.spooling or not self._trip(lane, left):
            # Behind what is on disk by now, others would have overtaken them.
            for item in left:
                self._accounts.fail(item, refusal.code)

    async def _reconcile(self, lane: Lane, committed: list[Item]) -> None:
        """Take what Kafka has after all from the head of the disk, once it is known what is there."""
        while lane.rescue is not None and not lane.rescue.done() and not self._leave_disk(lane):
            await asyncio.wait({lane.rescue}, timeout=LOOK_S)
        lane.rescue = None
        self._spool.drop(lane.place, sum(item.on_disk for item in committed))

    def _leave_disk(self, lane: Lane) -> bool:
        """Make a lane direct again that has nothing on disk, if nobody waits any more for what is on the way there.

        A disk may hang for longer than the outage because of which it was asked.
        """
        if self._spool.depth(lane.place) or not lane.is_abandoned:
            return False
        for append in lane.appends:
            for item in append.items:
                self._accounts.fail(item, "deadline")
        lane.appends.clear()
        lane.rescue = None
        lane.go_direct()
        return True

    async def _drain(self, lane: Lane, attempt: int) -> int:
        """Write the head of what the spool holds, or wait a little; return how often in a row it failed."""
        if not self._spool.depth(lane.place):
            if not self._leave_disk(lane):
                await pause(self._ending, APPEND_S)
            return 0
        if await self._spool.set_aside(lane.place, refused=""):
            return 0
        if not (self._producer.ready and self._memory.finished):
            if lane.closing:
                self._trip(lane, ())
            await pause(self._ending, LOOK_S)
            return attempt
        if not lane.caught_up:
            # Another replica may have written the same meanwhile.
            lane.caught_up = True
            await self._catch_up(*lane.place)
            return attempt
        entries = await self._spool.peek(lane.place, most=lane.most(BATCH_MAX), most_bytes=PEEK_MAX_BYTES)
        if not entries:  # the disk cannot be read now
            await pause(self._ending, LOOK_S)
        elif records := self._leave_known_out(lane, [unpack(each.payload, *lane.place) for each in entries]):
            written, refusal = await self._put(lane, records)
            self._drained(lane, records[:written])
            if refusal is not None:
                return await self._wait(lane, refusal, attempt, len(records))
        lane.blocked = ""
        return 0

    def _leave_known_out(self, lane: Lane, records: list[Record]) -> list[Record]:
        """Drop the records at the head that are in their topic already; return those up to the next such one."""
        known = [self._memory.committed_before(identity_of(each.headers)) for each in records]
        head = known.index(False) if False in known else len(known)
        self._spool.drop(lane.place, head)
        tail = known.index(True, head) if True in known[head:] else len(known)
        return records[head:tail]

    def _drained(self, lane: Lane, records: list[Record]) -> None:
        failpoints.hit(failpoints.DRAINED_BEFORE_DROP)
        self._spool.drop(lane.place, len(records))
        for record in records:
            self._memory.settled(identity_of(record.headers), "committed")
        # The end is in sight: what comes from now on waits for it, or under load there would never be one.
        lane.closing = lane.closing or self._spool.depth(lane.place) <= BATCH_MAX

    async def _wait(self, lane: Lane, refusal: NotDurableError, attempt: int, count: int) -> int:
        """Give up an attempt of a drain, and wait longer each time."""
        self._trip(lane, ())
        if isinstance(refusal, RecordRefusedError) and count > 1:
            lane.singly = count
            return 0
        if isinstance(refusal, RecordRefusedError) and await self._spool.set_aside(lane.place, refused=refusal.code):
            lane.blocked = ""
            return 0
        code = refusal.code if refusal.code in _REFUSALS else ""
        if code and code != lane.blocked:
            log.error("worker.drain_blocked", topic=lane.topic, partition=lane.partition, code=code)
        lane.blocked = code
        most = min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(attempt, 16))
        await pause(self._ending, random.uniform(most / 2, most))  # noqa: S311 - spreads load, guards nothing
        return attempt + 1

    async def _put(self, lane: Lane, records: list[Record]) -> tuple[int, NotDurableError | None]:
        """Write once; return how many were written, and if none was, why."""
        lane.writing_since = asyncio.get_running_loop().time()
        try:
            return await self._producer.write(lane.topic, lane.partition, records), None
        except NotDurableError as exc:
            return 0, exc
        except Exception as exc:  # noqa: BLE001 - a bug in a producer must not leave a partition without a writer
            log.error("worker.write_failed", topic=lane.topic, partition=lane.partition, code=type(exc).__name__)
            return 0, NotDurableError("unexpected")
        finally:
            lane.writing_since = None
