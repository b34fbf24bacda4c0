"""What the segments hold, lane by lane: places only, a few bytes for each record; payloads stay on disk."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from bridge.spool.segment import Lane


class Place(NamedTuple):
    """One record: which file, where in it, how long, which number, and when its entry was accepted."""

    segment: int
    offset: int
    length: int
    number: int
    at_ms: int


@dataclass(slots=True)
class Segment:
    """One file and what keeps it there.

    Attributes:
        index: Short name in the places of the book; rises with the number.
        live: Records that are durable and not acknowledged.
        keys: Ids of those that sealed the live ones.
        locked: Running numbers of the records that cannot be opened: the key is not there, or another version of the
            bridge wrote them.
        missing: Ids of those keys.
        foreign: True when another version of the bridge wrote to it: nothing in the file is changed, and it stays.
        aside: Damaged ranges that could not be copied yet.
        newest: True for the one that an earlier process wrote to last.
        unread: True while it is not known what all of it is, since the disk does not give it back.
        seen: Running numbers that were found in it meanwhile.
        skipped: Records, and their lanes, that the disk stopped giving back.
        entering: True while what it holds is being entered, and for good when that was cut off.
        acknowledged: Running numbers that the side file does not have yet.
    """

    index: int
    number: int
    path: Path
    size: int = 0
    live: int = 0
    keys: set[bytes] = field(default_factory=set)
    locked: set[int] = field(default_factory=set)
    missing: set[bytes] = field(default_factory=set)
    foreign: bool = False
    aside: list[tuple[int, int]] = field(default_factory=list)
    newest: bool = False
    unread: bool = False
    seen: set[int] = field(default_factory=set)
    skipped: dict[Place, Lane] = field(default_factory=dict)
    entering: bool = False
    acknowledged: array[int] = field(default_factory=lambda: array("I"))

    @property
    def is_unread(self) -> bool:
        """True while the disk does not give back something of it."""
        return bool(self.unread or self.skipped)

    @property
    def is_known(self) -> bool:
        """True when all that can be told of it is in the index."""
        return not (self.unread or self.entering)

    @property
    def is_needed(self) -> bool:
        """True while removing the file would lose something."""
        return bool(self.live or self.locked or self.foreign or self.aside or self.is_unread or self.entering)


_OFFSET_BITS = 32
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1
# Dropped places are given back once they are the larger part; below this many it is not worth it.
_COMPACT_MIN = 1024


class _Line:
    """The places of one lane, oldest first, in arrays: 24 bytes each.

    Attributes:
        held: How many of the first were handed out.
        is_own: True when the first was appended in this life.
    """

    __slots__ = ("_at_ms", "_first", "_lengths", "_numbers", "_where", "held", "is_own")

    def __init__(self) -> None:
        self._where = array("Q")
        self._lengths = array("I")
        self._numbers = array("I")
        self._at_ms = array("Q")
        self._first = 0
        self.held = 0
        self.is_own = False

    def __len__(self) -> int:
        return len(self._where) - self._first

    def append(self, place: Place) -> None:
        self._where.append(place.segment << _OFFSET_BITS | place.offset)
        self._lengths.append(place.length)
        self._numbers.append(place.number)
        self._at_ms.append(place.at_ms)

    def places(self, most: int, start: int = 0) -> Iterator[Place]:
        """Give so many from `start`."""
        first = self._first + start
        for at in range(first, min(first + most, len(self._where))):
            where = self._where[at]
            yield Place(
                where >> _OFFSET_BITS, where & _OFFSET_MASK, self._lengths[at], self._numbers[at], self._at_ms[at]
            )

    def last(self) -> Place:
        """Give the newest of at least one."""
        (place,) = self.places(1, len(self) - 1)
        return place

    def drop(self, count: int) -> None:
        self._first += count
        self.held = max(0, self.held - count)
        self.is_own = self.is_own and len(self) > 0
        if self._first > _COMPACT_MIN and self._first * 2 > len(self._where):
            for each in (self._where, self._lengths, self._numbers, self._at_ms):
                del each[: self._first]
            self._first = 0

    def replace(self, places: Iterable[Place]) -> None:
        held = self.held
        line = _Line()
        for place in places:
            line.append(place)
        for name in ("_where", "_lengths", "_numbers", "_at_ms", "_first"):
            setattr(self, name, getattr(line, name))
        self.held = min(held, len(self))


class Index:
    """Every segment and every place; belongs to the loop's thread."""

    def __init__(self, directory: Path) -> None:
        """Begin with nothing."""
        self._directory = directory
        self._lines: dict[Lane, _Line] = {}
        self._by_number: dict[int, Segment] = {}
        self.segments: dict[int, Segment] = {}
        self._next_index = 0
        self.size = 0

    def segment(self, number: int, name: str) -> Segment:
        """Return the segment of that number, new if it is not known."""
        known = self._by_number.get(number)
        if known is None:
            known = Segment(self._next_index, number, self._directory / name)
            self._next_index += 1
            self._by_number[number] = self.segments[known.index] = known
        return known

    def resize(self, segment: Segment, size: int) -> None:
        """Keep the sum of all sizes."""
        self.size += size - segment.size
        segment.size = size

    def forget(self, segment: Segment) -> None:
        """Leave a segment out whose file goes."""
        self.resize(segment, 0)
        del self._by_number[segment.number], self.segments[segment.index]

    def add(self, lane: Lane, place: Place) -> None:
        """Put a record that was just appended at the end of its lane."""
        line = self._lines.setdefault(lane, _Line())
        line.is_own = line.is_own or not len(line)
        line.append(place)
        self.segments[place.segment].live += 1

    def enter(self, lane: Lane, places: Sequence[Place]) -> None:
        """Put records that were found, in their order, where they belong, but behind those that were handed out.

        Behind all, when the lane was empty before one was appended to it in this life: who did that may acknowledge it
        without having it handed out, and counts from the head.
        """
        line = self._lines.setdefault(lane, _Line())
        if line.is_own or not len(line) or line.last() < places[0]:
            for place in places:
                line.append(place)
        else:
            present = line.places(len(line))
            held = list(islice(present, line.held))
            line.replace(chain(held, merge(present, places)))
        for place in places:
            self.segments[place.segment].live += 1

    def depth(self, lane: Lane) -> int:
        """Return how many records wait in a lane."""
        line = self._lines.get(lane)
        return len(line) if line else 0

    def lanes(self) -> list[Lane]:
        """Return the lanes in which any wait."""
        return [lane for lane, line in self._lines.items() if len(line)]

    def events(self) -> int:
        """Return how many wait in all lanes."""
        return sum(map(len, self._lines.values()))

    def locked(self) -> int:
        """Return how many records cannot be opened; of a file of another version at least one."""
        return sum(max(len(segment.locked), segment.foreign) for segment in self.segments.values())

    def keys(self) -> set[bytes]:
        """Return the ids of the keys without which something that waits could not be read after a restart."""
        held = (segment.keys for segment in self.segments.values() if segment.live or segment.skipped)
        return set().union(*held)

    def uncopied(self) -> int:
        """Return how many damaged ranges could not be copied; each keeps its segment."""
        return sum(len(segment.aside) for segment in self.segments.values())

    def unread(self) -> list[Segment]:
        """Return the segments that hold anything that the disk does not give back now."""
        return [segment for segment in self.segments.values() if segment.is_unread]

    def first_unknown(self) -> int | None:
        """Return the index of the oldest segment of which not all is known, if there is one."""
        return min((segment.index for segment in self.segments.values() if not segment.is_known), default=None)

    def oldest_ms(self) -> int:
        """Return when the oldest of those at the head of a lane was accepted; 0 without any."""
        heads = (place.at_ms for line in self._lines.values() for place in line.places(1))
        return min(heads, default=0)

    def head(self, lane: Lane, *, most: int, most_bytes: int) -> list[Place]:
        """Return the first places of a lane, at least one unless it is empty."""
        places: list[Place] = []
        line = self._lines.get(lane)
        size = 0
        for place in line.places(most) if line else ():
            size += place.length
            if places and size > most_bytes:
                break
            places.append(place)
        return places

    def hold(self, lane: Lane, count: int) -> None:
        """Remember that the first `count` were handed out: nothing may come in front of them any more."""
        line = self._lines[lane]
        line.held = max(line.held, count)

    def drop(self, lane: Lane, count: int) -> set[int]:
        """Take the first `count` as acknowledged; return the indexes of the segments they stood in."""
        line = self._lines.get(lane)
        touched: set[int] = set()
        for place in line.places(count) if line else ():
            segment = self.segments[place.segment]
            segment.live -= 1
            segment.acknowledged.append(place.number)
            touched.add(place.segment)
        if line:
            line.drop(min(count, len(line)))
        return touched

    def remove(self, lane: Lane, places: Iterable[Place]) -> None:
        """Leave out what was found damaged."""
        line = self._lines[lane]
        gone = set(places)
        found = [place for place in line.places(len(line)) if place in gone]
        line.replace(place for place in line.places(len(line)) if place not in gone)
        for place in found:
            self.segments[place.segment].live -= 1
