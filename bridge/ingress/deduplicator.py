"""Make each event durable once, however often it is delivered, and return the outcome of each delivery."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from bridge.errors import NotDurableError
from bridge.event import Delivery, Durable, Event, Identity, ParkReason, Settled, identity_in
from bridge.known.known_ids import KnownIds


class PublisherProtocol(Protocol):
    """Makes the outcome of a delivery durable, and reports the final state of each part to `KnownIds`, even if late."""

    def publish(self, delivery: Delivery, outcome: tuple[Event, ...] | ParkReason) -> Awaitable[Durable]:
        """Return an awaitable of how the records became durable.

        Raises:
            NotDurableError: If raised by the call, nothing was accepted; if by the awaitable, the deadline passed and
                the records may still appear.
        """


Outcome = Literal["accepted", "duplicate", "spooled", "conflict"]
# From positions of new events to how they became durable.
Publish = Callable[[tuple[int, ...]], Awaitable[Durable]]
# Seconds; a delivery that has waited less needs no timer: the publisher keeps the deadline.
SLACK_S = 0.05


class _Verdict(NamedTuple):
    conflict: bool = False
    fresh: bool = False
    spooled: bool = False


@dataclass(kw_only=True, eq=False, repr=False)
class Deduplicator:
    """Publishes new events; a repeat gets the outcome of the first delivery."""

    publisher: PublisherProtocol
    known_ids: KnownIds
    deadline_s: float  # bounds every delivery, also one that waits for another

    def ends_at(self) -> float:
        """Return the loop time by which a delivery that arrives now must have a response."""
        return asyncio.get_running_loop().time() + self.deadline_s

    def take_new(self, delivery: Delivery, events: tuple[Event, ...]) -> asyncio.Future[Durable] | None:
        """Publish events that are all new, else return None. Raises `NotDurableError` if that is impossible now."""
        identities = [identity_in(delivery, event) for event in events]
        if not self.known_ids.begin_new(identities):
            return None
        try:
            return asyncio.ensure_future(self.publisher.publish(delivery, events))
        except BaseException:
            for identity in identities:  # nothing was accepted, so only this code reports it
                self.known_ids.settled(identity, "failed")
            raise

    async def take(self, delivery: Delivery, events: tuple[Event, ...], *, ends_at: float) -> Outcome:
        """Make events durable, or none on a `conflict`: an id known with another body. May raise `NotDurableError`."""
        identities = [identity_in(delivery, event) for event in events]

        def publish(fresh: tuple[int, ...]) -> Awaitable[Durable]:
            return self.publisher.publish(delivery, tuple(events[n] for n in fresh))

        ended = await self._end(identities, publish, ends_at)
        if ended.conflict:
            return "conflict"
        return "spooled" if ended.spooled else "accepted" if ended.fresh else "duplicate"

    async def park(self, delivery: Delivery, park: ParkReason, *, ends_at: float) -> bool:
        """Make a parked delivery durable as received; return whether it is new. May raise `NotDurableError`."""
        identity = Identity(delivery.source, delivery.id, delivery.body_sha256, park.reason)
        return (await self._end([identity], lambda _: self.publisher.publish(delivery, park), ends_at)).fresh

    async def _end(self, identities: Sequence[Identity], publish: Publish, ends_at: float) -> _Verdict:
        """Publish unknown identities and wait for pending ones; start over if one of those failed."""
        fresh = False
        while True:
            known = self.known_ids.begin(identities)
            if known.conflict:
                return _Verdict(conflict=True)
            if known.rival is not None:
                await _end_of(known.rival, ends_at)
                continue
            states: list[Settled] = []
            if known.fresh:
                states.append(await self._publish(identities, known.fresh, publish, ends_at))
                fresh = True
            states += [await _end_of(other, ends_at) for other in known.pending]
            if "failed" not in states:
                return _Verdict(fresh=fresh, spooled=known.spooled or "spooled" in states)

    async def _publish(
        self, identities: Sequence[Identity], fresh: tuple[int, ...], publish: Publish, ends_at: float
    ) -> Durable:
        try:
            left_s = _left_s(ends_at)
            ending = publish(fresh)
        except BaseException:
            for n in fresh:  # as above
                self.known_ids.settled(identities[n], "failed")
            raise
        if left_s > self.deadline_s - SLACK_S:
            return await ending
        try:
            # The publisher still reports the outcome to `KnownIds`, even if late.
            return await asyncio.wait_for(ending, left_s)
        except TimeoutError:
            raise NotDurableError("deadline") from None


async def _end_of(other: asyncio.Future[Settled], ends_at: float) -> Settled:
    """Wait for the outcome of another delivery without cancelling it."""
    await asyncio.wait({other}, timeout=_left_s(ends_at))
    if not other.done():
        raise NotDurableError("deadline")
    return other.result()


def _left_s(ends_at: float) -> float:
    left_s = ends_at - asyncio.get_running_loop().time()
    if left_s <= 0:
        raise NotDurableError("deadline")
    return left_s
