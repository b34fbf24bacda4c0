"""Events with only the required fields of nested records, as real vendors send them, or with all; and the samples'."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal, get_args, get_origin, get_type_hints

from bridge.contract.events import EVENT_MODELS
from bridge.contract.fields import ContractRecord
from bridge.event import Event
from bridge.mapping.profile import Mapped
from consumers.testing import _PLAIN, WHEN, _bare, an_event
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


def whole_events() -> Iterator[Event]:
    """Return one event of each type about a prescription with every field, cancellations last; texts name their field.

    They are a minute apart.
    """
    own = {"event_id", "event_type", "contract_version", "occurred_at", "received_at", "source", "prescription_id"}
    types = [each for each, model in EVENT_MODELS.items() if "patient" in model.model_fields]
    for minute, event_type in enumerate(sorted(types, key=lambda each: each.startswith("cancel."))):
        fields: dict[str, Any] = {
            name: value for name, value in _whole(EVENT_MODELS[event_type]).items() if name not in own
        }
        yield an_event(event_type, id=f"evt_{event_type}", at=WHEN + timedelta(minutes=minute), **fields)


def _whole(model: type[ContractRecord], of: str = "") -> dict[str, object]:
    kinds = {name: _bare(hint) for name, hint in get_type_hints(model).items() if name in model.model_fields}
    return {name: _value(kind, f"{of}{name}") for name, kind in kinds.items() if not name.startswith("raw_")}


def _value(kind: Any, name: str) -> object:
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if get_origin(kind) is list:
        return [_value(_bare(get_args(kind)[0]), name)]
    if isinstance(kind, type) and issubclass(kind, ContractRecord):
        return _whole(kind, f"{name}.")
    return _PLAIN.get(kind, name)


def sample_events() -> Iterator[Event]:
    """Return every native sample event, with a unique id, and the incomplete ones."""
    for number, path in enumerate(sorted(SAMPLES.glob("native/*.json"))):
        outcome = map_body(path.read_bytes(), id=f"sample_{number}")
        if isinstance(outcome, Mapped):
            yield from outcome.events
    yield from incomplete_events()
