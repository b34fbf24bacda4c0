"""Read entries back, in the order of each partition."""

import asyncio
import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from bridge.runtime.io_thread import IOThread
from bridge.runtime.logging import log
from bridge.spool.availability import Availability
from bridge.spool.disk import Disk
from bridge.spool.index import Index, Location, Segment
from bridge.spool.keys import KeyRing
from bridge.spool.recovery import Drain
from bridge.spool.segment import Entry, SpoolPartition, decrypt, read_header

# Seconds, longer than Linux takes to time out and reset a device (30 s); data unreadable by then may be lost.
ORDER_S = 40.0


# Why reading stopped. `unread`: the disk fails to read the next record; `damaged`: the record is not as written;
# `refused`: another reason, such as the file's owner or too many open files.
End = Literal["", "unread", "damaged", "refused"]


@dataclass(kw_only=True, eq=False, repr=False)
class Reader:
    """Keeps the order of a partition by waiting `order_s` for an unreadable record, then skips the record."""

    disk: Disk
    thread: IOThread
    keys: KeyRing
    index: Index
    availability: Availability
    order_s: float
    _unread_since: dict[SpoolPartition, float] = field(default_factory=dict)

    async def peek(self, partition: SpoolPartition, drain: Drain, *, most: int, most_bytes: int) -> list[Entry]:
        """Return the first entries of a partition; empty if it has none or cannot be read now."""
        while locations := self.index.head(partition, most=most, most_bytes=most_bytes):
            sources = [(self.index.segments[location.segment], location) for location in locations]
            entries, ended_by = await self.thread.run(partial(self._read_all, partition, sources))
            if entries or ended_by != "unread":
                self._unread_since.pop(partition, None)
            if entries:
                return entries
            if self.index.head(partition, most=1, most_bytes=1) != locations[:1]:
                continue  # acknowledged meanwhile
            segment = sources[0][0]
            if ended_by == "damaged":
                self.index.pass_over(partition)
                drain.passed_over()
                self.availability.note_damage(segment, 1)
            elif ended_by == "unread" and self._is_overdue(partition):
                self.index.pass_over(partition)
                drain.passed_over()
                self._leave_unread(segment)
            else:
                break
        else:  # a later record is waited for anew
            self._unread_since.pop(partition, None)
        return []

    def _is_overdue(self, partition: SpoolPartition) -> bool:
        now = asyncio.get_running_loop().time()
        return now - self._unread_since.setdefault(partition, now) >= self.order_s

    def _leave_unread(self, segment: Segment) -> None:
        """Leave a record to the next start, which reads all unacknowledged records of its segment."""
        if not segment.is_unread:
            log.error("worker.spool_unread", segment=segment.path.stem, code="unread")
        segment.is_unread = True

    def _read_all(
        self, partition: SpoolPartition, sources: Sequence[tuple[Segment, Location]]
    ) -> tuple[list[Entry], End]:
        entries: list[Entry] = []
        for segment, location in sources:
            try:
                # Read twice: the error may be in memory or on the bus instead of the disk.
                entry = self._read(segment, location) or self._read(segment, location)
            except FileNotFoundError:
                entry = None
            except OSError as exc:
                return entries, "unread" if exc.errno == errno.EIO else "refused"
            if entry is None or entry.partition != partition:
                return entries, "damaged"
            entries.append(entry)
        return entries, ""

    def _read(self, segment: Segment, location: Location) -> Entry | None:
        record = self.disk.read(segment.path, location.offset, location.length)
        header = read_header(record)
        if header is None or (header.segment, header.number) != (segment.number, location.number):
            return None
        key = self.keys.decrypting.get(header.key_id)
        return decrypt(record, key) if key else None
