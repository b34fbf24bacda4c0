"""MedicationDispense: one for each fill, and one for each line of work inside a pharmacy.

The ordered medication is shown only while nothing has left the pharmacy, since it may dispense another product. No
event links a parcel to a line. The parcel is attributed to the newest line that was with the carrier or delivered
before the parcel's event, so a later refill never gets an earlier parcel.
"""

from typing import NamedTuple

from consumers.fhir import elements as fhir
from consumers.fhir.elements import Element
from consumers.fhir.orders import Subject
from consumers.lifecycle.facts import Document
from consumers.lifecycle.machines import FILL_ID
from consumers.lifecycle.whole import DELIVERIES, Fields, newest_of, shared

TYPE = "MedicationDispense"
_FILLED = {
    **dict.fromkeys(("dispensed", "partially_dispensed"), "completed"),
    "not_dispensed": "cancelled",
    "transferred": "stopped",
}
_WORKED_ON = {
    **dict.fromkeys(("received", "billing", "in_progress", "packed", "approved"), "preparation"),
    "on_hold": "on-hold",
    "rejected": "declined",
    "handed_to_carrier": "in-progress",
    "delivered": "completed",
}
# Statuses of a line that has left the pharmacy.
_LEFT = frozenset({"handed_to_carrier", "delivered"})
# Statuses after which the medication has left, or may have left, the pharmacy.
_HANDED_OUT = frozenset({"completed", "in-progress"})
# Acts of v3-ActCode: first fill or refill, complete or partial fill. For a fill with an id, number 0 means unknown.
_ACTS = {"dispensed": ("FFC", "RFC"), "partially_dispensed": ("FFP", "RFP")}


class _Parcel(NamedTuple):
    """The parcel of a line; the time is ISO 8601 with `Z`."""

    tracking_number: str = ""
    delivered: bool = False
    delivered_at: str | None = None


def dispenses(subject: Subject) -> list[tuple[str, Element]]:
    """Return the id and elements of each fill and line."""
    document = subject.document
    fills = [
        (subject.naming.id("fill", subject.key, name), _fill(subject, name, fields))
        for name, (_, fields) in sorted(newest_of(document, "fill.status_changed").items())
    ]
    lines = newest_of(document, "fulfillment.status_changed")
    parcels = _parcels(document)
    return fills + [
        (subject.naming.id("line", subject.key, queue), _line(subject, queue, fields, parcels.get(queue, _Parcel())))
        for queue, (_, fields) in sorted(lines.items())
    ]


def _fill(subject: Subject, name: str, fields: Fields) -> Element:
    word = fields["fill_status"]
    status = _FILLED[word]
    product = fields.get("medication_dispensed")
    act = _ACTS.get(word) if fields["fill_number"] or name == "0" else None
    handed_out = status in _HANDED_OUT
    note, elsewhere = fields.get("note"), fields.get("transferred_to_ncpdp_id")
    quantity = fhir.quantity(fields.get("quantity_dispensed"), (product or {}).get("quantity_unit"))
    reason: Element = {}
    if word == "not_dispensed":
        reason = fhir.concept(text=note)
    elif word == "transferred":
        reason = fhir.concept(text="Transferred" + (f" to the pharmacy with NCPDP id {elsewhere}" if elsewhere else ""))
    return fhir.pruned(
        identifier=subject.naming.identifier("fill", f"{subject.key}/{name.removeprefix(FILL_ID)}"),
        status=status,
        statusReasonCodeableConcept=reason,
        medicationCodeableConcept=_product(subject, product, handed_out=handed_out),
        subject=subject.patient,
        performer=_performer(fields),
        authorizingPrescription=subject.orders,
        type=fhir.concept(fhir.coding(fhir.ACT_CODE, act[fields["fill_number"] != 0])) if act is not None else {},
        quantity=quantity if handed_out else {},
        daysSupply=fhir.days((product or {}).get("days_supply")) if word == "dispensed" else {},
        whenPrepared=fields.get("fill_date") if handed_out else None,
        note=fhir.notes(note if word != "not_dispensed" else None),
    )


def _line(subject: Subject, queue_id: str, fields: Fields, parcel: _Parcel) -> Element:
    naming = subject.naming
    status = "completed" if parcel.delivered else _WORKED_ON[fields["fulfillment_status"]]
    reason = fields.get("raw_status") if status in {"on-hold", "declined"} else None
    return fhir.pruned(
        identifier=[
            *naming.identifier("queue", queue_id),
            *naming.identifier("pharmacy-rx-number", fields.get("pharmacy_rx_number")),
            *naming.identifier("tracking-number", parcel.tracking_number),
        ],
        status=status,
        statusReasonCodeableConcept=fhir.concept(text=reason),
        medicationCodeableConcept=_product(subject, None, handed_out=status in _HANDED_OUT),
        subject=subject.patient,
        performer=_performer(fields),
        authorizingPrescription=subject.orders,
        whenHandedOver=None if parcel.delivered_at is None else fhir.instant(parcel.delivered_at),
    )


def _parcels(document: Document) -> dict[str, _Parcel]:
    """Return each line's parcel: the newest delivered one, else the newest."""
    lines = newest_of(document, "fulfillment.status_changed")
    delivered = newest_of(document, DELIVERIES)
    parcels = {**newest_of(document, "shipment.status_changed"), **delivered}
    found: dict[str, _Parcel] = {}
    for number in sorted(parcels, key=lambda number: (number in delivered, parcels[number][0])):
        stamp, fields = parcels[number]
        left = [
            (line_stamp, queue)
            for queue, (line_stamp, line) in lines.items()
            if line["fulfillment_status"] in _LEFT and line_stamp < stamp
        ]
        if left:
            arrived = number in delivered
            found[max(left)[1]] = _Parcel(number, arrived, fields.get("delivered_at") if arrived else None)
    return found


def _product(subject: Subject, product: Fields | None, *, handed_out: bool) -> Element:
    return fhir.medication(product if product is not None or handed_out else shared(subject.document, "medication"))


def _performer(fields: Fields) -> list[Element]:
    """Return the event's pharmacy only, since it may differ from the order's."""
    actor = fhir.organization(fields.get("pharmacy"))
    return [{"actor": actor}] if actor else []
