"""Read entries back from their places, in the order of their lane."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import NamedTuple

from bridge.runtime.hand import Hand
from bridge.spool.disk import Disk
from bridge.spool.index import Index, Place, Segment
from bridge.spool.keys import KeyRing
from bridge.spool.segment import Entry, Key, Lane, read_head, unseal

# Longer than a device takes to time out and be reset (30 s in Linux); what it does not give back then may never come.
ORDER_S = 40.0

Source = tuple[Segment, Place]


class Outcome(NamedTuple):
    """What was read, in order; what stands no more where it was; what the disk does not give back now."""

    entries: list[Entry]
    damaged: list[Source]
    unread: list[Source]


def read_entries(
    disk: Disk, keys: Mapping[bytes, Key], lane: Lane, sources: Sequence[Source], *, skip: bool
) -> Outcome:
    """Read places of a lane, up to the first that cannot be read now; with `skip`, past those of a failing disk."""
    outcome = Outcome([], [], [])
    for source in sources:
        try:
            entry = _read(disk, keys, source) or _read(disk, keys, source)
        except FileNotFoundError:
            entry = None
        except OSError as exc:
            if exc.errno == errno.EIO:
                outcome.unread.append(source)
                if skip:
                    continue
            break
        if entry is None or entry.lane != lane:
            outcome.damaged.append(source)
        else:
            outcome.entries.append(entry)
    return outcome


def _read(disk: Disk, keys: Mapping[bytes, Key], source: Source) -> Entry | None:
    segment, place = source
    record = disk.read(segment.path, place.offset, place.length)
    head = read_head(record)
    if head is None or (head.segment, head.number) != (segment.number, place.number) or head.key_id not in keys:
        return None
    return unseal(record, keys[head.key_id])


class Reader:
    """Hands out what is at the head of a lane; on the loop's thread, but for the disk."""

    def __init__(
        self,
        disk: Disk,
        *,
        hand: Hand,
        keys: KeyRing,
        index: Index,
        limit: Callable[[], float],
        leave_out: Callable[[Lane, Sequence[Source]], Awaitable[None]],
        skip: Callable[[Lane, Sequence[Source]], None],
        order_s: float,
    ) -> None:
        """Read from `disk` where `index` says.

        Args:
            disk: The file system.
            hand: What reads.
            keys: What opens.
            index: What is known.
            limit: Tells from which segment, by index, nothing may be handed out now.
            leave_out: Told of what is damaged.
            skip: Told of what the disk does not give back.
            order_s: What cannot be read is waited for so long, and then left for later.
        """
        self._disk = disk
        self._hand = hand
        self._keys = keys
        self._index = index
        self._limit = limit
        self._leave_out = leave_out
        self._skip = skip
        self._order_s = order_s
        self._failing_since: dict[Lane, float] = {}

    async def peek(self, lane: Lane, *, most: int, most_bytes: int) -> list[Entry]:
        """Return the first entries of a lane; none when it is empty or cannot be read now."""
        while places := self._places(lane, most=most, most_bytes=most_bytes):
            self._index.hold(lane, len(places))
            sources = [(self._index.segments[place.segment], place) for place in places]
            skip = self._is_overdue(lane)
            work = partial(read_entries, self._disk, self._keys.opening, lane, sources, skip=skip)
            outcome = await self._hand.do(work)
            if not outcome.unread:
                self._failing_since.pop(lane, None)
            elif skip:
                self._skip(lane, outcome.unread)
            else:
                self._failing_since.setdefault(lane, asyncio.get_running_loop().time())
            if outcome.damaged:
                await self._leave_out(lane, outcome.damaged)
            if outcome.entries or not (outcome.damaged or (skip and outcome.unread)):
                return outcome.entries
        return []

    def _places(self, lane: Lane, *, most: int, most_bytes: int) -> list[Place]:
        limit = self._limit()
        return list(
            takewhile(lambda place: place.segment < limit, self._index.head(lane, most=most, most_bytes=most_bytes))
        )

    def _is_overdue(self, lane: Lane) -> bool:
        since = self._failing_since.get(lane)
        return since is not None and asyncio.get_running_loop().time() - since >= self._order_s
