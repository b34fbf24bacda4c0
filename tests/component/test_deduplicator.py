"""One deadline for one delivery, however many others it waits for."""

import asyncio
from collections.abc import Awaitable

import pytest

from bridge.errors import NotDurableError
from bridge.event import Delivery, Durable, Event, Identity, ParkReason, Settled
from bridge.ingress.deduplicator import Deduplicator
from bridge.known.known_ids import KnownIds
from tests.builders import a_delivery, an_event

DEADLINE_S = 4.0
FIRST, OTHER = a_delivery(b"first", id="evt_1"), a_delivery(b"other", id="evt_1")
EVENTS = (an_event(id="evt_1", source=FIRST.source),)


class SlowPublisher:
    """Accepts every delivery; a test sets the outcomes."""

    def __init__(self) -> None:
        self.taken: list[asyncio.Future[Durable]] = []

    def publish(self, delivery: Delivery, outcome: tuple[Event, ...] | ParkReason) -> Awaitable[Durable]:
        del delivery, outcome
        self.taken.append(asyncio.get_running_loop().create_future())
        return self.taken[-1]


async def code_of(once: Deduplicator, delivery: Delivery) -> str:
    """Deliver as the ingress does; return why it was not taken."""
    ends_at = once.ends_at()
    try:
        if await once.take(delivery, EVENTS, ends_at=ends_at) == "conflict":
            await once.park(delivery, ParkReason("id_conflict"), ends_at=ends_at)
    except NotDurableError as exc:
        return exc.code
    return ""


@pytest.mark.virtual_time
@pytest.mark.parametrize(("first_ends", "again"), [("failed", FIRST), ("failed", OTHER), ("committed", OTHER)])
async def test_who_waited_for_another_has_no_deadline_of_its_own_afterwards(
    first_ends: Settled, again: Delivery
) -> None:
    loop, publisher = asyncio.get_running_loop(), SlowPublisher()
    known_ids = KnownIds(windows_s={FIRST.source: 3600}, capacity=1000, now=loop.time)
    once = Deduplicator(publisher=publisher, known_ids=known_ids, deadline_s=DEADLINE_S)
    first = asyncio.create_task(once.take(FIRST, EVENTS, ends_at=once.ends_at()))
    await asyncio.sleep(1)
    began = loop.time()
    second = asyncio.create_task(code_of(once, again))
    await asyncio.sleep(2)
    known_ids.settled(Identity(FIRST.source, "evt_1", FIRST.body_sha256), first_ends)
    publisher.taken[0].set_result("committed")
    await first

    assert await second == "deadline"
    assert loop.time() - began == pytest.approx(DEADLINE_S)
    assert len(publisher.taken) == 2
