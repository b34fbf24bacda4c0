"""The tour notices what is not as it should be: a demo that cannot fail shows nothing."""

import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest
from rich.console import Console

from bridge.dev.demo import Tour
from bridge.dev.demo_screen import Screen
from bridge.dev.demo_witness import Seen
from bridge.dev.generator import Outgoing, a_cast
from bridge.dev.simulator import Answer, Reply
from bridge.dev.story import Life
from bridge.dev.story_plots import mail_order
from bridge.ingress.profiles import drx_standard
from bridge.ingress.profiles.profile import Mapped
from bridge.ingress.strict_json import parse
from bridge.kafka.routing import partition
from tests.builders import a_delivery

PARTITIONS = 12
Change = Callable[[Seen], Seen | None]


def a_life() -> list[dict[str, Any]]:
    rng = random.Random(5)  # noqa: S311 - a story
    life = Life(a_cast(rng), rng=rng, starts_at=datetime(2026, 9, 1, tzinfo=UTC))
    mail_order(life)
    return life.events


@dataclass
class Bridge:
    """Answers and writes as the real one would; `spoil` changes, or loses, each record on its way."""

    spoil: Change = lambda seen: seen
    accepts: Callable[[Reply], Reply] = lambda reply: reply
    genuine: bool = True
    log: list[Seen] = field(default_factory=list)

    async def deliver(self, outgoing: Outgoing) -> Answer:
        """Take one delivery."""
        reply, seen = self._taken(outgoing) if self.genuine else (Reply(401, "refused", "signature_mismatch", 0), None)
        if seen is not None and (kept := self.spoil(seen)) is not None:
            self.log.append(kept)
        return Answer(outgoing.id, self.accepts(reply), (), {})

    async def find(self, delivery_id: str) -> list[Seen]:
        """Find the records of one delivery."""
        return [seen for seen in self.log if seen.headers["ce_id"] == delivery_id]

    async def everything(self) -> list[Seen]:
        """Read it all."""
        return list(self.log)

    def _taken(self, outgoing: Outgoing) -> tuple[Reply, Seen]:
        delivery = a_delivery(outgoing.body, id=outgoing.id)
        document = parse(outgoing.body)
        if not isinstance(document, dict):
            topic = "drx.unrecognized.v1"
            value: dict[str, Any] = {"body": outgoing.body}
            return Reply(202, "parked", "malformed_json", 0), self._seen(topic, outgoing.id, outgoing, value, "")
        mapped = drx_standard.map(delivery, document)
        assert isinstance(mapped, Mapped)
        (event,) = mapped.events
        seen = self._seen("drx.prescriptions.v1", event.key, outgoing, dict(event.value), event.type)
        return Reply(200, "accepted", "", 0), seen

    def _seen(self, topic: str, key: str, outgoing: Outgoing, value: dict[str, Any], event_type: str) -> Seen:
        time = json.loads(outgoing.body)["timestamp"] if event_type else ""
        headers = {
            "ce_specversion": "1.0",
            "ce_id": outgoing.id,
            "ce_type": event_type,
            "ce_source": "drx",
            "ce_subject": key,
            "ce_time": time,
            "drx_schema": "drx.v1.X",
            "drx_body_sha256": sha256(outgoing.body).hexdigest(),
        }
        place = partition(key.encode(), PARTITIONS)
        return Seen(topic, place, len(self.log), key, headers, outgoing.body, "drx.v1.X", value)


async def toured(bridge: Bridge, *, forger: Bridge | None = None) -> list[str]:
    """Take the whole tour; the differences it found."""
    events = a_life()
    screen = Screen(Console(file=io.StringIO()))
    forger = forger or Bridge(genuine=False)
    tour = Tour(screen=screen, sender=bridge, forger=forger, witness=bridge, partitions=PARTITIONS)
    await tour.life(events[:-1])
    await tour.forged(events[-1] | {"id": "evt_forged"}, marker="evt_forged")
    await tour.broken(Outgoing("evt_broken", b'{"id": "evt_bro'))
    screen.close()
    assert screen.checked > 40
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
