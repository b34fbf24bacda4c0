"""Read the headers of our own topics to recognise repeats: first their tails, then new records.

The tail covers the deduplication window and restores the known ids after a start. Records of other replicas become
known about 50 ms after their commit. Records of this process are read as well: skipping them saved no measurable CPU
time.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import InitVar, dataclass, field
from math import nan
from typing import NamedTuple

from bridge.errors import BridgeError
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.reader import SILENT_S, SLICE_RECORDS, ReadError, Tail, open_tail
from bridge.kafka.record import identity_of
from bridge.known.known_ids import KnownIds
from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import log, trail

# Seconds to pause after each slice of a tail, about as long as a slice takes: this leaves half of the event loop's time
# to deliveries.
PAUSE_S = 0.002
# Seconds to pause after a poll of less than a slice: each poll costs a fetch per broker (about 0.5 ms of CPU).
FOLLOW_PAUSE_S = 0.05
# Seconds between two checks of topics and progress.
CHECK_S = 0.25
# Seconds between two metadata requests while a partition has no leader.
METADATA_S = 5.0
# Seconds between two attempts to ask for the end of a log.
ASK_S = 0.05
# Seconds of lag beyond which the reader is not `ready`. A broken connection is noticed after 15 s, and replaced
# within seconds.
LAG_MAX_S = 30.0


@dataclass(frozen=True, slots=True)
class ReaderWaits:
    """Waits of the reader, in seconds."""

    retry_s: float = 1.0  # between two attempts to read a topic
    wait_max_s: float = 120.0  # if brokers are reachable, drains wait this long for an unreadable tail
    retry_late_s: float = 60.0  # between two attempts to read such a tail after that
    catch_up_s: float = 5.0  # a drain waits this long for the reader; a broken connection takes a second or two


class _End(NamedTuple):
    """End offset of a log as reported by a broker at `at`, in monotonic time."""

    end: int
    at: float


@dataclass(slots=True, eq=False)
class _Topic:
    """Read progress of one topic."""

    name: str
    positions: dict[int, int] = field(default_factory=dict)  # by partition, the offset of the next record
    targets: dict[int, _End] = field(default_factory=dict)  # by partition, a known end not reached yet
    # By partition, monotonic time such that all records written before it have been read.
    current_at: dict[int, float] = field(default_factory=dict)
    responses: dict[int, int] = field(default_factory=dict)  # by partition, number of the last response
    answered_at: float = 0.0  # monotonic time of the last response of any broker
    read: bool = False  # the tails of all partitions have been read
    code: str = ""  # code of the last failure; empty if none
    tail: Tail | None = None  # set while the topic is being read
    task: asyncio.Task[None] | None = None
    advanced: asyncio.Event = field(default_factory=asyncio.Event)  # set and replaced when positions advance

    def advance(self, positions: dict[int, int]) -> None:
        """Note new positions, and wake the waiters."""
        self.positions |= positions
        self.advanced.set()
        self.advanced = asyncio.Event()

    def begin(self, tail: Tail, positions: dict[int, int], now: float) -> None:
        """Reset the progress for a new client."""
        self.tail = tail
        self.targets.clear()
        self.responses.clear()
        self.answered_at = now
        self.advance(positions)

    def note_ends(self, responses: dict[int, tuple[int, int]], now: float) -> None:
        """Note the ends of the log reported by brokers."""
        for partition, (response, end) in responses.items():
            if self.responses.get(partition) != response:
                self.responses[partition], self.answered_at = response, now
                self.targets.setdefault(partition, _End(end, now))
            target = self.targets.get(partition)
            if target is not None and self.positions[partition] >= target.end:
                self.current_at[partition] = target.at
                del self.targets[partition]


@dataclass(kw_only=True, eq=False, repr=False)
class KnownIdsReader:
    """A worker that fills `known_ids` from the topics; each topic has its own task and client."""

    connection: KafkaConnection
    topics: InitVar[Collection[str]]  # topics that are written; `follow` adds more
    known_ids: KnownIds
    window_s: float  # the longest deduplication window; older records are not read
    records_max: int  # records of one topic's tail, the newest
    # Receipt (Unix seconds) of the oldest spooled delivery, if any: a crashed process may have written it already, so
    # the topics are read that far back.
    oldest_s: Callable[[], float | None] = lambda: None
    now: Callable[[], float] = time.time
    patience: ReaderWaits = ReaderWaits()
    _tail_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _reachable_since: float | None = None

    def __post_init__(self, topics: Collection[str]) -> None:
        self._topics = {name: _Topic(name) for name in topics}

    @property
    def ready(self) -> bool:
        """Whether every tail has been read and the reader is not far behind."""
        return bool(self._topics) and all(topic.read for topic in self._topics.values()) and not self.lag_s > LAG_MAX_S

    @property
    def lag_s(self) -> float:
        """Seconds since the reader was last fully caught up; NaN before the first time."""
        times = [at for topic in self._topics.values() if topic.read for at in topic.current_at.values()]
        return _now() - min(times) if times else nan

    async def run(self, stop: asyncio.Event) -> None:
        """Read until `stop` is set; broker failures are retried."""
        try:
            while True:
                self._start_tasks()
                self._update_finished()
                if not await pause(stop, CHECK_S):
                    return
        finally:
            tasks = [topic.task for topic in self._topics.values() if topic.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def follow(self, topic: str) -> None:
        """Add a topic to read."""
        self._topics.setdefault(topic, _Topic(topic))

    async def catch_up(self, topic: str, partition: int) -> None:
        """Wait for a limited time until the current content of a partition has been read; never raises."""
        known = self._topics.get(topic)
        if known is None or not known.read:
            return
        try:
            async with asyncio.timeout(self.patience.catch_up_s):
                end = await self._end_of(known, partition)
                while known.positions.get(partition, 0) < end:
                    await known.advanced.wait()
        except TimeoutError:
            log.warning("worker.follow_behind", topic=topic, partition=partition)

    @staticmethod
    async def _end_of(topic: _Topic, partition: int) -> int:
        while True:
            if topic.tail is not None:
                # Retried: a new client or another broker will respond.
                with suppress(ReadError):
                    return await topic.tail.end_of(partition)
            await asyncio.sleep(ASK_S)

    def _start_tasks(self) -> None:
        """Start a task for each topic without one; a task that aiokafka cancelled is restarted."""
        for topic in self._topics.values():
            if topic.task is None or topic.task.done():
                topic.task = asyncio.create_task(self._keep_reading(topic))

    async def _keep_reading(self, topic: _Topic) -> None:
        """Read a topic, with a new client after each failure."""
        while True:
            topic.code = await self._attempt(topic)
            topic.tail = None
            self._update_finished()
            late = self.known_ids.finished and not topic.read
            await asyncio.sleep(self.patience.retry_late_s if late else self.patience.retry_s)

    async def _attempt(self, topic: _Topic) -> str:
        """Read a topic until something fails; return the failure's code."""
        try:
            return await self._read(topic)
        except BridgeError as exc:
            return exc.code
        except Exception as exc:  # noqa: BLE001 - any client failure is retried; deliveries do not depend on this
            log.error("worker.failed", reason="known_ids_reader", topic=topic.name, where=trail(exc))
            return "unexpected"

    async def _read(self, topic: _Topic) -> str:
        since_s = self.now() - self.window_s
        oldest_s = self.oldest_s()
        if oldest_s is not None:
            since_s = min(since_s, oldest_s)
        async with AsyncExitStack() as turn:
            if not topic.read:
                await turn.enter_async_context(self._tail_turn)
            opening = open_tail(
                self.connection,
                topic.name,
                since_ms=int(since_s * 1000),
                records_max=self.records_max,
                noted=topic.positions,
                unreadable=_log_unreadable,
            )
            async with opening as tail:
                topic.begin(tail, await tail.positions(), _now())
                await self._read_tail(topic, tail)
                await turn.aclose()
                if not tail.is_whole():
                    topic.code = "no_leader"
                else:
                    topic.read, topic.code = True, ""
                    topic.current_at = dict.fromkeys(tail.ends, _now())
                self._update_finished()
                return await self._follow(topic, tail)

    async def _read_tail(self, topic: _Topic, tail: Tail) -> None:
        """Read up to the ends of the log at the opening."""
        received_at = _now()
        while any(topic.positions[partition] < end for partition, end in tail.ends.items()):
            records = await tail.poll()
            self._note(records)
            topic.advance(await tail.positions())
            if records:
                received_at = _now()
            elif _now() - received_at > SILENT_S or tail.is_stale():
                raise ReadError("no_answer", "the brokers have stopped answering")
            await asyncio.sleep(PAUSE_S)

    async def _follow(self, topic: _Topic, tail: Tail) -> str:
        """Read new records; return the reason when a new client is needed."""
        checked_at = asked_at = _now()
        while True:
            records = await tail.poll()
            self._note(records)
            if records:
                topic.advance(await tail.positions())
            if _now() - checked_at >= CHECK_S:
                checked_at = _now()
                topic.advance(await tail.positions())
                topic.note_ends(tail.heard(), checked_at)
                if tail.is_stale():
                    return "stale"
                if checked_at - topic.answered_at > SILENT_S:
                    return "no_answer"
                if not tail.is_whole() and checked_at - asked_at >= METADATA_S:
                    asked_at = checked_at
                    tail.refresh_metadata()
            if records:
                await asyncio.sleep(PAUSE_S if len(records) >= SLICE_RECORDS else FOLLOW_PAUSE_S)

    def _note(self, records: Sequence[ConsumedRecord]) -> None:
        for record in records:
            identity = identity_of(record.headers)
            if identity is not None:
                self.known_ids.recalled(identity, record.timestamp_ms / 1000, record.key or b"")

    def _update_finished(self) -> None:
        """Set `finished` when all tails have been read, or one cannot be read for `wait_max_s`."""
        unread = [topic for topic in self._topics.values() if not topic.read]
        codes = {topic.name: topic.code for topic in unread if topic.code}
        if not unread:
            self.known_ids.finished = True
        elif "unreachable" in codes.values():
            self._reachable_since = None
        elif not codes or self.known_ids.finished:
            return
        elif self._reachable_since is None:
            self._reachable_since = _now()
        elif _now() - self._reachable_since >= self.patience.wait_max_s:
            self.known_ids.finished = True
            for name, code in codes.items():
                log.warning("worker.recall_given_up", topic=name, code=code)


def _now() -> float:
    """Return the event loop's monotonic seconds."""
    return asyncio.get_running_loop().time()


def _log_unreadable(tp: TopicPartition, offset: int, after: int) -> None:
    """Log that repeats of records in an unreadable batch will count as new."""
    where = {**tp._asdict(), "offset": offset, "next_offset": after}
    log.error("worker.recall_batch_unreadable", **where)
