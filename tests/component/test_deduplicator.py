"""One deadline for one delivery, however many others it waits for; time is virtual."""

import asyncio
from collections.abc import Awaitable, Iterator

import pytest

from bridge.errors import NotDurableError
from bridge.event import AnyEvent, Delivery, Durable, Identity, ParkReason
from bridge.ingress.deduplicator import Deduplicator
from bridge.known.known_ids import KnownIds
from tests.builders import a_delivery, an_event
from tests.virtual_time import VirtualLoop

DEADLINE_S = 4.0
FIRST, OTHER = a_delivery(b"first", id="evt_1"), a_delivery(b"other", id="evt_1")
EVENTS = (an_event(id="evt_1", source=FIRST.source),)


class SlowPublisher:
    """Takes everything and says nothing about it by itself."""

    def __init__(self) -> None:
        self.taken: list[asyncio.Future[Durable]] = []

    def publish(self, delivery: Delivery, outcome: tuple[AnyEvent, ...] | ParkReason) -> Awaitable[Durable]:
        del delivery, outcome
        self.taken.append(asyncio.get_running_loop().create_future())
        return self.taken[-1]


class Subject:
    def __init__(self, loop: VirtualLoop) -> None:
        self.publisher = SlowPublisher()
        self.dedupe = KnownIds(windows_s={FIRST.source: 3600}, capacity=1000, now=loop.time)
        self.once = Deduplicator(publisher=self.publisher, known_ids=self.dedupe, deadline_s=DEADLINE_S)

    async def code_of(self, delivery: Delivery) -> str:
        """Deliver as the ingress does; return why it was not taken."""
        ends_at = self.once.ends_at()
        try:
            if await self.once.take(delivery, EVENTS, ends_at=ends_at) == "conflict":
                await self.once.park(delivery, ParkReason("id_conflict"), ends_at=ends_at)
        except NotDurableError as exc:
            return exc.code
        return ""


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    made = VirtualLoop()
    yield made
    made.close()


@pytest.mark.parametrize(("first_ends", "again"), [("failed", FIRST), ("failed", OTHER), ("committed", OTHER)])
def test_who_waited_for_another_has_no_deadline_of_its_own_afterwards(
    loop: VirtualLoop, first_ends: str, again: Delivery
) -> None:
    async def play() -> tuple[str, float]:
        subject = Subject(loop)
        first = asyncio.create_task(subject.once.take(FIRST, EVENTS, ends_at=subject.once.ends_at()))
        await asyncio.sleep(1)
        began = loop.time()
        second = asyncio.create_task(subject.code_of(again))
        await asyncio.sleep(2)
        subject.dedupe.settled(Identity(FIRST.source, "evt_1", FIRST.body_sha256), first_ends)  # type: ignore[arg-type]  # one of the words
        subject.publisher.taken[0].set_result("committed")
        await first
        code = await second
        assert len(subject.publisher.taken) == 2
        return code, loop.time() - began

    code, took_s = loop.run(play())

    assert code == "deadline"
    assert took_s == pytest.approx(DEADLINE_S)
