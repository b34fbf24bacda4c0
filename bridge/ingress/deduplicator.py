"""Publish each event once, however often it is delivered, and return the outcome of each delivery."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from bridge.errors import NotDurableError
from bridge.event import Delivery, Durable, Event, Identity, ParkReason, Settled, identity_in
from bridge.known.known_ids import KnownIds


class PublisherProtocol(Protocol):
    """Writes the records of a delivery, and reports the final state of each to `KnownIds`, even after the deadline."""

    def publish(self, delivery: Delivery, outcome: tuple[Event, ...] | ParkReason) -> Awaitable[Durable]:
        """Accept the records of a delivery; the awaitable returns `spooled` if one is, else `committed`.

        Raises:
            NotDurableError: If raised by the call, nothing was accepted; if by the awaitable, the deadline passed and
                the records may still appear.
        """


Outcome = Literal["accepted", "duplicate", "spooled", "conflict"]
# Publishes the events at these positions.
Publish = Callable[[tuple[int, ...]], Awaitable[Durable]]
# Seconds; a delivery that has used less of its deadline needs no timer, since the publisher has the same deadline.
SLACK_S = 0.05


class _Result(NamedTuple):
    conflict: bool = False  # an id is known with another body
    fresh: bool = False  # at least one identity was new
    spooled: bool = False  # at least one is only spooled


@dataclass(kw_only=True, eq=False, repr=False)
class Deduplicator:
    """Publishes new events. A repeat waits for the first and is `duplicate` or `spooled`, or published if it fails."""

    publisher: PublisherProtocol
    known_ids: KnownIds
    deadline_s: float  # bounds every delivery, also one that waits for another
    spooled_is_durable: Callable[[], bool] = lambda: True  # false while a failing disk may lose what a start found

    def deadline_at(self) -> float:
        """Return the loop time by which a delivery that arrives now must have a response."""
        return asyncio.get_running_loop().time() + self.deadline_s

    def publish_new(self, delivery: Delivery, events: tuple[Event, ...]) -> asyncio.Future[Durable] | None:
        """Publish events if all are new, else return None. May raise `NotDurableError`."""
        identities = [identity_in(delivery, event) for event in events]
        if not self.known_ids.begin_new(identities):
            return None
        try:
            return asyncio.ensure_future(self.publisher.publish(delivery, events))
        except BaseException:
            for identity in identities:  # nothing was accepted, so the publisher will not report it
                self.known_ids.settled(identity, "failed")
            raise

    async def publish(self, delivery: Delivery, events: tuple[Event, ...], *, deadline_at: float) -> Outcome:
        """Make all events durable; none if one id is known with another body. May raise `NotDurableError`."""
        identities = [identity_in(delivery, event) for event in events]

        def publish(fresh: tuple[int, ...]) -> Awaitable[Durable]:
            return self.publisher.publish(delivery, tuple(events[n] for n in fresh))

        result = await self._settle_all(identities, publish, deadline_at)
        if result.conflict:
            return "conflict"
        return "spooled" if result.spooled else "accepted" if result.fresh else "duplicate"

    async def park(self, delivery: Delivery, park: ParkReason, identity: Identity, *, deadline_at: float) -> bool:
        """Make a delivery to park durable, byte for byte; return whether it is new. May raise `NotDurableError`."""
        result = await self._settle_all([identity], lambda _: self.publisher.publish(delivery, park), deadline_at)
        return result.fresh

    async def _settle_all(self, identities: Sequence[Identity], publish: Publish, deadline_at: float) -> _Result:
        """Publish what is new and wait for what other deliveries publish; start over if one of the latter fails."""
        fresh = False
        while True:
            known = self.known_ids.begin(identities)
            if known.conflict:
                return _Result(conflict=True)
            if known.rival is not None:
                await _outcome_of(known.rival, deadline_at)
                continue
            durable = ""
            if known.fresh:
                durable = await self._publish_fresh(identities, known.fresh, publish, deadline_at)
                fresh = True
            others = [await _outcome_of(other, deadline_at) for other in known.pending]
            if "failed" in others:
                continue
            was_spooled = known.spooled or "spooled" in others
            if was_spooled and not self.spooled_is_durable():
                raise NotDurableError("spool_unavailable")
            return _Result(fresh=fresh, spooled=was_spooled or durable == "spooled")

    async def _publish_fresh(
        self, identities: Sequence[Identity], fresh: tuple[int, ...], publish: Publish, deadline_at: float
    ) -> Durable:
        try:
            left_s = _left_s(deadline_at)
            durable = publish(fresh)
        except BaseException:
            for n in fresh:  # as in `publish_new`
                self.known_ids.settled(identities[n], "failed")
            raise
        if left_s > self.deadline_s - SLACK_S:
            return await durable
        try:
            return await asyncio.wait_for(durable, left_s)
        except TimeoutError:
            raise NotDurableError("deadline") from None


async def _outcome_of(other: asyncio.Future[Settled], deadline_at: float) -> Settled:
    """Wait for the outcome of another delivery without cancelling it."""
    await asyncio.wait({other}, timeout=_left_s(deadline_at))
    if not other.done():
        raise NotDurableError("deadline")
    return other.result()


def _left_s(deadline_at: float) -> float:
    """Return the seconds until the deadline; `NotDurableError` if it has passed."""
    left_s = deadline_at - asyncio.get_running_loop().time()
    if left_s <= 0:
        raise NotDurableError("deadline")
    return left_s
