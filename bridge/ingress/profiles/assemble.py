"""Turn a native document into an event: the one way from any source's dialect to a record of the contract.

A profile finds out what a body says, in the words of native DRx: which of the twenty types, which key, which `data`.
That is a `Native`. `assemble` reads its `data` by the plan of its type, so that enums, decimals, instants, ranges and
their leniencies are the same for every source and no profile knows Avro.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from bridge.contract.envelope import VERSION, EventRecord, PrescriptionRecord
from bridge.contract.events import EVENT_MODELS
from bridge.event import AHEAD_MAX, Delivery, Event
from bridge.ingress.profiles.plan import Members, Pass, blank_record, compile_members


class Native(NamedTuple):
    """A native document: one event as DRx itself would have said it.

    Attributes:
        type: One of the twenty types.
        key: Record key, checked.
        id: Event id.
        time: When it happened, aware UTC.
        data: Member of the contract -> JSON value.
        leading: Leading fields of the record that the source says: at least `account_id`.
    """

    type: str
    key: str
    id: str
    time: datetime
    data: dict[str, object]
    leading: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that depends on the type of an event.

    Attributes:
        blank: The record with nothing read but what every event of the type says.
        members: The members of `data`.
    """

    blank: dict[str, object]
    members: Members


_LEADING = frozenset(EventRecord.model_fields)


def _compile_plan(event_type: str, model: type[EventRecord]) -> Plan:
    without = _LEADING | {"extensions"}
    if issubclass(model, PrescriptionRecord):
        without -= {"prescription_id"}
    blank = blank_record(model) | {"event_type": event_type, "contract_version": VERSION}
    return Plan(blank, compile_members(model, "/data", without=without))


PLANS: Mapping[str, Plan] = MappingProxyType(
    {event_type: _compile_plan(event_type, model) for event_type, model in EVENT_MODELS.items()}
)


def assemble(delivery: Delivery, native: Native, run: Pass) -> Event:
    """Read the document into the record of its type; if `run` has a fault then, the event means nothing.

    Args:
        delivery: Its source, environment and receipt go into the record.
        native: The document.
        run: Faults, leniencies and unknown members are noted here; its `extensions` become the event's.
    """
    plan = PLANS[native.type]
    value = plan.blank.copy()
    value.update(native.leading)
    value["event_id"] = native.id
    value["occurred_at"] = native.time
    value["received_at"] = delivery.received_at
    value["source"] = delivery.source
    value["environment"] = delivery.environment
    value["extensions"] = run.extensions
    plan.members.read(native.data, value, run)
    if native.time - delivery.received_at > AHEAD_MAX:
        run.flags.add("timestamp_ahead")
    return Event(
        id=native.id,
        type=native.type,
        source=delivery.source,
        key=native.key,
        occurred_at=native.time,
        received_at=delivery.received_at,
        value=value,
    )
