"""Which records of a partition are settled: determines `next_offset` and the offsets settled above it."""

from collections import deque
from collections.abc import Collection, Iterator
from typing import NamedTuple

from bridge.kafka.consumed_record import ConsumedRecord

# Bytes per record of our own objects and of the contract's headers, by `sys.getsizeof`.
OVERHEAD_BYTES = 2_048


class Advance(NamedTuple):
    """The settled position of a partition."""

    next_offset: int  # all records below are settled, and the record just below, if any, was read
    last_event_id: str | None  # event id of the record just below; None if unknown or absent
    above: tuple[int, ...]  # settled offsets at or above `next_offset`, among those given


class Window:
    """The records of one partition from `next_offset` on, in order; offsets may have gaps.

    A settled record is removed once all below it are settled: until then its offset and event id are kept.
    """

    def __init__(
        self,
        next_offset: int,
        *,
        last_event_id: str | None = None,
        settled: Collection[int] = (),
        written: int | None = None,
    ) -> None:
        """Start at `next_offset`; `settled` are offsets above it that a former owner settled."""
        self.next_offset = next_offset  # all records below are settled
        self.last_event_id = last_event_id  # event id of the record just below `next_offset`
        self.written = written  # `next_offset` in the ledger; None if the ledger has none yet
        self.size = 0  # bytes of unsettled records
        self._settled_before = {offset for offset in settled if offset >= next_offset}
        self._entries: deque[tuple[int, str]] = deque()  # offsets and event ids
        self._open: dict[int, tuple[int, float]] = {}  # size and time of arrival, by offset
        self._end = next_offset

    @property
    def count(self) -> int:
        """Number of records in the window, settled or not."""
        return len(self._entries)

    @property
    def unsettled(self) -> int:
        """Number of unsettled records."""
        return len(self._open)

    def take(self, record: ConsumedRecord, *, now: float) -> bool:
        """Add a record; False if there is nothing to do, as in `add`."""
        size = OVERHEAD_BYTES + len(record.value or b"") + len(record.key or b"")
        event_id = b""
        for name, content in record.headers:  # other producers' headers may have any size
            size += len(content)
            if name == "ce_id":
                event_id = content
        return self.add(record.offset, size=size, event_id=event_id.decode("utf-8", "replace"), now=now)

    def add(self, offset: int, *, size: int, event_id: str, now: float) -> bool:
        """Add a record; False if it was added before, or settled by a former owner."""
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
        """Return the position once `offsets` are settled; `above` are those of them beyond it."""
        next_offset, last_event_id = self.next_offset, self.last_event_id
        for offset, event_id in self._reach(offsets):
            next_offset, last_event_id = offset + 1, event_id or None
        return Advance(next_offset, last_event_id, tuple(sorted(each for each in offsets if each >= next_offset)))

    def settle(self, offsets: Collection[int], *, advance: Advance | None = None) -> None:
        """Settle records, ignoring removed ones; `advance` was written to the ledger with them."""
        for offset in offsets:
            taken = self._open.pop(offset, None)
            if taken is not None:
                self.size -= taken[0]
        self._advance()
        if advance is not None:
            self.written = max(self.written or 0, advance.next_offset)

    def oldest_age_s(self, now: float) -> float:
        """Return the age of the oldest unsettled record in seconds; 0 if there is none."""
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
