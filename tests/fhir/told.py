"""FHIR resources of samples, scenarios and orders of events; `python -m tests.fhir.told` writes golden files."""

import json
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from bridge.event import Event
from bridge.mapping.profile import Mapped
from consumers.fhir.bundle import composed
from consumers.fhir.elements import Naming, reference
from consumers.fhir.mapping import Resource, provenance, resources, targets
from consumers.lifecycle.facts import Document, blank
from consumers.lifecycle.machines import apply
from consumers.lifecycle.whole import note_whole
from consumers.testing import WHEN, an_event
from tests.incomplete import whole_events
from tests.prescriptions import SCENARIOS, scenario
from tests.unit.profile_documents import SAMPLES, map_body

GOLDEN = SAMPLES.parent / "fhir"
NAMING = Naming("urn:drx:", mrn="urn:drx:mrn", patient="urn:drx:patient")
SOURCE = "urn:drx:source:drx"
# Not about an order; the consumer ignores them.
_NOT_ORDERS = {"other.reported", "prescriber.enrollment_changed", "system.ping"}
# 300 kB of one note, with no other content of interest.
_HUGE = "06_huge_note_300kb"
# FHIR cannot represent its content: it is parked.
REFUSED = "26_nul_character"


def of_orders(events: Iterable[Event]) -> list[Event]:
    return [event for event in events if event.type not in _NOT_ORDERS]


def documents(events: Iterable[Event]) -> dict[str, Document]:
    found: dict[str, Document] = {}
    for event in events:
        apply(found.setdefault(event.key, blank()), event, note=note_whole)
    return found


def told(events: Iterable[Event]) -> list[dict[str, Any]]:
    """Return the resources of events, each after those it refers to; Provenances in the order of events."""
    known = {event.id: event for event in of_orders(events)}
    facts: dict[str, Document] = {}
    said: dict[str, list[Resource]] = {}
    origins: list[Resource] = []
    for event in known.values():
        apply(facts.setdefault(event.key, blank()), event, note=note_whole)
        before, after = said.get(event.key, []), resources(event.key, facts[event.key], NAMING)
        said[event.key] = after
        changed = targets(event, before, after)
        target = [reference(each.type, each.id) for each in after if each.id in changed]
        origin = provenance(event, NAMING)
        origins += [origin._replace(elements={"target": target, **origin.elements})] if target else []
    found = [each for key in said for each in said[key]]
    return [composed(each, {}, source=SOURCE) for each in [*found, *origins]]


def samples() -> Iterator[tuple[str, list[Event]]]:
    for path in sorted([*SAMPLES.glob("native/*.json"), *SAMPLES.glob("edge/*.json")]):
        outcome = map_body(path.read_bytes())
        if isinstance(outcome, Mapped) and path.stem != REFUSED:
            yield f"{path.parent.name}-{path.stem}", list(outcome.events)
    for name in SCENARIOS:
        yield f"scenario-{name}", scenario(name)[0]
    fields: dict[str, Any] = {
        "fill_status": "partially_dispensed",
        "medication_dispensed": {"days_supply": 7},
        "fill_date": WHEN.date(),
        "note": " ",
    }
    late = an_event("fill.status_changed", id="evt_late", at=WHEN + timedelta(hours=1), **fields)
    yield "whole", [*whole_events(), late]


def golden_of(events: Iterable[Event]) -> str:
    return json.dumps(told(events), indent=1, ensure_ascii=False) + "\n"


def write_all(directory: Path = GOLDEN) -> None:
    """Rewrite every file, to be reviewed with the change."""
    directory.mkdir(exist_ok=True)
    for path in directory.glob("*.json"):
        path.unlink()
    for name, events in samples():
        if not name.endswith(_HUGE):
            (directory / f"{name}.json").write_text(golden_of(events))


if __name__ == "__main__":
    write_all()
