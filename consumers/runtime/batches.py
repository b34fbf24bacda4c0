"""Apply the records of a partition many at a time, in one transaction; the fast path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bridge.avro.codec import UNKNOWN_SCHEMA_ID
from bridge.errors import TransientError
from bridge.kafka.transport import ConsumedRecord
from bridge.runtime.failpoints import BATCH_BEFORE_OFFSET, hit
from consumers.runtime import parking
from consumers.runtime.failure import Failure
from consumers.runtime.key_lanes import KeyLanes
from consumers.runtime.ledger import Settlement
from consumers.runtime.parking import key_text
from consumers.runtime.parts import Parts
from consumers.runtime.share import Share
from consumers.runtime.sorting import Skip, Sorted

Ready = Sorted | Failure | Skip
"""What a record is."""


@dataclass(slots=True)
class Batch:
    """Records of one partition in order.

    Attributes:
        items: All of them but those that are appended.
        behind: Records of parked keys.
        sound: Every item is an event or of no use.
    """

    items: list[tuple[ConsumedRecord, Ready]] = field(default_factory=list)
    behind: list[ConsumedRecord] = field(default_factory=list)
    sound: bool = True

    def __len__(self) -> int:
        """Count records."""
        return len(self.items) + len(self.behind)

    @property
    def records(self) -> list[ConsumedRecord]:
        """All records, in order."""
        return sorted([*(record for record, _ in self.items), *self.behind], key=lambda record: record.offset)


class NotAppendedError(Exception):
    """A key is parked no more: the batch is formed anew."""


class HandlerError(Exception):
    """The handler itself said no, so one of the records is at fault; what it raised is the cause."""


class Former:
    """Forms batches out of what waits."""

    def __init__(self, parts: Parts, *, lanes: KeyLanes, records_max: int) -> None:
        """Take the shared parts; a record of a key that is handled alone goes to its lane."""
        self._parts = parts
        self._lanes = lanes
        self._records_max = records_max

    def form(self, share: Share) -> Batch:
        """Take records out of the queue."""
        batch = Batch()
        queue, sort = share.queue, self._parts.sorter.sort
        while queue and len(batch) < self._records_max:
            record = queue.popleft()
            if share.lanes or share.parked:
                key = key_text(record)
                if key in share.lanes:
                    self._lanes.put(share, record)
                    continue
                if key in share.parked:
                    batch.behind.append(record)
                    continue
            ready = sort(record)
            if isinstance(ready, Failure):
                if ready.code == UNKNOWN_SCHEMA_ID:
                    self._lend(share, batch, record)
                    continue
                batch.sound = False
            batch.items.append((record, ready))
        return batch

    def back(self, share: Share, records: Sequence[ConsumedRecord], *, alone: str | None = None) -> None:
        """Put records back to where they were taken from; those of the key `alone`, into its lane."""
        rest = []
        for record in records:
            if alone is not None and key_text(record) == alone:
                self._lanes.put(share, record)
            else:
                rest.append(record)
        share.queue.extendleft(reversed(rest))

    def _lend(self, share: Share, batch: Batch, record: ConsumedRecord) -> None:
        """Give a key to its lane while its schema is asked for, with what of it is in the batch already."""
        key = key_text(record)
        before = [each for each in batch.items if key_text(each[0]) == key]
        for each in before:
            batch.items.remove(each)
            self._lanes.put(share, each[0])
        self._lanes.put(share, record)


class FastPath:
    """One transaction for a batch in which nothing goes wrong."""

    def __init__(self, parts: Parts) -> None:
        """Take the shared parts."""
        self._parts = parts

    async def apply(self, share: Share, batch: Batch) -> None:
        """Settle a batch, or nothing of it.

        Raises:
            NotAppendedError: A key is parked no more.
            HandlerError: The handler refused the batch, or an id came with another body.
            TransientError: The database is away, or could not do it this time.
            FencedError: The partition is not ours.
            ParkingFullError: The lot is full.
        """
        events = [ready for _, ready in batch.items if isinstance(ready, Sorted)]
        offsets = frozenset([*(item[0].offset for item in batch.items), *(each.offset for each in batch.behind)])
        if not events and not batch.behind:
            share.settle(offsets)
            self._pass_over(share, batch)
            return
        async with self._parts.settling(share, offsets, effects=True) as settlement:
            await settlement.fence(min(offsets))
            await self._append(share, settlement, batch.behind)
            fresh = await self._fresh(settlement, events)
            if fresh:
                await self._call(share, settlement, fresh)
            hit(BATCH_BEFORE_OFFSET)
        self._parts.circuit.passed(share.name(event.record) for event in fresh)
        self._parts.breaker.note(other=len(events))
        self._parts.tally.applied(fresh)
        if len(events) < len(batch.items):
            self._pass_over(share, batch)
        topic = share.place.topic
        if batch.behind:
            self._parts.tally.appended(topic, len(batch.behind))
        if len(fresh) < len(events):
            self._parts.tally.count(topic, "duplicate", len(events) - len(fresh))

    def _pass_over(self, share: Share, batch: Batch) -> None:
        self._parts.tally.passed_over(share.place.topic, (ready for _, ready in batch.items))

    async def _append(self, share: Share, settlement: Settlement, records: Sequence[ConsumedRecord]) -> None:
        for record in records:
            if not await parking.append(settlement, record):
                share.parked.discard(key_text(record))
                raise NotAppendedError

    async def _fresh(self, settlement: Settlement, events: list[Sorted]) -> list[Sorted]:
        if not events:
            return []
        verdicts = await settlement.admit([event.inbox for event in events])
        if "conflict" in verdicts:
            raise HandlerError
        return [event for event, verdict in zip(events, verdicts, strict=True) if verdict == "fresh"]

    async def _call(self, share: Share, settlement: Settlement, events: Sequence[Sorted]) -> None:
        connection = settlement.connection
        placed = [self._parts.placed(event, attempt=1, connection=connection) for event in events]
        try:
            await self._parts.call(share, placed, settlement)
        except TransientError as exc:
            raise HandlerError from exc
