"""Events with only the required fields of nested records, as real vendors send them; and those of the samples."""

from collections.abc import Iterator
from typing import Any

from bridge.contract.events import EVENT_MODELS
from bridge.event import Event
from bridge.mapping.profile import Mapped
from consumers.testing import an_event
from tests.unit.profile_documents import SAMPLES, map_body

NAMES: dict[str, Any] = {
    "patient": {"last_name": "Quintero"},
    "prescriber": {"last_name": "Okafor"},
    "pharmacy": {"name": "Maple Street Pharmacy"},
    "medication": {"description": "lisinopril 10 mg"},
    "medication_dispensed": {"description": "lisinopril 10 mg"},
    "medications_requested": [{"description": "lisinopril 5 mg"}],
}


def incomplete_events() -> Iterator[Event]:
    """Return one event of each type about a prescription."""
    for event_type, model in EVENT_MODELS.items():
        if "patient" in model.model_fields:
            yield an_event(event_type, **{name: said for name, said in NAMES.items() if name in model.model_fields})


def sample_events() -> Iterator[Event]:
    """Return every native sample event, with a unique id, and the incomplete ones."""
    for number, path in enumerate(sorted(SAMPLES.glob("native/*.json"))):
        outcome = map_body(path.read_bytes(), id=f"sample_{number}")
        if isinstance(outcome, Mapped):
            yield from outcome.events
    yield from incomplete_events()
