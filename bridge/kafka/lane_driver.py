"""Move one partition on: write what waits, or drain what the spool holds; one batch at a time, so always in order."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

import structlog

from bridge.errors import NotDurableError
from bridge.kafka.lane import Item, Lane
from bridge.kafka.lane_accounts import Accounts
from bridge.kafka.ports import Buffer, CatchUp, Memory, Producer, RecordRefusedError
from bridge.kafka.record import Record
from bridge.kafka.spooled import identity_of, unpack
from bridge.runtime import failpoints
from bridge.runtime.lifecycle import pause

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

    def end(self) -> None:
        """Begin nothing more; a write in flight is still settled."""
        self._ending.set()

    async def _drive(self, lane: Lane) -> None:
        attempt = 0
        try:
            while not self._ending.is_set():
                if lane.drains:
                    attempt = await self._drain(lane, attempt)
                elif batch := self._take(lane):
                    await self._write(lane, batch)
                elif not lane.spooling:
                    return
        finally:
            lane.task = None

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
        if lane.rescue is not None:
            await asyncio.wait({lane.rescue})
            lane.rescue = None
        self._spool.drop(lane.place, sum(item.on_disk for item in committed))

    async def _drain(self, lane: Lane, attempt: int) -> int:
        """Write the head of what the spool holds, or wait a little; return how often in a row it failed."""
        if not self._spool.depth(lane.place):
            if lane.appending:
                await pause(self._ending, APPEND_S)
            else:
                lane.spooling = lane.closing = False
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
