"""How far a partition is: what was taken in of it, what is settled, and how long the rest has waited."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from bridge.kafka.transport import ConsumedRecord


class Progress:
    """How far one partition is, in offsets and in time.

    Attributes:
        mark: Offset below which everything is settled, as it was seen last.
    """

    def __init__(self, offset: int, now: float) -> None:
        """Start at `offset`."""
        self.mark = self._next = offset
        self._moved_at = now
        self._activity = 0
        self._behind_at: float | None = None
        # First offset and time of what was taken in and is not settled, one entry a batch.
        self._stamps: deque[tuple[int, int]] = deque()

    def offered(self, records: Sequence[ConsumedRecord]) -> None:
        """Note what was taken in."""
        self._stamps.append((records[0].offset, records[0].timestamp_ms))
        self._next = records[-1].offset + 1

    def observe(self, mark: int, *, activity: int, halted: bool, now: float) -> None:
        """Note what is settled and how much was done; a halted partition need not move."""
        if halted or mark != self.mark or activity != self._activity or mark >= self._next:
            self._moved_at = now
        self.mark, self._activity = mark, activity
        while self._stamps and (self._stamps[1][0] if len(self._stamps) > 1 else self._next) <= mark:
            self._stamps.popleft()

    def stuck_s(self, now: float) -> float:
        """How long records have been in hand without anything being done about one."""
        return now - self._moved_at

    def lag(self, end: int, *, position: int | None, now: float, now_ms: float) -> tuple[int, float]:
        """Return the records that are not settled, and the age in seconds of the oldest.

        While none of them was read yet, the age is how long it is known that there are some. Up to `position`, nothing
        has come that was not taken in: markers of transactions, and what those have taken back, are no records.
        """
        seen = self.mark if position is None or self.mark < self._next else max(self.mark, position)
        records = max(0, end - seen)
        if records == 0:
            self._behind_at = None
            return 0, 0.0
        if self._behind_at is None:
            self._behind_at = now
        age_s = (now_ms - self._stamps[0][1]) / 1000 if self._stamps else now - self._behind_at
        return records, max(0.0, age_s)
