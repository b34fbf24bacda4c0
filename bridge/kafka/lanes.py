"""Every partition's way to Kafka, with the spool beside it: what comes is written, or durable here, or refused."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import structlog
from prometheus_client import Counter

from bridge.errors import NotDurableError
from bridge.event import Durable
from bridge.kafka.lane import Accepted, Append, Item, Lane, Ticket
from bridge.kafka.lane_accounts import Accounts
from bridge.kafka.lane_driver import LaneDriver
from bridge.kafka.ports import Buffer, CatchUp, Memory, Producer, knows_all
from bridge.kafka.spooled import identity_of, pack, unpack
from bridge.runtime.logging import trail
from bridge.spool.segment import Entry

log = structlog.get_logger()

# Late by at most this much, deadlines cost one timer for all deliveries instead of one for each.
SWEEP_S = 0.1
# Kept from the time for a stop when records do not leave: for the disk, and for the producer to end in order.
RESCUE_S = 3.0
PRODUCER_CLOSE_S = 2.0
# What is cancelled needs a few turns of the loop.
END_S = 0.5
_SPOOL_FULL = "spool_full"
_SPOOL_UNAVAILABLE = "spool_unavailable"


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how much.

    Attributes:
        deadline_s: From acceptance to the answer.
        spool_after_s: From acceptance until Kafka has had its chance.
        records_max: Records in memory.
        bytes_max: Bytes of them.
    """

    deadline_s: float = 4.0
    spool_after_s: float = 2.0
    records_max: int = 10_000
    bytes_max: int = 128 * 1024 * 1024


class Lanes:
    """The way from accepted records to Kafka or the disk; nothing is ever reordered within a partition."""

    def __init__(
        self,
        *,
        producer: Producer,
        spool: Buffer,
        memory: Memory,
        late_acks: Counter,
        limits: Limits,
        catch_up: CatchUp = knows_all,
    ) -> None:
        """Write by `producer`, and keep in `spool` what cannot be written in time."""
        self._producer = producer
        self._spool = spool
        self._memory = memory
        self._limits = limits
        self._accounts = Accounts(tell=memory.settled, late_acks=late_acks)
        self._driver = LaneDriver(
            producer=producer,
            spool=spool,
            memory=memory,
            accounts=self._accounts,
            trip=self._trip,
            catch_up=catch_up,
        )
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._tickets: deque[Ticket] = deque()  # not expired; all have the same time, so the oldest is the first
        self._appends: set[asyncio.Future[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closing = False

    @property
    def blocked(self) -> int:
        """How many partitions have something that Kafka refuses at their head."""
        return sum(bool(lane.blocked) for lane in self._lanes.values())

    @property
    def spooling(self) -> int:
        """How many partitions are not written directly."""
        return sum(lane.spooling for lane in self._lanes.values())

    @property
    def topics(self) -> set[str]:
        """Topics that something was accepted for, in this life or an earlier one."""
        return {topic for topic, _ in self._lanes}

    def check_open(self) -> None:
        """Raise `NotDurableError` when nothing can be taken now."""
        if self._closing:
            raise NotDurableError("shutting_down")
        if self._spool.code and not self._producer.ready:
            raise NotDurableError("kafka_unavailable")

    def recovered(self, entry: Entry) -> None:
        """Be told of an entry that a spool held when it was opened.

        Raises:
            UnreadableEntryError: It is none that this version can read; as if it had not been told of.
        """
        self._memory.settled(identity_of(unpack(entry.payload, *entry.lane).headers), "spooled")
        lane = self._lane(*entry.lane)
        lane.spooling = True
        self._driver.start(lane)

    def enqueue(self, accepted: Sequence[Accepted]) -> asyncio.Future[Durable]:
        """Take the records of one delivery, all or none; the future ends when every one is durable.

        Raises:
            NotDurableError: At once, or from the future; a record already handed to Kafka may still appear.
        """
        if not accepted:
            raise ValueError(accepted)  # an answer 2xx with nothing durable behind it would be a lost delivery
        self.check_open()
        lanes = [self._lane(record.topic, record.partition) for record, _, _ in accepted]
        direct = [self._is_direct(lane) for lane in lanes]
        loop = asyncio.get_running_loop()
        now, limits = loop.time(), self._limits
        ticket = Ticket(loop.create_future(), lanes, now + limits.spool_after_s, now + limits.deadline_s)
        items = [Item(each, ticket) for each in accepted]
        held = self._accounts
        if held.records + len(items) > limits.records_max or held.bytes + sum(i.size for i in items) > limits.bytes_max:
            raise NotDurableError("queue_full")
        held.take(items)
        self._tickets.append(ticket)
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop)
        for lane, item, straight in zip(lanes, items, direct, strict=True):
            if straight:
                lane.waiting.append(item)
                self._driver.start(lane)
            else:
                if not lane.spooling:
                    self._trip(lane, ())
                self._append(lane, [item])
        return ticket.future

    async def close(self, timeout_s: float) -> None:
        """Take nothing more; what Kafka does not take in time goes to the disk; all of it within `timeout_s`."""
        self._closing = True
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        waiting = [ticket.future for ticket in self._tickets if not ticket.future.done()]
        if waiting and self._producer.ready:
            await asyncio.wait(waiting, timeout=max(0.0, timeout_s - RESCUE_S - PRODUCER_CLOSE_S))
        self._driver.end()
        for lane in self._lanes.values():
            if lane.trips and (lane.flight or lane.waiting):
                self._trip(lane, ())
        if self._appends:
            await asyncio.wait(self._appends, timeout=max(0.0, ends_at - PRODUCER_CLOSE_S - loop.time()))
        for ticket in self._tickets:
            ticket.fail("shutting_down")
        await self._producer.close(max(0.0, ends_at - loop.time()))
        await self._end_tasks()
        if self._sweeper is not None:
            self._sweeper.cancel()

    async def _end_tasks(self) -> None:
        """A closed producer refuses at once, so these end by themselves, unless they wait for a disk that hangs."""
        tasks = [lane.task for lane in self._lanes.values() if lane.task is not None]
        if tasks:
            _, hanging = await asyncio.wait(tasks, timeout=END_S)
            for task in hanging:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _lane(self, topic: str, partition: int) -> Lane:
        lane = self._lanes.get((topic, partition))
        if lane is None:
            lane = self._lanes[topic, partition] = Lane(topic, partition)
        return lane

    def _is_direct(self, lane: Lane) -> bool:
        """Return whether the next record of a lane goes to Kafka rather than to the disk.

        Raises:
            NotDurableError: It can go to neither.
        """
        if lane.closing:
            return True
        # Until the topics have been read it may be a repeat: the drain will know, and leave it out.
        may_repeat = not self._memory.finished and not self._spool.code
        if not lane.spooling and self._producer.ready and not may_repeat and not self._stuck(lane):
            return True
        if not self._spool.code:
            return False
        if lane.spooling:
            raise NotDurableError(_SPOOL_FULL if self._spool.code == "full" else _SPOOL_UNAVAILABLE)
        raise NotDurableError("kafka_unavailable")

    def _stuck(self, lane: Lane) -> bool:
        patience_s = self._limits.deadline_s if self._spool.code else self._limits.spool_after_s
        since = lane.writing_since
        return since is not None and asyncio.get_running_loop().time() - since > patience_s

    def _trip(self, lane: Lane, front: Sequence[Item]) -> bool:
        """Have a lane spool, `front` and then what waits, if the spool takes it; what is in flight goes before."""
        if self._spool.code:
            return False
        lane.spooling, lane.closing, lane.caught_up = True, False, False
        items = [item for item in lane.flight if item.state == "open" and not item.on_disk]
        items += front
        for item in lane.waiting:
            if item.unwanted:
                self._accounts.fail(item, "deadline")
            else:
                items.append(item)
        lane.waiting.clear()
        if items:
            lane.rescue = self._append(lane, items)
        self._driver.start(lane)
        return True

    def _append(self, lane: Lane, items: list[Item]) -> asyncio.Future[None]:
        """Have items durable on disk, after all that went there before."""
        append = Append(items, self._call_spool(lane, items))
        lane.appends.append(append)
        self._appends.add(append.future)
        append.future.add_done_callback(lambda _: self._appended(lane, append))
        return append.future

    def _call_spool(self, lane: Lane, items: list[Item]) -> asyncio.Future[None]:
        """Call it now, for the order of the calls is the order on disk; whatever is raised, the future has."""
        try:
            entries = [
                Entry(ordinal, record.timestamp_ms, lane.place, pack(record))
                for record, _, ordinal in (item.accepted for item in items)
            ]
            return asyncio.ensure_future(self._spool.append(entries))
        except Exception as exc:  # noqa: BLE001 - a bug must not leave anybody waiting
            log.error("worker.failed", topic=lane.topic, partition=lane.partition, where=trail(exc))
            failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            failed.set_exception(exc)
            return failed

    def _appended(self, lane: Lane, append: Append) -> None:
        self._appends.discard(append.future)
        fault = asyncio.CancelledError() if append.future.cancelled() else append.future.exception()
        for item in append.items:
            if fault is None:
                self._accounts.spool(item)
            elif not item.flying:  # what is in flight may still be acknowledged
                self._accounts.fail(item, _SPOOL_FULL if getattr(fault, "code", "") == "full" else _SPOOL_UNAVAILABLE)
        if append not in lane.appends:
            if fault is None:
                # Everybody has been answered, so of what was sent again this is a repeat, which the drain leaves out.
                lane.spooling, lane.caught_up = True, False
                self._driver.start(lane)
            return
        lane.appends.remove(append)
        if fault is not None and not lane.appends and not self._spool.depth(lane.place):
            # What is in flight may be offered to it again.
            lane.go_direct()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the disk take over where Kafka had its chance, and tell those whose time is up."""
        # Set first, so that whatever is raised below ends no sweeping.
        self._sweeper = loop.call_later(SWEEP_S, self._sweep, loop)
        now = loop.time()
        while self._tickets and (self._tickets[0].future.done() or self._tickets[0].expires_at <= now):
            self._tickets.popleft().fail("deadline")
        for ticket in self._tickets:
            if ticket.spools_at > now:
                break
            for lane in () if ticket.future.done() else ticket.lanes:
                if lane.trips:
                    self._trip(lane, ())
        if not self._tickets:
            self._sweeper.cancel()
            self._sweeper = None
