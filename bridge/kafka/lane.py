"""One partition on its way to Kafka: what waits, what is in flight, and what each delivery waits for."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Literal, NamedTuple

from bridge.errors import NotDurableError
from bridge.event import Durable, Identity
from bridge.kafka.record import Record

# Headers, key and our own objects around the value of a record.
OVERHEAD_BYTES = 1024


class Accepted(NamedTuple):
    """One record that was accepted.

    Attributes:
        identity: What makes it one with a repeat of itself.
        ordinal: Rises in the order of acceptance.
    """

    record: Record
    identity: Identity
    ordinal: int


class Ticket:
    """What one delivery waits for: all of its records.

    Attributes:
        future: How all of them are durable.
        spools_at: Loop time at which Kafka has had its chance.
        expires_at: Loop time at which the sender is told that nothing is durable.
        lanes: Where its records went.
    """

    __slots__ = ("_left", "_spooled", "expires_at", "future", "lanes", "spools_at")

    def __init__(self, future: asyncio.Future[Durable], lanes: list[Lane], spools_at: float, expires_at: float) -> None:
        """Wait for one record in each of `lanes`."""
        self.future = future
        self.lanes = lanes
        self.spools_at = spools_at
        self.expires_at = expires_at
        self._left = len(lanes)
        self._spooled = False

    def count(self, durable: Durable) -> None:
        """One more record is durable; the delivery is committed only when every one of its records is."""
        self._spooled |= durable == "spooled"
        self._left -= 1
        if not self._left and not self.future.done():
            self.future.set_result("spooled" if self._spooled else "committed")

    def fail(self, code: str) -> None:
        """A record of it will not become durable."""
        if not self.future.done():
            self.future.set_exception(NotDurableError(code))


class Item:
    """An accepted record in memory.

    Attributes:
        state: `open` until it is durable or given up.
        flying: Handed to Kafka, whose answer has not come.
        on_disk: Durable in the spool.
    """

    __slots__ = ("accepted", "flying", "on_disk", "state", "ticket")

    def __init__(self, accepted: Accepted, ticket: Ticket) -> None:
        """Begin open."""
        self.accepted = accepted
        self.ticket = ticket
        self.state: Literal["open", "durable", "failed"] = "open"
        self.flying = False
        self.on_disk = False

    @property
    def size(self) -> int:
        """Roughly what it takes of the memory, in bytes."""
        return OVERHEAD_BYTES + len(self.accepted.record.value or b"")

    @property
    def unwanted(self) -> bool:
        """True when its sender was told that it has to come again: writing it now would only repeat it."""
        return self.ticket.future.done()


@dataclass(frozen=True, slots=True, eq=False)
class Append:
    """A call of the spool that has not ended."""

    items: list[Item]
    future: asyncio.Future[None]


class Lane:
    """The records of one partition, oldest first; one batch of them is in flight at a time.

    It is direct, or it spools: then whatever comes queues behind what is on disk. When the last of that is about to
    leave, it is `closing`: what comes waits in memory for the disk to be empty, and the lane is direct again. What the
    disk finds or finishes late makes a lane spool with records in memory: those leave first, and what comes goes to the
    disk.

    Attributes:
        waiting: Not handed to Kafka yet, and not on disk.
        flight: Handed to Kafka, directly.
        writing_since: Loop time at which the write in flight began.
        appends: Calls of the spool that have not ended, and that somebody waits for.
        rescue: The call of the spool that took over what was in flight.
        singly: So many of the next records are written one by one, to find the one at fault.
        blocked: Code of what Kafka refuses about the head, or empty.
        caught_up: What others had written to the partition before this drain began is known.
    """

    __slots__ = (
        "appends",
        "blocked",
        "caught_up",
        "closing",
        "flight",
        "partition",
        "rescue",
        "singly",
        "spooling",
        "task",
        "topic",
        "waiting",
        "writing_since",
    )

    def __init__(self, topic: str, partition: int) -> None:
        """Begin direct and empty."""
        self.topic = topic
        self.partition = partition
        self.waiting: deque[Item] = deque()
        self.flight: list[Item] = []
        self.writing_since: float | None = None
        self.task: asyncio.Task[None] | None = None
        self.spooling = False
        self.closing = False
        self.appends: list[Append] = []
        self.rescue: asyncio.Future[None] | None = None
        self.singly = 0
        self.blocked = ""
        self.caught_up = False

    @property
    def place(self) -> tuple[str, int]:
        """Topic and partition."""
        return self.topic, self.partition

    @property
    def trips(self) -> bool:
        """True unless all that it has in memory is on disk, or on its way there, already."""
        return self.closing or not self.spooling

    @property
    def drains(self) -> bool:
        """True when the disk is next, and not the memory."""
        return self.spooling and (self.closing or not self.waiting)

    @property
    def is_abandoned(self) -> bool:
        """True when nobody waits any more for what is on its way to the disk."""
        return all(
            item.state != "open" or (item.unwanted and not item.flying)
            for append in self.appends
            for item in append.items
        )

    def go_direct(self) -> None:
        """Leave the disk: nothing is there that could be overtaken."""
        self.spooling = self.closing = False
        self.blocked = ""

    def most(self, batch_max: int) -> int:
        """How many records the next write may take."""
        if not self.singly:
            return batch_max
        self.singly -= 1
        return 1
