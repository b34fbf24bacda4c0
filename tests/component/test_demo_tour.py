"""The tour notices what is not as it should be: a demo that cannot fail shows nothing."""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from rich.console import Console

from bridge.dev.demo import Tour
from bridge.dev.demo_acts import ACTS
from bridge.dev.demo_hands import Output
from bridge.dev.demo_outage import OutageTour
from bridge.dev.demo_poison import PoisonTour
from bridge.dev.demo_read_model import tour_timeline
from bridge.dev.demo_repeats import tour_repeats
from bridge.dev.demo_screen import Screen
from bridge.dev.demo_witness import Seen
from bridge.dev.simulator import Reply
from bridge.dev.story import Outgoing
from tests.demo_world import PARTITIONS, Bridge, Change, ReadModel, a_life


@dataclass
class Spoiled:
    """A part whose answers to one question are changed."""

    part: Any
    question: str
    change: Callable[[Any], Any]

    def __getattr__(self, name: str) -> Any:
        """Give what the part has, but spoiled."""
        found = getattr(self.part, name)
        if name != self.question:
            return found

        async def ask(*arguments: Any, **named: Any) -> Any:
            return self.change(await found(*arguments, **named))

        return ask


async def toured(bridge: Bridge, *, forger: Bridge | None = None) -> list[str]:
    """Take the tour to Kafka; the differences it found."""
    events = a_life()
    screen = Screen(Console(file=io.StringIO()))
    forger = forger or Bridge(genuine=False)
    tour = Tour(
        screen=screen,
        sender=bridge,
        forger=forger,
        witness=bridge,
        model=ReadModel(Bridge()),
        partitions=PARTITIONS,
    )
    await tour.life(events[:-1])
    await tour.forged(events[-1] | {"id": "evt_forged"}, marker="evt_forged")
    await tour.broken(Outgoing("evt_broken", b'{"id": "evt_bro'))
    screen.close()
    assert screen.checked > 40
    return screen.differences


async def toured_on(bridge: Bridge, model: Any, *, forge: bool = False) -> list[str]:
    """Take the tour through PostgreSQL, whose differences are told."""
    screen, unseen = (Screen(Console(file=io.StringIO())) for _ in range(2))
    life, sick, well = a_life(1), a_life(2), a_life(3)
    tour = Tour(screen=unseen, sender=bridge, forger=bridge, witness=bridge, model=model, partitions=PARTITIONS)
    lived = await tour.life(life)
    if forge:
        await tour.forged(life[-1] | {"id": "evt_forged"}, marker="evt_forged")
    await tour_timeline(lived, screen=screen, model=model)
    poison = PoisonTour(
        screen=screen,
        sender=bridge,
        model=model,
        intruder=bridge,
        operator=model,
        sick=sick,
        well=well,
        partitions=PARTITIONS,
    )
    await poison.put_right(await poison.poisoned())
    screen.close()
    assert screen.checked > 20
    return screen.differences


async def toured_without_kafka(bridge: Bridge, *, model: Any = None, **spoiled: Any) -> list[str]:
    """Take the tour through an outage and its repeats; `spoiled` parts stand in for the bridge."""
    screen = Screen(Console(file=io.StringIO()))
    model = model or ReadModel(bridge)
    parts = dict.fromkeys(("sender", "witness", "brokers", "disk", "operator"), bridge) | spoiled
    tour = OutageTour(screen=screen, model=model, lives=[a_life(1), a_life(2)], **parts)
    outlasted = await tour.outage()
    sender, witness = parts["sender"], parts["witness"]
    await tour_repeats(outlasted, screen=screen, sender=sender, witness=witness, model=model)
    screen.close()
    assert screen.checked > 20
    return screen.differences


def of(event_type: str, change: Change) -> Change:
    """Apply a change to the records of one type."""
    return lambda seen: change(seen) if seen.headers["ce_type"] == event_type else seen


def headers(**changes: str) -> Change:
    return lambda seen: replace(seen, headers={**seen.headers, **changes})


def values(**changes: object) -> Change:
    return lambda seen: replace(seen, value={**seen.value, **changes})


async def test_a_tour_of_a_good_bridge_finds_no_difference() -> None:
    assert await toured(Bridge()) == []


@pytest.mark.parametrize(
    "spoil",
    [
        of("prescription.created", lambda _: None),
        of("prescription.sent", lambda _: None),
        of("prescription.created", lambda seen: replace(seen, partition=seen.partition + 1)),
        of("prescription.sent", lambda seen: replace(seen, topic="drx.accounts.v1")),
        of("prescription.sent", lambda seen: replace(seen, key="rx_other")),
        of("prescription.created", headers(ce_type="prescription.sent")),
        of("prescription.sent", headers(drx_body_sha256="00")),
        of("prescription.sent", headers(ce_time="2026-01-01T00:00:00Z")),
        of("prescription.created", values(account_id="acct_other")),
        of("fill.status_changed", values(quantity_dispensed=None)),
        of("shipment.status_changed", values(extensions={"/data/x": "1"})),
        of("", values(body=b'{"id": "evt_br')),
        of("", lambda _: None),
        of("", lambda seen: replace(seen, key="rx_other")),
    ],
)
async def test_a_record_that_is_not_as_it_should_be_is_a_difference(spoil: Change) -> None:
    assert await toured(Bridge(spoil=spoil)) != []


@pytest.mark.parametrize("reply", [Reply(500, "", "", 0), Reply(202, "spooled", "", 0), Reply(200, "duplicate", "", 0)])
async def test_another_answer_is_a_difference(reply: Reply) -> None:
    assert await toured(Bridge(accepts=lambda _: reply)) != []


async def test_a_repeated_record_is_a_difference() -> None:
    bridge = Bridge()

    def twice(seen: Seen) -> Seen:
        bridge.log.append(seen)
        return replace(seen, offset=seen.offset + 1)

    bridge.spoil = of("prescription.processed", twice)

    assert await toured(bridge) != []


async def test_a_forged_delivery_that_gets_through_is_a_difference() -> None:
    bridge = Bridge()

    assert await toured(bridge, forger=Bridge(log=bridge.log)) != []


def test_every_event_of_the_story_has_its_meaning() -> None:
    assert len(ACTS) == len(a_life())


async def test_a_tour_of_a_good_read_model_finds_no_difference() -> None:
    bridge = Bridge()

    assert await toured_on(bridge, ReadModel(bridge)) == []


async def test_a_forged_event_in_the_read_model_is_a_difference() -> None:
    bridge = Bridge()

    assert "the row is what the story ends with; the forged cancel has left no trace: events is 10, expected 9" in (
        await toured_on(bridge, ReadModel(bridge), forge=True)
    )


def words(**changes: str) -> Callable[[Any], Any]:
    return lambda row: row if row is None else row._replace(state={**row.state, **changes})


@pytest.mark.parametrize(
    ("question", "change", "difference"),
    [
        ("row", lambda _: None, "after each of the 9 events"),
        ("row", lambda row: row and row._replace(events=row.events - 1), "after each of the 9 events"),
        ("row", words(open_requests="rr_1"), "after event 1: open_requests"),
        ("row", words(display="sent"), "the row is what the story ends with"),
        ("history", lambda told: told[:-1], "the history has every event once"),
        ("history", lambda told: [*told, told[-1]], "the history has every event once"),
        ("history", lambda told: told[::-1], "the history has every event once"),
        ("history", lambda told: [told[0]._replace(place="x/0@0"), *told[1:]], "place is 'x/0@0'"),
        ("history", lambda told: [told[0]._replace(body={}), *told[1:]], "body differs"),
        ("applied", lambda ids: ids[::-1], "in the order in which it was sent"),
        ("applied", lambda ids: ids[:-1], "in the order in which it was sent"),
        ("parked", lambda _: [], "its key is parked"),
        ("parked", lambda waiting: waiting[::-1], "behind the poison its events wait in the order"),
        ("parked", lambda waiting: waiting[:2], "fulfillment.status_changed: waiting is 2, expected 3"),
        ("parked", lambda waiting: [each._replace(cls="bug") for each in waiting], "classes differs"),
        ("parked", lambda waiting: waiting or [None], "nothing of the prescription is parked any more"),
        ("decisions", lambda decided: decided[:1], "the audit has both decisions"),
        ("decisions", lambda decided: [each._replace(reason="") for each in decided], "the audit has both decisions"),
        ("run", lambda told: told._replace(code=2), "drx-consumer parked skip does as it should: exit code 2"),
        ("run", lambda told: told._replace(text="-"), "drx-consumer parked list does as it should"),
    ],
)
async def test_a_read_model_that_is_not_as_it_should_be_is_a_difference(
    question: str, change: Callable[[Any], Any], difference: str
) -> None:
    bridge = Bridge()

    found = await toured_on(bridge, Spoiled(ReadModel(bridge), question, change))

    assert [each for each in found if difference in each] != []


@pytest.mark.parametrize(
    ("behaviour", "difference"),
    [
        ({"parks": False}, "its key is parked"),
        ({"neighbours_wait": True}, "prescription.created: there is no row"),
        ({"releases": lambda waiting: waiting[::-1]}, "in the order in which it was sent: order differs"),
        ({"releases": lambda waiting: waiting[1:]}, "all that waited is applied"),
    ],
)
async def test_a_consumer_that_does_otherwise_is_a_difference(behaviour: dict[str, Any], difference: str) -> None:
    bridge = Bridge()

    found = await toured_on(bridge, ReadModel(bridge, **behaviour))

    assert [each for each in found if difference in each] != []


async def test_a_tour_through_an_outage_that_loses_nothing_finds_no_difference() -> None:
    assert await toured_without_kafka(Bridge()) == []


def last_first(spooled: list[Seen]) -> list[Seen]:
    return [*spooled[-1:], *spooled[:-1]]


@pytest.mark.parametrize(
    ("behaviour", "difference"),
    [
        ({"drains": lambda spooled: spooled[:-1]}, "4 records for 5 events"),
        ({"drains": lambda spooled: [*spooled, spooled[0]]}, "6 records for 5 events"),
        ({"drains": last_first}, "in the order in which they were sent: their places are"),
        ({"seals": False}, "none stands in any file: 1.segment tells one"),
        ({"knows": False}, "the repeat is not written again: 1 more on disk"),
        ({"knows": False}, "it is known: outcome is 'accepted'"),
        ({"knows": False}, "it is kept, apart from the events: status is 200"),
        ({"spoil": of("", lambda _: None)}, "the other body is in drx.unrecognized.v1"),
        ({"spoil": of("", values(body=b"{}"))}, "the other body is in drx.unrecognized.v1"),
        ({"spoil": of("prescription.processed", lambda _: None)}, "it holds 8 events: events is 6"),
    ],
)
async def test_a_bridge_that_does_otherwise_in_an_outage_is_a_difference(
    behaviour: dict[str, Any], difference: str
) -> None:
    found = await toured_without_kafka(Bridge(**behaviour))

    assert [each for each in found if difference in each] != []


@pytest.mark.parametrize(
    ("part", "question", "change", "difference"),
    [
        ("brokers", "answering", lambda _: ["127.0.0.1:1"], "no broker takes a connection: 127.0.0.1:1 does"),
        ("disk", "drained", lambda _: 3, "3 events are left"),
        ("operator", "run", lambda _: Output("spool status", "", 2), "it holds 8 events: exit code 2"),
        ("sender", "deliver", lambda answer: replace(answer, reply=Reply(503, "unavailable", "", 0)), "status is 503"),
    ],
)
async def test_an_outage_that_is_not_as_it_should_be_is_a_difference(
    part: str, question: str, change: Callable[[Any], Any], difference: str
) -> None:
    bridge = Bridge()

    found = await toured_without_kafka(bridge, **{part: Spoiled(bridge, question, change)})

    assert [each for each in found if difference in each] != []


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda _: None, "and in PostgreSQL"),
        (lambda row: row._replace(events=row.events + 1), "PostgreSQL knows nothing of it"),
    ],
)
async def test_a_read_model_that_missed_the_outage_is_a_difference(
    change: Callable[[Any], Any], difference: str
) -> None:
    bridge = Bridge()

    found = await toured_without_kafka(bridge, model=Spoiled(ReadModel(bridge), "row", change))

    assert [each for each in found if difference in each] != []
