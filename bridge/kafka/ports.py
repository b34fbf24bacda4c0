"""What the lanes need of the world: a way to Kafka, a disk, and somebody who remembers ids."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from bridge.errors import NotDurableError
from bridge.event import Identity, Settled
from bridge.kafka.record import Record
from bridge.spool.segment import Entry


class RecordRefusedError(NotDurableError):
    """Kafka refused a batch for what one of its records is; nothing of the batch was written."""


class Producer(Protocol):
    """Writes to Kafka; every call ends within a bound of the producer's own."""

    @property
    def ready(self) -> bool:
        """True when a write may succeed now."""

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Write as many `records`, from the first, as one batch holds; return how many all replicas have.

        Raises:
            RecordRefusedError: One of the records is at fault.
            NotDurableError: Not written, or not known to be.
        """

    async def close(self, timeout_s: float) -> None:
        """Finish what is in flight within `timeout_s`, then end every connection."""


class Buffer(Protocol):
    """Keeps entries durably on this host; `bridge.spool` does."""

    @property
    def code(self) -> str:
        """Empty when it takes entries, else why it does not."""

    def depth(self, lane: tuple[str, int], /) -> int:
        """How many durable entries of a partition it holds."""

    def append(self, entries: Sequence[Entry], /) -> Awaitable[None]:
        """Have all entries, or none, durable when the future ends; the order of calls is the order kept.

        Raises:
            NotDurableError: From the future; none of them is durable.
        """

    async def peek(self, lane: tuple[str, int], /, *, most: int, most_bytes: int) -> list[Entry]:
        """Return the first entries of a partition."""

    async def set_aside(self, lane: tuple[str, int], /, *, refused: str) -> bool:
        """Set the first entry of a partition aside if an operator has asked for that; return whether it was.

        `refused` is the code by which Kafka has just refused that entry alone; empty when it has not.
        """

    def drop(self, lane: tuple[str, int], count: int, /) -> None:
        """Forget the first entries of a partition: they are where they belong."""


class Memory(Protocol):
    """What is known of ids, as far as a drain needs it.

    Attributes:
        finished: It knows what the topics hold, or never will; so a drain may begin.
    """

    finished: bool

    def committed_before(self, identity: Identity) -> bool:
        """Whether the same event is in its topic already."""

    def settled(self, identity: Identity, state: Settled) -> None:
        """Be told what became of an event."""


# Returns, within a bound, when `Memory` knows what a partition of a topic holds at this moment; never raises.
CatchUp = Callable[[str, int], Awaitable[None]]


async def knows_all(topic: str, partition: int) -> None:
    """Stand where nobody else writes to the topics."""
    del topic, partition


class NoBuffer:
    """Stands where there is no disk to spool on: it takes nothing and holds nothing."""

    code = "disabled"
    is_open = False
    last_ordinal = 0

    def oldest_ms(self) -> int:
        """Hold nothing."""
        return 0

    def depth(self, lane: tuple[str, int], /) -> int:
        """Hold nothing."""
        del lane
        return 0

    def append(self, entries: Sequence[Entry], /) -> asyncio.Future[None]:
        """Take nothing."""
        del entries
        refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        refused.set_exception(NotDurableError(self.code))
        return refused

    async def peek(self, lane: tuple[str, int], /, *, most: int, most_bytes: int) -> list[Entry]:
        """Hold nothing."""
        del lane, most, most_bytes
        return []

    async def set_aside(self, lane: tuple[str, int], /, *, refused: str) -> bool:
        """Hold nothing."""
        del lane, refused
        return False

    def drop(self, lane: tuple[str, int], count: int, /) -> None:
        """Hold nothing."""
