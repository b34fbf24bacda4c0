"""The partitions of this process: the claim, the window of records, and the queues of unsettled ones.

A record enters the `window` and stays until all records below it are settled. Until it is handled it waits in the
`backlog` or in the queue of its key. A partition that is claimed again is a new `Partition`; work in progress on the
old one is discarded (`gone`).
"""

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.runtime.logging import log
from consumers.api import WINDOW_RECORDS, Batches, Lanes
from consumers.runtime.circuit import Waiter
from consumers.runtime.ledger import Claim, Ledger
from consumers.runtime.metrics import Tally
from consumers.runtime.parking import StoppedError
from consumers.runtime.retry_policy import Failure, Tries
from consumers.runtime.rounds import Rounds
from consumers.runtime.window import Window

# While a record is retried, settled records above it are kept as offset and id, at most 4 MB per partition. Other keys
# continue for this many windows of records.
SETTLED_WINDOWS = 16
# Seconds without a settled or released record after which a partition counts as waiting. A failing record is tried five
# times, with pauses of at most 30 s, and ten times while the sink partly fails.
WAITS_S = 300.0


@dataclass(slots=True, eq=False, repr=False)
class KeyQueue:
    """The records of one key that are handled one by one, oldest first, by the workers of `key_queues`."""

    partition: "Partition"
    key: str  # in text form
    ready: "asyncio.Queue[KeyQueue]"  # of all queues, for the workers
    records: deque[ConsumedRecord] = field(default_factory=deque)
    releasing: bool = False  # true while the parked records of the key are handled first
    parked: ConsumedRecord | None = None  # the parked record being released
    first: ConsumedRecord = field(init=False)  # the record of the current attempt
    tries: Tries = field(default_factory=Tries)  # the attempts at `first`
    unreadable: Failure | None = None  # why `first` cannot be read, if the registry does not know its schema
    has_lane: bool = False  # an attempt is in progress and holds a lane
    held: int = 0  # its number among those that wait for the circuit
    task: asyncio.Task[None] | None = None  # the worker's task during an attempt

    @property
    def fresh(self) -> bool:
        """Whether its first record has not failed yet."""
        return not self.tries.failures

    @property
    def may_start(self) -> bool:
        """Whether records of its partition may be handled."""
        return self.partition.may_start

    def resume(self) -> None:
        """Make it ready if it waits for the circuit."""
        if self.held:
            self.held = 0
            self.ready.put_nowait(self)

    def end_first(self) -> None:
        """Remove the first record, to continue with the next."""
        if self.parked is None and self.records:  # a stopped partition has none
            self.records.popleft()
        self.parked = self.unreadable = None
        self.tries = Tries()

    def cancel(self) -> None:
        """Cancel the attempt in progress, unless called by its own task; the partition is void."""
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    def was_cancelled(self, task: asyncio.Task[None]) -> bool:
        """Return whether a cancelled task may continue with other queues, since only this one was cancelled."""
        return self.partition.gone and not task.uncancel()


class Partition:
    """A claimed partition."""

    def __init__(self, tp: TopicPartition, claim: Claim) -> None:
        self.tp = tp
        self.claim = claim  # changed only by `settling`
        self.window = Window(claim.next_offset or 0)  # replaced when reading starts (`open`)
        self.opened = False
        self.backlog: deque[ConsumedRecord] = deque()  # records not yet in a batch or key queue
        self.queues: dict[str, KeyQueue] = {}  # by key in text form; later records of these keys wait there
        self.releases: set[str] = set()  # keys, in text form, with a requested release that has not begun
        self.driver: asyncio.Task[None] | None = None  # settles the backlog in batches
        self.rounds: Rounds[Any, None] | None = None  # settles what lanes have handled
        self.wake = asyncio.Event()  # wakes the driver
        self.held = 0  # number of the driver among those that wait for the circuit
        self.draining = self.gone = False  # `draining`: no more records may be handled; `gone`: it is void
        self.stopped: StoppedError | None = None  # why settling was stopped; None while it runs
        self._in_progress = 0
        self._idle = asyncio.Event()
        self._progress_at = 0.0

    @property
    def may_start(self) -> bool:
        """Whether records may be handled: it is not draining, stopped or gone."""
        return not (self.draining or self.gone or self.stopped)

    @property
    def fresh(self) -> bool:
        """Whether its batches may be tried first; records that failed are in key queues."""
        return True

    def resume(self) -> None:
        """Wake the driver if it waits for the circuit."""
        self.held = 0
        self.wake.set()

    @property
    def busy(self) -> bool:
        """Whether a batch or a record is in progress."""
        return self._in_progress > 0

    def open(self, offset: int) -> None:
        """Expect records from `offset` on."""
        claim = self.claim
        last_event_id = claim.last_event_id if offset == claim.next_offset else None
        # The start is written even without records, so that backups contain it.
        self.window = Window(offset, last_event_id=last_event_id, settled=claim.settled, written=claim.next_offset)
        self.opened = True

    def take(self, record: ConsumedRecord, *, now: float) -> bool:
        """Take a record into the window; False if it was settled before."""
        if not self.window.unsettled:
            self._progress_at = now
        return self.window.take(record, now=now)

    @contextmanager
    def in_progress(self) -> Iterator[None]:
        """Mark a batch or record as in progress: a drain waits for its end."""
        self._in_progress += 1
        try:
            yield
        finally:
            self._in_progress -= 1
            if not self._in_progress:
                self._idle.set()

    async def idle(self) -> None:
        """Wait until no batch or record is in progress."""
        while self._in_progress and not self.gone:
            self._idle.clear()
            await self._idle.wait()

    def note_progress(self) -> None:
        """Note that a record was settled or released."""
        self._progress_at = asyncio.get_running_loop().time()
        self.wake.set()

    def waits(self, now: float) -> bool:
        """Return whether unsettled records have made no progress for `WAITS_S` though the partition is not stopped."""
        waiting = self.window.unsettled or any(queue.releasing for queue in self.queues.values())
        return bool(waiting) and not self.stopped and now - self._progress_at > WAITS_S

    async def woken(self) -> None:
        """Wait for a change: a record arrived or was settled, or no more may be handled."""
        self.wake.clear()
        await self.wake.wait()

    def stop(self, why: StoppedError) -> None:
        """Stop settling and drop all records: they are read again after the next claim."""
        self.stopped = why
        self.backlog.clear()
        for queue in self.queues.values():
            queue.records.clear()

    def close(self) -> None:
        """Drop everything: the partition is void, and holds no record. A second call does nothing."""
        if self.gone:
            return
        self.gone = True
        self.backlog.clear()
        self._idle.set()
        if self.driver is not None:
            self.driver.cancel()
        for queue in self.queues.values():
            queue.records.clear()
            queue.cancel()
        self.queues.clear()


class Partitions:
    """The partitions of this member: claimed, drained, forgotten."""

    def __init__(self, ledger: Ledger, *, group: str, consumer: str, tally: Tally, mode: Lanes | Batches) -> None:
        """`consumer` is its name for `drx-consumer`, used in hints; `mode` bounds the window."""
        self._window_records = mode.window_records if isinstance(mode, Batches) else WINDOW_RECORDS
        self._window_bytes = mode.window_bytes
        self._ledger = ledger
        self._group = group
        self._consumer = consumer
        self._tally = tally
        self._held: dict[TopicPartition, Partition] = {}
        # Partitions to adopt again: claimed by another process, or resumed after a stop.
        self._fenced: set[TopicPartition] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()

    def __getitem__(self, tp: TopicPartition) -> Partition:
        return self._held[tp]

    def find(self, tp: TopicPartition) -> Partition | None:
        """Return the state of a partition; None if it is not assigned."""
        return self._held.get(tp)

    def all(self) -> list[Partition]:
        """Return every partition."""
        return list(self._held.values())

    def opened(self) -> list[Partition]:
        """Return the partitions that have been opened for reading."""
        return [partition for partition in self._held.values() if partition.opened and not partition.gone]

    def waiters(self) -> Iterator[Waiter]:
        """Return all that may wait for the circuit: the keys in hand, and the drivers."""
        for partition in self._held.values():
            if partition.driver is not None:
                yield partition
            yield from partition.queues.values()

    def room(self, tp: TopicPartition) -> bool:
        """Return whether more records of a partition may be taken now."""
        partition = self._held.get(tp)
        if partition is None or partition.window.unsettled >= self._window_records:
            return False
        return partition.window.count < SETTLED_WINDOWS * self._window_records and not self.full

    @property
    def full(self) -> bool:
        """Return whether all partitions together have reached the byte limit."""
        return sum(each.window.size for each in self._held.values() if not each.stopped) >= self._window_bytes

    def next_offset(self, tp: TopicPartition) -> int | None:
        """Return the offset below which all records of a partition are settled; None before it was opened."""
        partition = self._held.get(tp)
        return partition.window.next_offset if partition is not None and partition.opened else None

    async def adopt(self, tp: TopicPartition) -> Partition:
        """Claim a partition; an earlier `Partition` of it becomes void."""
        claim = await self._ledger.claim(tp)
        self.forget((tp,))
        partition = self._held[tp] = Partition(tp, claim)
        self._none_left.clear()
        return partition

    def forget(self, tps: Collection[TopicPartition]) -> None:
        """Forget these partitions."""
        for tp in tps:
            self._fenced.discard(tp)
            partition = self._held.pop(tp, None)
            if partition is not None:
                partition.close()
        if not self._held:
            self._none_left.set()

    def close(self) -> None:
        """Stop settling; positions stay known until the partitions are forgotten."""
        for partition in self._held.values():
            partition.close()

    async def forgotten(self, stop: asyncio.Event) -> None:
        """Wait, after `stop`, until the reader has drained, committed and forgotten all partitions."""
        await stop.wait()
        await self._none_left.wait()

    def is_fenced(self, tp: TopicPartition) -> bool:
        """Return whether it must be adopted again: another process claimed it, or it is resumed (`renew`)."""
        return tp in self._fenced

    def fence(self, partition: Partition) -> None:
        """Drop a partition that another process claimed, or whose position differs; it is claimed again."""
        self._tally.fenced()
        if partition.gone:
            return
        tp = partition.tp
        log.warning("worker.fenced", group=self._group, topic=tp.topic, partition=tp.partition)
        self.renew(partition)

    def renew(self, partition: Partition) -> None:
        """Drop a partition, to be claimed again."""
        partition.close()
        self._fenced.add(partition.tp)

    def stop(self, partition: Partition, why: StoppedError) -> None:
        """Stop settling a partition until an operator acts."""
        if partition.stopped:
            return
        partition.stop(why)
        hint = why.command.format(name=self._consumer, topic=partition.tp.topic)
        log.error("worker.partition_stopped", group=self._group, code=why.code, hint=hint, **partition.tp._asdict())

    async def drain(self, tps: Iterable[TopicPartition], *, timeout_s: float) -> list[Partition]:
        """Start no new records of these; return the partitions that drained, and drop the others."""
        partitions = [self._held[tp] for tp in tps if tp in self._held]
        for partition in partitions:
            partition.draining = True
            partition.wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                for partition in partitions:
                    await partition.idle()
        except TimeoutError:
            for partition in partitions:
                if partition.busy and not partition.gone:
                    log.warning("worker.given_up", group=self._group, **partition.tp._asdict())
                    partition.close()
        return [partition for partition in partitions if not partition.gone]
