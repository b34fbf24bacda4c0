"""The seam between reading and settling: what the poll task, the committer and the watchdog ask about records."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from bridge.kafka.transport import ConsumedRecord, Place


class Adoption(NamedTuple):
    """Where a claimed partition goes on; both None when nothing was ever settled there.

    Attributes:
        next_offset: Everything below is settled.
        last_event_id: `ce_id` of the record before `next_offset`; None when it is not known.
    """

    next_offset: int | None
    last_event_id: str | None


class Settles(Protocol):
    """What becomes of records; a place is adopted, started, offered records, and at last forgotten."""

    async def adopt(self, place: Place, generation: int) -> Adoption:
        """Claim a partition and whatever was known of it before is void, also its being `fenced`.

        Raises:
            TransientError: Not now; it is asked again.
        """

    def start(self, place: Place, offset: int) -> None:
        """Expect records from `offset` on."""

    def offer(self, place: Place, records: Sequence[ConsumedRecord]) -> None:
        """Take them all, in order."""

    def room(self, place: Place) -> bool:
        """Whether more may be offered now."""

    def halted(self, place: Place) -> bool:
        """Whether nothing of it can be settled for long; its records are not even fetched then."""

    def fenced(self, place: Place) -> bool:
        """Whether a late claim of another overtook ours: it is forgotten and adopted again under a new generation."""

    async def drain(self, places: Collection[Place], *, timeout_s: float) -> None:
        """Start no new record and return when those in flight are settled, or given up; may be asked twice at once."""

    def forget(self, places: Collection[Place]) -> None:
        """Drop all that is known of partitions that are not ours any more; unknown ones are no fault."""

    def mark(self, place: Place) -> int | None:
        """Return the offset below which everything is settled; None before `start`."""

    def activity(self) -> int:
        """Return a number that moves whenever something of any place is tried, settled or released.

        Of any: a partition may wait its turn for long while slow handlers have others in hand.
        """

    async def run(self, stop: asyncio.Event) -> None:
        """Settle what is offered until `stop` is set; raise only what the process cannot outlive."""
