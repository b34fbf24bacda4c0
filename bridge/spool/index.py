"""Locations of waiting records: a queue for each partition, oldest first.

A location is appended at the end of its partition's queue and removed at the head, so records are drained in the
order of acceptance. Payloads stay on disk.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bridge.spool.segment import SpoolPartition, segment_name

_OFFSET_BITS = 32
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1
# Acknowledged locations are freed once they outnumber the others, but not below this many.
_COMPACT_MIN = 1024


class Location(NamedTuple):
    """The location of one record."""

    segment: int  # `Segment.index`
    offset: int  # byte offset in the file; `length` is also in bytes
    length: int
    number: int  # sequence number of the record in its segment
    at_ms: int  # when its entry was accepted


@dataclass(slots=True)
class Segment:
    """A segment file and the reasons to keep it on disk."""

    # Short for `number` (64 bits) in locations; assigned in the order in which segments become known.
    index: int
    number: int
    path: Path
    size: int = 0
    live: int = 0  # records in a queue
    keys: set[bytes] = field(default_factory=set)  # ids of the keys that encrypted its records
    locked: int = 0  # records that cannot be decrypted: the key is missing, or another version of the bridge wrote them
    missing: set[bytes] = field(default_factory=set)  # ids of the missing keys
    is_foreign: bool = False  # another version of the bridge wrote to the file: it is kept unchanged
    is_unread: bool = False  # a record that is not acknowledged could not be read from disk
    is_damaged: bool = False  # it has damage: once drained, it is moved instead of removed
    is_durable: bool = True  # False until what an earlier process wrote is written once more
    # Acknowledged sequence numbers that are not in the positions file yet.
    acknowledged: array[int] = field(default_factory=lambda: array("I"))

    @property
    def is_needed(self) -> bool:
        """True while removing the file would lose a record."""
        return bool(self.live or self.locked or self.is_foreign or self.is_unread)


class _Queue:
    """A queue of locations in arrays, 24 bytes each: 10 GiB of records of 1 KiB are 10 million locations."""

    def __init__(self) -> None:
        self._where = array("Q")
        self._lengths = array("I")
        self._numbers = array("I")
        self._at_ms = array("Q")
        self._first = 0

    def __len__(self) -> int:
        return len(self._where) - self._first

    def append(self, location: Location) -> None:
        self._where.append(location.segment << _OFFSET_BITS | location.offset)
        self._lengths.append(location.length)
        self._numbers.append(location.number)
        self._at_ms.append(location.at_ms)

    def first(self, most: int) -> Iterator[Location]:
        for at in range(self._first, min(self._first + most, len(self._where))):
            where = self._where[at]
            yield Location(
                where >> _OFFSET_BITS, where & _OFFSET_MASK, self._lengths[at], self._numbers[at], self._at_ms[at]
            )

    def remove(self, count: int) -> None:
        self._first = min(self._first + count, len(self._where))
        if self._first > _COMPACT_MIN and self._first * 2 > len(self._where):
            for each in (self._where, self._lengths, self._numbers, self._at_ms):
                del each[: self._first]
            self._first = 0


class Index:
    """All segments and locations; used only on the event loop's thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._queues: dict[SpoolPartition, _Queue] = {}
        self._by_number: dict[int, Segment] = {}
        self._next_index = 0
        self.segments: dict[int, Segment] = {}  # by `Segment.index`
        self.active: int | None = None  # `Segment.index` of the segment written last
        self.size = 0  # bytes of all segments
        self.last_ordinal = 0  # highest `Entry.ordinal` seen; 0 if none

    def segment(self, number: int) -> Segment:
        """Return the segment of a number, added if unknown."""
        known = self._by_number.get(number)
        if known is None:
            known = Segment(self._next_index, number, self._directory / segment_name(number))
            self._next_index += 1
            self._by_number[number] = self.segments[known.index] = known
        return known

    def resize(self, segment: Segment, size: int) -> None:
        """Note the size of a segment."""
        self.size += size - segment.size
        segment.size = size

    def forget(self, segment: Segment) -> None:
        """Remove a segment whose file was removed."""
        self.resize(segment, 0)
        del self._by_number[segment.number], self.segments[segment.index]

    def add(self, partition: SpoolPartition, location: Location) -> None:
        """Append a record to the queue of its partition."""
        self._queues.setdefault(partition, _Queue()).append(location)
        self.segments[location.segment].live += 1

    def head(self, partition: SpoolPartition, *, most: int, most_bytes: int) -> list[Location]:
        """Return the first locations of a partition, at least one unless it is empty."""
        locations: list[Location] = []
        size = 0
        queue = self._queues.get(partition)
        for location in queue.first(most) if queue else ():
            size += location.length
            if locations and size > most_bytes:
                break
            locations.append(location)
        return locations

    def acknowledge(self, partition: SpoolPartition, count: int) -> set[int]:
        """Remove the first `count` records, which are in Kafka or set aside; return the indexes of their segments."""
        touched: set[int] = set()
        queue = self._queues.get(partition)
        for location in queue.first(count) if queue else ():
            segment = self.segments[location.segment]
            segment.live -= 1
            segment.acknowledged.append(location.number)
            touched.add(location.segment)
        if queue:
            queue.remove(count)
        return touched

    def pass_over(self, partition: SpoolPartition) -> None:
        """Remove the first record without acknowledging it: it is damaged, or the disk cannot read it."""
        queue = self._queues[partition]
        for location in queue.first(1):
            self.segments[location.segment].live -= 1
        queue.remove(1)

    def depth(self, partition: SpoolPartition) -> int:
        """Return the number of waiting records of a partition."""
        return len(self._queues.get(partition, ()))

    def events(self) -> int:
        """Return the number of waiting records of all partitions."""
        return sum(map(len, self._queues.values()))

    def oldest_ms(self) -> int:
        """Return when the oldest waiting record was accepted, in Unix milliseconds; 0 if there is none."""
        return min((location.at_ms for queue in self._queues.values() for location in queue.first(1)), default=0)

    def locked(self) -> int:
        """Return the number of records that cannot be decrypted; at least one for a file of another version."""
        return sum(max(segment.locked, segment.is_foreign) for segment in self.segments.values())

    def unread(self) -> int:
        """Return the number of segments that the disk could not read in full."""
        return sum(segment.is_unread for segment in self.segments.values())

    def keys(self) -> set[bytes]:
        """Return the ids of the keys needed to decrypt waiting records after a restart."""
        needed = (segment.keys for segment in self.segments.values() if segment.live or segment.is_unread)
        return set().union(*needed)
