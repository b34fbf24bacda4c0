import copy
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from bridge.avro.codec import Codec
from bridge.contract.native import native_json
from bridge.dev.story import deliveries
from bridge.event import Delivery
from bridge.ingress.json_body import parse
from bridge.ingress.profiles import drx_standard
from bridge.ingress.profiles.profile import Mapped
from bridge.registry.loader import bundled
from tests.builders import a_delivery
from tests.oracle.states import body_differences, record_differences

Sent = dict[str, Any]

LOCK = bundled()
CODEC = Codec(schemas=LOCK.schemas(), ids=LOCK.ids())


def mapped(body: bytes) -> Mapped:
    delivery: Delivery = a_delivery(body, id=json.loads(body)["id"])
    document = parse(body)
    assert isinstance(document, dict)
    found = drx_standard.map(delivery, document)
    assert isinstance(found, Mapped)
    return found


def read_back(body: bytes) -> dict[str, Any]:
    """What a reader of the topic gets: mapped, written and decoded."""
    (event,) = mapped(body).events
    record = next(name for name in LOCK.ids() if name.rpartition(".")[2] == type_name(event.type))
    return CODEC.decode(CODEC.encode(record, event.value)).value


def type_name(event_type: str) -> str:
    return "".join(part.capitalize() for part in event_type.replace(".", "_").split("_"))


def bodies() -> dict[str, bytes]:
    """One generated body of each type."""
    return {json.loads(each.body)["type"]: each.body for each in itertools.islice(deliveries(11), 200)}


BODIES = bodies()


@pytest.mark.parametrize("event_type", sorted(BODIES))
def test_a_generated_event_needs_no_leniency(event_type: str) -> None:
    """Otherwise the simulator would teach senders to lean on it."""
    found = mapped(BODIES[event_type])

    assert found.flags == ()
    assert found.extensions == 0


@pytest.mark.parametrize("event_type", sorted(BODIES))
def test_what_went_all_the_way_has_no_differences(event_type: str) -> None:
    body = json.loads(BODIES[event_type])

    value = read_back(BODIES[event_type])

    assert record_differences(body, value) == []


@pytest.mark.parametrize("event_type", sorted(BODIES))
def test_a_body_that_was_written_again_has_no_differences(event_type: str) -> None:
    (event,) = mapped(BODIES[event_type]).events

    assert body_differences(json.loads(BODIES[event_type]), json.loads(native_json(event.value))) == []


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ("id", "evt_other"),
        ("data/medication/coded/ndc", "591040701"),
        ("data/invented", 0),
    ],
)
def test_what_a_body_says_otherwise_is_named(path: str, new: object) -> None:
    sent = json.loads(BODIES["prescription.sent"])
    sent["data"]["medication"]["coded"] = {"ndc": "00591040701"}
    body = copy.deepcopy(sent)

    changed(path, new)(body)

    assert body_differences(sent, body) == [f"/{path}"]


def changed(path: str, new: object) -> Callable[[Sent], None]:
    def change(value: Sent) -> None:
        *parents, last = path.split("/")
        for parent in parents:
            value = value[parent]
        value[last] = new

    return change


@pytest.mark.parametrize(
    ("path", "new"),
    [
        ("event_id", "evt_other"),
        ("patient/date_of_birth", datetime(2026, 1, 1, tzinfo=UTC).date()),
        ("medication/quantity", Decimal(31)),
        ("medication/refills", 3.0),
        ("extensions", {"/data/x": "1"}),
        ("invented", 0),
    ],
)
def test_whatever_was_lost_changed_or_invented_is_named(path: str, new: object) -> None:
    body = json.loads(BODIES["prescription.sent"])
    value = copy.deepcopy(read_back(BODIES["prescription.sent"]))

    changed(path, new)(value)

    assert record_differences(body, value) == [f"/{path}"]
