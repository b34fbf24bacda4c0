"""Map a prescription's facts to FHIR R4: a pure function of its document, whatever the order of its events.

| event | MedicationRequest of the order | others |
|---|---|---|
| prescription.* | the order and its status | Task `fulfill` |
| epcs.* | `active` once signed | Task `fulfill`; a signature: the prescriber in the Provenance |
| renewal.*, change.* | `stopped` if replaced | Task `approve` or `change`; the proposals, each a MedicationRequest |
| cancel.* | `cancelled`, or `stopped` unless the whole order is known to be meant | Task `abort` |
| fill.*, fulfillment.*, shipment.* | `stopped` if all lines are rejected, `completed` by setting | MedicationDispense |
| alert.raised | | Communication |
| a fill after an approved cancellation | | Flag |

Each event that changes something has one Provenance, and so has each signature.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from bridge.event import Event
from consumers.fhir import dispenses, orders, tasks
from consumers.fhir import elements as fhir
from consumers.fhir.elements import Element, Naming
from consumers.fhir.orders import Subject, order_id
from consumers.lifecycle.facts import Document
from consumers.lifecycle.roll_up import roll_up
from consumers.lifecycle.safety import DISPENSED_AFTER_CANCEL
from consumers.lifecycle.whole import newest_of

COMMUNICATION, FLAG, PROVENANCE = "Communication", "Flag", "Provenance"
# A resource that the facts no longer support is not deleted but gets this status.
_WITHDRAWN = {FLAG: "inactive", orders.TYPE: "cancelled"}


class Resource(NamedTuple):
    """The part of a resource that we write."""

    type: str
    id: str
    elements: Element  # elements that we own, and our items of shared lists; without type, id and meta
    partial: bool = False  # our elements that are missing in `elements` stay on the server as they are


def resources(
    key: str, document: Document, naming: Naming, *, patient: Element | None = None, complete: bool = False
) -> list[Resource]:
    """Return a prescription's resources, each after those it refers to; `PermanentError` if FHIR cannot hold one."""
    subject = Subject(key, document, roll_up(document), naming, found=patient, complete=complete)
    order = [(order_id(key, naming), orders.order(subject))] if subject.orders else []
    found = [Resource(orders.TYPE, *each) for each in (*order, *orders.proposals(subject))]
    found += [Resource(tasks.TYPE, *each) for each in tasks.tasks(subject)]
    found += [Resource(dispenses.TYPE, *each) for each in dispenses.dispenses(subject)]
    found += _communications(subject)
    if DISPENSED_AFTER_CANCEL in subject.state.safety:
        found.append(_flag(subject))
    return found


def withdrawn(resource_type: str, resource_id: str) -> Resource | None:
    """Return the update that withdraws a resource which the facts no longer support."""
    status = _WITHDRAWN.get(resource_type)
    return None if status is None else Resource(resource_type, resource_id, {"status": status}, partial=True)


def targets(event: Event, before: Sequence[Resource], after: Sequence[Resource]) -> set[str]:
    """Return the ids of the resources that an event changes."""
    changed = {each.id for each in after if each not in before}
    signed = {each.id for each in after[:1] if _signer(event)}  # the order comes first
    return changed | signed


def provenance(event: Event, naming: Naming) -> Resource:
    """Return the Provenance of an event's changes, without its targets."""
    signer = _signer(event)
    activity = "Electronic signature of a controlled substance prescription" if signer else event.type
    source = {"identifier": {"system": naming.system("source"), "value": event.source}}
    agents = [{"type": fhir.concept(fhir.coding(fhir.PARTICIPANT, "assembler")), "who": source}]
    if signer:
        agents.append({"type": fhir.concept(fhir.coding(fhir.PARTICIPANT, "attester")), "who": signer})
    elements = fhir.pruned(
        occurredDateTime=_moment(event.occurred_at),
        recorded=_moment(event.received_at),
        activity=fhir.concept(text=activity),
        agent=agents,
        entity=[{"role": "source", "what": {"identifier": {"system": naming.system("event"), "value": event.id}}}],
    )
    return Resource(PROVENANCE, naming.id("provenance", event.source, event.id), elements)


def _signer(event: Event) -> Element:
    value: Mapping[str, Any] = event.value
    return fhir.practitioner(value.get("prescriber")) if event.type == "epcs.signed" else {}


def _communications(subject: Subject) -> list[Resource]:
    return [
        Resource(
            COMMUNICATION,
            subject.naming.id("alert", subject.key, alert_id),
            fhir.pruned(
                identifier=subject.naming.identifier("alert", alert_id),
                status="completed",
                category=[fhir.concept(fhir.coding(fhir.COMMUNICATION_CATEGORY, "alert"))],
                subject=subject.patient,
                about=subject.orders,
                sent=fhir.instant(stamp[0]),
                reasonCode=[
                    fhir.concept(each)
                    for name in ("category", "severity")
                    if (each := fhir.coding(subject.naming.system(f"alert-{name}"), fields[name]))
                ],
                payload=[{"contentString": fields["message"]}] if fhir.filled(fields.get("message")) else [],
            ),
        )
        for alert_id, (stamp, fields) in sorted(newest_of(subject.document, "alert.raised").items())
    ]


def _flag(subject: Subject) -> Resource:
    return Resource(
        FLAG,
        subject.naming.id("flag", subject.key, DISPENSED_AFTER_CANCEL),
        fhir.pruned(
            identifier=subject.naming.identifier("safety-signal", f"{subject.key}/{DISPENSED_AFTER_CANCEL}"),
            status="active",
            category=[fhir.concept(fhir.coding(fhir.FLAG_CATEGORY, "safety"))],
            code=fhir.concept(
                fhir.coding(subject.naming.system("safety-signal"), DISPENSED_AFTER_CANCEL),
                text="Dispensed after the pharmacy approved the cancellation",
            ),
            subject=subject.patient or fhir.absent(),
        ),
    )


def _moment(moment: datetime) -> str:
    return fhir.instant(f"{moment.isoformat(timespec='microseconds')[:26]}Z")
