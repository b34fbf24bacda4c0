"""What of one partition is taken in and not settled, and up to where everything is."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from typing import NamedTuple


class Mark(NamedTuple):
    """How far a partition is settled.

    Attributes:
        next_offset: Everything below is settled, and the record just below, if there is one, was seen.
        last_event_id: Event id of the record just below, or None when it is not known or it has none.
        above: Offsets at or above the mark among those that were asked about.
    """

    next_offset: int
    last_event_id: str | None
    above: tuple[int, ...]


class _Entry(NamedTuple):
    offset: int
    event_id: str
    size: int
    taken_at: float


class Window:
    """The records of one partition from the mark on, in order; a log may have gaps, so no offset is taken for granted.

    A record leaves when everything below it has left: until then its offset and event id are kept, not its bytes.
    """

    def __init__(self, next_offset: int, *, last_event_id: str | None = None, settled: Collection[int] = ()) -> None:
        """Start at a mark; of what comes, the offsets `settled` already are at once."""
        self._next_offset = next_offset
        self._last_event_id = last_event_id
        self._before = {offset for offset in settled if offset >= next_offset}
        self._entries: deque[_Entry] = deque()
        self._open: dict[int, _Entry] = {}
        self._end = next_offset
        self.size = 0

    @property
    def count(self) -> int:
        """Records taken in that have not left, settled or not: what a bound must hold."""
        return len(self._entries)

    @property
    def unsettled(self) -> int:
        """Records that are not settled."""
        return len(self._open)

    @property
    def mark(self) -> int:
        """The offset below which everything is settled."""
        return self._next_offset

    @property
    def last_event_id(self) -> str | None:
        """Event id of the record just below the mark."""
        return self._last_event_id

    def add(self, offset: int, *, size: int, event_id: str, now: float) -> bool:
        """Take a record in; False when there is nothing to do: taken in before, or settled in an earlier life."""
        if offset < self._end:
            return False
        self._end = offset + 1
        entry = _Entry(offset, event_id, size, now)
        self._entries.append(entry)
        if offset in self._before:
            self._before.discard(offset)
            self._advance()
            return False
        self._open[offset] = entry
        self.size += size
        return True

    def preview(self, offsets: Collection[int]) -> Mark:
        """Return the mark as it will be once `offsets` are settled too; `above` are those of them it does not reach."""
        next_offset, last_event_id = self._next_offset, self._last_event_id
        for entry in self._reach(offsets):
            next_offset, last_event_id = entry.offset + 1, entry.event_id or None
        return Mark(next_offset, last_event_id, tuple(sorted(each for each in offsets if each >= next_offset)))

    def settle(self, offsets: Collection[int]) -> None:
        """Settle records, whatever became of them; those that are no more in the window count for nothing."""
        for offset in offsets:
            entry = self._open.pop(offset, None)
            if entry is not None:
                self.size -= entry.size
        self._advance()

    def oldest_age_s(self, now: float) -> float:
        """Age of the oldest record that is not settled; 0 when there is none."""
        for entry in self._open.values():
            return now - entry.taken_at
        return 0.0

    def _reach(self, offsets: Collection[int]) -> Iterator[_Entry]:
        waiting = self._open
        for entry in self._entries:
            if entry.offset in waiting and entry.offset not in offsets:
                return
            yield entry

    def _advance(self) -> None:
        entries, waiting = self._entries, self._open
        while entries and entries[0].offset not in waiting:
            entry = entries.popleft()
            self._next_offset, self._last_event_id = entry.offset + 1, entry.event_id or None
