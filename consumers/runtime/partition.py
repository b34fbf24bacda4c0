"""What this process holds of its partitions: which records are settled, and where those that are not wait.

A record enters by `take`. It is in the `window` until everything below it is settled, and until it is handled it waits
in the `backlog` or in the queue of its key. The window's `next_offset` is what is committed. A partition that is
claimed again is another `Partition`: what was in hand of the old one can change nothing any more (`gone`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from bridge.kafka.transport import ConsumedRecord, Place
from bridge.runtime.logging import log
from consumers.api import WINDOW_RECORDS, Batches, Lanes, Outgoing
from consumers.runtime.ledger import Claim, Ledger
from consumers.runtime.metrics import Tally
from consumers.runtime.parking import ParkingFullError, StoppedError
from consumers.runtime.sorting import Asking, Sorted

# What is settled above a record that is tried again is kept as an offset and an id, some 4 MB of a partition at most:
# the other keys go on for this many windows of records.
SETTLED_WINDOWS = 16
# Our own objects around key, value and headers, and the headers of a record of the contract, as `sys.getsizeof` counts
# them.
OVERHEAD_BYTES = 2_048
# Without a settled or released record before a partition counts as waiting: a record that fails is tried five times,
# with pauses of 30 s at most, and ten times at a sink in a brown-out.
WAITS_S = 300.0


class Advance(NamedTuple):
    """How far a partition is settled.

    Attributes:
        next_offset: Everything below is settled, and the record just below, if there is one, was seen.
        last_event_id: Event id of the record just below, or None when it is not known or it has none.
        above: Offsets at or above `next_offset` among those that were asked about.
    """

    next_offset: int
    last_event_id: str | None
    above: tuple[int, ...]


class Window:
    """The records of one partition from `next_offset` on, in order; a log has gaps, so no offset is taken for granted.

    A record leaves when everything below it has left: until then its offset and event id are kept, not its bytes.

    Attributes:
        next_offset: Everything below is settled.
        last_event_id: Event id of the record just below `next_offset`.
        size: Bytes of the records that are not settled.
    """

    def __init__(self, next_offset: int, *, last_event_id: str | None = None, settled: Collection[int] = ()) -> None:
        """Start at `next_offset`; `settled` are offsets above it that were settled by an owner before."""
        self.next_offset = next_offset
        self.last_event_id = last_event_id
        self.size = 0
        self._settled_before = {offset for offset in settled if offset >= next_offset}
        self._entries: deque[tuple[int, str]] = deque()  # offsets and event ids
        self._open: dict[int, tuple[int, float]] = {}  # by offset, sizes and when they were taken in
        self._end = next_offset

    @property
    def count(self) -> int:
        """Records taken in that have not left, settled or not."""
        return len(self._entries)

    @property
    def unsettled(self) -> int:
        """Records that are not settled."""
        return len(self._open)

    def add(self, offset: int, *, size: int, event_id: str, now: float) -> bool:
        """Take a record in; False when there is nothing to do: taken in before, or settled by an owner before."""
        if offset < self._end:
            return False
        self._end = offset + 1
        self._entries.append((offset, event_id))
        if offset in self._settled_before:
            self._settled_before.discard(offset)
            self._advance()
            return False
        self._open[offset] = size, now
        self.size += size
        return True

    def preview(self, offsets: Collection[int]) -> Advance:
        """Return how far it will be settled once `offsets` are; `above` are those of them that this does not reach."""
        next_offset, last_event_id = self.next_offset, self.last_event_id
        for offset, event_id in self._reach(offsets):
            next_offset, last_event_id = offset + 1, event_id or None
        return Advance(next_offset, last_event_id, tuple(sorted(each for each in offsets if each >= next_offset)))

    def settle(self, offsets: Collection[int]) -> None:
        """Settle records; those that are no more in the window are ignored."""
        for offset in offsets:
            taken = self._open.pop(offset, None)
            if taken is not None:
                self.size -= taken[0]
        self._advance()

    def oldest_age_s(self, now: float) -> float:
        """Age of the oldest record that is not settled; 0 when there is none."""
        for _, taken_at in self._open.values():
            return now - taken_at
        return 0.0

    def _reach(self, offsets: Collection[int]) -> Iterator[tuple[int, str]]:
        waiting = self._open
        for entry in self._entries:
            if entry[0] in waiting and entry[0] not in offsets:
                return
            yield entry

    def _advance(self) -> None:
        entries, waiting = self._entries, self._open
        while entries and entries[0][0] not in waiting:
            offset, event_id = entries.popleft()
            self.next_offset, self.last_event_id = offset + 1, event_id or None


class KeyQueue:
    """The records of one key that are handled one by one, oldest first; one of them is in hand at a time.

    Attributes:
        key: In text form.
        attempt: Attempts made at the first record, but for those whose failure says nothing of it.
        failures: Those that failed, whatever it says.
        charged: Those that it is parked for, once they are too many.
        passes: Calls that had passed when the last attempt failed of which that may be said; None before there was one.
        calling: The handler was called in the last attempt and has not returned: what failed may be the record's fault.
        asking: What the registry says about its schema, if that is not known.
        releasing: True while the parked records of the key go first.
        state: `ready` to be taken by a worker, `busy` in its hands, `waiting` for another attempt, or `idle`.
    """

    __slots__ = (
        "asking",
        "attempt",
        "calling",
        "charged",
        "failures",
        "key",
        "partition",
        "passes",
        "records",
        "releasing",
        "state",
        "timer",
    )

    def __init__(self, partition: Partition, key: str) -> None:
        self.partition = partition
        self.key = key
        self.records: deque[ConsumedRecord] = deque()
        self.releasing = False
        self.state: Literal["idle", "ready", "busy", "waiting"] = "idle"
        self.timer: asyncio.TimerHandle | None = None
        self.begin_record()

    def begin_record(self) -> None:
        """Know nothing of the first record: another was settled."""
        self.attempt = self.failures = self.charged = 0
        self.passes: int | None = None
        self.calling = False
        self.asking: Asking | None = None

    @property
    def name(self) -> tuple[Place, str]:
        """What the circuit knows the key by."""
        return self.partition.place, self.key


class Handled(NamedTuple):
    """The first record of a queue, whose handler has returned outside of a transaction: it is still to be settled."""

    queue: KeyQueue
    event: Sorted
    applied: bool
    outgoing: Sequence[Outgoing]


class Partition:
    """A partition as it was claimed.

    Attributes:
        parked: Keys set aside, in text form.
        backlog: Records that no batch and no key queue has taken yet.
        queues: Keys handled one by one; what follows of them waits there.
        releases: Keys, in text form, whose release was requested.
        calls: Handlers that run.
        handled: Records whose handler has returned, for the next round of settling; `settling` while a round is on.
        direct: Records go to their key queues as they come; the backlog is empty.
        written: `next_offset` as it is in the ledger; None while it has none.
        updated_at: `updated_at` of the ledger, as this claim has found or committed it last.
        active: Batches and records in hand; `idle` is set while there are none.
        activity: Counts whatever is tried, settled or released.
        moved_at: When a record was last settled or released, or the first taken into an empty window.
        stopped: Why nothing of it is settled any more; empty while things go on.
        full: The limit that stopped it, if it was one of the parked.
        gone: Nothing of it counts any more.
    """

    def __init__(self, place: Place, claim: Claim) -> None:
        self.place = place
        self.claim = claim
        self.epoch = claim.epoch
        self.parked = set(claim.parked)
        self.window = Window(claim.next_offset or 0)
        self.opened = False
        self.backlog: deque[ConsumedRecord] = deque()
        self.queues: dict[str, KeyQueue] = {}
        self.releases: set[str] = set()
        self.calls: set[asyncio.Task[Any]] = set()
        self.handled: list[Handled] = []
        self.settling = False
        self.driver: asyncio.Task[None] | None = None
        self.wake = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.active = 0
        self.activity = 0
        self.moved_at = 0.0
        self.draining = self.gone = self.direct = False
        self.stopped = ""
        self.full: ParkingFullError | None = None
        self.written: int | None = None
        self.updated_at = claim.updated_at

    @property
    def may_start(self) -> bool:
        """Whether records may still be handled: it is not drained, stopped or gone."""
        return not (self.draining or self.gone or self.stopped)

    def open(self, offset: int) -> None:
        """Expect records from `offset` on."""
        known = offset == self.claim.next_offset
        self.window = Window(
            offset, last_event_id=self.claim.last_event_id if known else None, settled=self.claim.settled
        )
        # Where reading starts is written also if no record comes: a backup must know it.
        self.written = self.claim.next_offset
        self.opened = True

    def take(self, record: ConsumedRecord, *, now: float) -> bool:
        """Take a record into the window; False when it was settled before."""
        if not self.window.unsettled:
            self.moved_at = now
        size = OVERHEAD_BYTES + len(record.value or b"") + len(record.key or b"")
        event_id = b""
        for name, content in record.headers:  # of another producer they may be of any size
            size += len(content)
            if name == "ce_id":
                event_id = content
        return self.window.add(record.offset, size=size, event_id=event_id.decode("utf-8", "replace"), now=now)

    def begin(self) -> None:
        """Note that a batch or a record is in hand."""
        self.active += 1
        self.activity += 1
        self.idle.clear()

    def end(self) -> None:
        """Undo one `begin`."""
        self.active -= 1
        self.activity += 1
        if not self.active:
            self.idle.set()

    def settle(self, offsets: Collection[int], *, advance: Advance | None = None) -> None:
        """Settle records in the window; `advance` is what was written to the ledger with them."""
        if self.gone:
            return
        self.window.settle(offsets)
        if offsets:
            self.moved()
        if advance is not None:
            self.written = max(self.written or 0, advance.next_offset)

    def moved(self) -> None:
        """Note that a record was settled or released."""
        self.activity += 1
        self.moved_at = asyncio.get_running_loop().time()

    def waits(self, now: float) -> bool:
        """Whether records are in hand, and none was settled or released for `WAITS_S` although nothing stops them."""
        in_hand = self.window.unsettled or any(queue.releasing for queue in self.queues.values())
        return bool(in_hand) and not self.stopped and now - self.moved_at > WAITS_S

    async def woken(self) -> None:
        """Wait until something has changed: a record came or was settled, or no more may be handled."""
        self.wake.clear()
        await self.wake.wait()

    def stop(self, why: StoppedError) -> None:
        """Settle nothing any more, and keep no record: all are read again once the partition is adopted anew."""
        self.stopped = why.code
        self.full = why if isinstance(why, ParkingFullError) else None
        self.backlog.clear()
        for queue in self.queues.values():
            queue.records.clear()

    def close(self) -> None:
        """Let go of everything: nothing of it counts any more."""
        self.gone = True
        for call in self.calls:
            call.cancel()
        for queue in self.queues.values():
            if queue.timer is not None:
                queue.timer.cancel()
        self.backlog.clear()
        self.wake.set()
        if self.driver is not None:
            self.driver.cancel()


class Partitions:
    """The partitions of this member: claimed, drained, forgotten."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        group: str,
        consumer: str,
        tally: Tally,
        mode: Lanes | Batches,
    ) -> None:
        """`consumer` is the name by which `drx-consumer` knows it, for hints; `mode` says how much is taken in."""
        self._window_records = mode.window_records if isinstance(mode, Batches) else WINDOW_RECORDS
        self._window_bytes = mode.window_bytes
        self._ledger = ledger
        self._group = group
        self._consumer = consumer
        self._tally = tally
        self._held: dict[Place, Partition] = {}
        # To be adopted again: claimed by another, or resumed by ourselves after a stop.
        self._fenced: set[Place] = set()
        self._none_left = asyncio.Event()
        self._none_left.set()

    def __getitem__(self, place: Place) -> Partition:
        return self._held[place]

    def find(self, place: Place) -> Partition | None:
        """Return what is held of a place."""
        return self._held.get(place)

    def all(self) -> list[Partition]:
        """Return every partition."""
        return list(self._held.values())

    def opened(self) -> list[Partition]:
        """Return the partitions whose records are expected."""
        return [partition for partition in self._held.values() if partition.opened and not partition.gone]

    def room(self, place: Place) -> bool:
        """Whether more of a place may be taken in now."""
        partition = self._held.get(place)
        if partition is None or partition.window.unsettled >= self._window_records:
            return False
        return partition.window.count < SETTLED_WINDOWS * self._window_records and not self.full

    @property
    def full(self) -> bool:
        """Whether all partitions together hold as many bytes as a process takes in."""
        return sum(each.window.size for each in self._held.values() if not each.stopped) >= self._window_bytes

    def next_offset(self, place: Place) -> int | None:
        """Return the offset below which everything of a place is settled; None before its records are expected."""
        partition = self._held.get(place)
        return partition.window.next_offset if partition is not None and partition.opened else None

    async def adopt(self, place: Place) -> Partition:
        """Claim a partition; what was held of it counts for nothing.

        Raises:
            TransientError: The database is away, or the owner before us is in the middle of a transaction.
        """
        claim = await self._ledger.claim(place)
        self.forget((place,))
        partition = self._held[place] = Partition(place, claim)
        self._none_left.clear()
        return partition

    def forget(self, places: Collection[Place]) -> None:
        """Drop all that is known of these."""
        for place in places:
            self._fenced.discard(place)
            partition = self._held.pop(place, None)
            if partition is not None:
                partition.close()
        if not self._held:
            self._none_left.set()

    def close(self) -> None:
        """Settle nothing any more; how far each is settled stays known until it is forgotten."""
        for partition in self._held.values():
            partition.close()

    async def forgotten(self, stop: asyncio.Event) -> None:
        """Wait, after `stop`, until the reader has drained, committed and forgotten all."""
        await stop.wait()
        await self._none_left.wait()

    def is_fenced(self, place: Place) -> bool:
        """Whether the place is to be adopted again: it was claimed since, or we resume it ourselves (`renew`)."""
        return place in self._fenced

    def fence(self, partition: Partition) -> None:
        """Let go of a partition that another claimed, or that stands elsewhere than we thought: it is adopted again."""
        self._tally.fenced()
        if partition.gone:
            return
        place = partition.place
        log.warning("worker.fenced", group=self._group, topic=place.topic, partition=place.partition)
        self.renew(partition)

    def renew(self, partition: Partition) -> None:
        """Let go of a partition, which is to be adopted again."""
        partition.close()
        if self._held.get(partition.place) is partition:
            self._fenced.add(partition.place)

    def stop(self, partition: Partition, why: StoppedError) -> None:
        """Settle nothing of a partition any more: an operator must look."""
        if partition.stopped:
            return
        partition.stop(why)
        place = {"topic": partition.place.topic, "partition": partition.place.partition}
        hint = why.command.format(name=self._consumer, topic=partition.place.topic)
        log.error("worker.partition_stopped", group=self._group, code=why.code, hint=hint, **place)

    def wake(self) -> None:
        """Let the driver of each look again."""
        for partition in self._held.values():
            partition.wake.set()

    async def drain(self, places: Iterable[Place], *, timeout_s: float) -> list[Partition]:
        """Start no new record of these; return those whose records in hand are settled, and give up the others."""
        partitions = [self._held[place] for place in places if place in self._held]
        for partition in partitions:
            partition.draining = True
            partition.wake.set()
        try:
            async with asyncio.timeout(timeout_s):
                for partition in partitions:
                    if not partition.gone:
                        await partition.idle.wait()
        except TimeoutError:
            for partition in partitions:
                if partition.active and not partition.gone:
                    place = {"topic": partition.place.topic, "partition": partition.place.partition}
                    log.warning("worker.given_up", group=self._group, **place)
                    partition.close()
        return [partition for partition in partitions if not partition.gone]
