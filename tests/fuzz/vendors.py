"""Any edit of a vendor's sample: events that survive their way to Kafka and keep what the body says, or a reason."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from bridge.event import Delivery, ParkReason
from bridge.ingress.json_body import parse, to_json_text
from bridge.ingress.profiles.lookup import load_profile
from bridge.ingress.profiles.profile import Mapped, Profile
from tests.fuzz.choices import Choices
from tests.fuzz.mapping import edit, value_of
from tests.profile_properties import assert_closed, assert_writable, holders
from tests.unit.profile_documents import SAMPLES, a_delivery

WORDS = (
    *(b"QueueID", b"queueid", b"StoreID", b"RxStatus", b"Statuswf", b"TrackingNumber", b"DeliveredDate", b"SSN"),
    *(b"EventType", b"PrescriptionStatus", b"MedicationStatus", b"StatusDateTime", b"9/18/2026 5:22 PM", b"Packed"),
    *(b"photon:order:placed", b"photon:order:fulfillment", b"fills", b"prescription", b"externalId", b"state"),
)
CANARY = "CANARY-7"
SAMPLES_OF = {
    "digitalrx_pharmacy": "p0?_flat_*.json",
    "dosespot_push": "p1?_dosespot_*.json",
    "photon_cloudevents": "p16_*",
}
# Whether a profile keeps nothing of what these steps lead to: DigitalRX by these names, said here a second time.
NOWHERE = re.compile(r"socialsecurity|insurance|employer|injury|^ssn|ssn$|(?<![aeiou])ssn")
WORD = re.compile(r"(?<![A-Z])SSN(?![a-z])|Ssn(?![a-z])|(?<![A-Za-z])ssn(?![A-Za-z])")
DROPPED: dict[str, Callable[[tuple[str, ...]], bool]] = {
    "digitalrx_pharmacy": lambda steps: any(map(is_dropped, steps)),
    "dosespot_push": lambda _: False,
    "photon_cloudevents": lambda steps: steps in (("subject",), ("specversion",)),
}
DRIFTED = ("PatientSSN", "social_security_number", "date-of-injury", "EmployerName", "InsuranceID", "BusinessName")
# The events of DoseSpot and Photon, and states that a table of Photon's knows.
STATUSES = (1, 2, 4, 6, 9, 10, 11, 13, 3, "4", "eRxSent", 8, 12, "CancelDenied")
TYPES = ("placed", "rerouted", "canceled", "completed", "fulfillment", "created")


@cache
def samples(profile: str) -> list[dict[str, Any]]:
    found = [parse(path.read_bytes()) for path in sorted(SAMPLES.glob(f"profiles/{SAMPLES_OF[profile]}"))]
    return [one for one in found if isinstance(one, dict)]


def is_dropped(name: str) -> bool:
    plain = "".join(filter(str.isalnum, name.casefold()))
    return bool(NOWHERE.search(plain) or ("ssn" in plain and WORD.search(name)))


@cache
def profile_of(name: str) -> Profile:
    return load_profile(name, {"account_id": "acct_1"})


def check_digitalrx(content: bytes) -> None:
    choices = Choices(content)
    document: Any = a_document(choices, "digitalrx_pharmacy")
    if isinstance(holder := choices.one(holders(document) or [document]), dict) and choices.truth():
        holder[choices.one(DRIFTED)] = choices.text(6)
    if choices.below(4) == 0:
        document = [document, *(a_document(choices, "digitalrx_pharmacy") for _ in range(choices.below(3)))]
    check(choices, "digitalrx_pharmacy", document)


def check_dosespot(content: bytes) -> None:
    choices = Choices(content)
    document = a_document(choices, "dosespot_push")
    if isinstance(data := document.get("Data"), dict) and choices.truth():
        data[choices.one(("PrescriptionStatus", "MedicationStatus", "Status"))] = choices.one(STATUSES)
    check(choices, "dosespot_push", document)


def check_photon(content: bytes) -> None:
    choices = Choices(content)
    document = a_document(choices, "photon_cloudevents")
    if choices.truth():
        document["type"] = f"photon:order:{choices.one(TYPES)}"
    check(choices, "photon_cloudevents", document)


def a_document(choices: Choices, profile: str) -> dict[str, Any]:
    document = copy.deepcopy(choices.one(samples(profile)))
    for _ in range(choices.below(5)):
        if document:
            edit(choices, document)
    return document


def check(choices: Choices, name: str, document: Any) -> None:
    steps = hide(choices, document)
    body = to_json_text(document).encode()
    profile = profile_of(name)
    parsed = parse(body, arrays=getattr(profile, "ARRAYS", False))
    if isinstance(parsed, ParkReason):  # edits may nest deeper than a body may be
        assert parsed.detail == "depth"
        return
    outcome = map_with(profile, a_delivery(body, id="dlv_1"), parsed)
    assert_closed(outcome)
    if isinstance(outcome, Mapped):
        assert_sound(outcome)
        kept = CANARY in repr([event.value for event in outcome.events])
        # Where another member happens to say the same, the record tells nothing about the hidden one.
        if steps and body.count(CANARY.encode()) == 1:
            assert kept != DROPPED[name](steps)


def map_with(profile: Profile, delivery: Delivery, document: dict[str, object]) -> Mapped | ParkReason:
    before = to_json_text(document)
    outcome = profile.map(delivery, document)
    assert to_json_text(document) == before
    return outcome


def assert_sound(mapped: Mapped) -> None:
    assert len({event.id for event in mapped.events}) == len(mapped.events) > 0
    for event in mapped.events:
        is_of_account = event.type == "other.reported" and event.value["prescription_id"] is None
        form = r"[A-Za-z0-9._:-]+" if is_of_account else r"(?:q|ds|ph):(?:[A-Za-z0-9._:-]|%3A)+"
        assert re.fullmatch(form, event.key)
        assert len(event.key) <= 128
        assert_writable(event)


def hide(choices: Choices, document: Any) -> tuple[str, ...]:
    """Put a canary into one place, and return the steps to it; none if there is no place for one."""
    places = holders(document)
    if not places or choices.truth():
        return ()
    holder: Any = choices.one(places)
    place: Any = choices.one(list(holder)) if isinstance(holder, dict) else choices.below(len(holder))
    is_inner = not choices.below(4)
    holder[place] = {"inner": [CANARY, value_of(choices, 1)]} if is_inner else CANARY
    way = next(way for way, node in walk(document) if node is holder)
    return (*way, str(place), *(("inner", "0") if is_inner else ()))


def walk(node: Any, way: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield each object and array with the steps to it."""
    if isinstance(node, dict | list):
        yield way, node
        for name, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from walk(child, (*way, str(name)))
