"""Map an event to a message, or to none. Every attempt gives the same bytes.

A dispensed fill is RDS^O13; every other event is OMP^O09, with its kind as the control code in ORC-1. Old engines get
ORM^O01 instead, which lacks RXR. RDE is not used, since it requires the amount of one dose (RXE-3), which events lack.
An `UNKNOWN` value sends nothing, since it has no code.

A message never reactivates a cancelled order, since events may arrive late. After an approved cancellation, events
about writing, signing and transmission of the order are not sent. Other messages have the status of the cancellation.

Source: HL7 2.5.1, chapter 4; tables 0119 (order control) and 0038 (order status).
"""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from bridge.contract.fields import UNKNOWN
from bridge.contract.native import native
from bridge.event import Event
from consumers.hl7v2.options import Hl7Options
from consumers.hl7v2.segments import NULL, Formatted, MessageSegment, dropped, escape, write
from consumers.lifecycle.facts import Document, Stamp, newest
from consumers.lifecycle.machines import DELIVERED, REJECTED, is_transient_reject
from consumers.lifecycle.whole import Fields, note_shared, shared

VERSION = "2.5.1"
# MSH-10 has 20 characters, and event ids are longer: 60 bits of the id's digest, 40 of the message's.
EVENT_PART, _TEXT_PART = 12, 8
# Acknowledgements do not return a longer or escaped id unchanged.
_is_plain_id = re.compile(r"[!-%'-Z\]_`a-z{}][!-%'-Z\]_`a-z{}]{0,189}").fullmatch
_NPI = ("", "2.16.840.1.113883.4.6", "ISO")
# The values of table 0001 in the contract.
_SEXES = frozenset({"F", "M", "U"})


class Message(NamedTuple):
    """One message: its segments, and the number of characters removed because fields cannot hold them."""

    kind: str  # `OMP`, `ORM` or `RDS`
    control_id: str
    text: str
    dropped: int


@dataclass(frozen=True, slots=True)
class Order:
    """One ORDER group."""

    control: str = ""  # ORC-1, table 0119
    status: str = ""  # ORC-5, table 0038
    reason: str = ""  # ORC-16.1, a code of the network or of the contract
    why: str = ""  # ORC-16.2, text
    placer: str = ""  # ORC-2.1, the prescription's id
    filler: str = ""  # ORC-3.1, a number of the pharmacy, or the id of the request or fill
    medication: Fields | None = None
    refills: int | str | None = None  # RXO-13; None: the medication's; empty: unknown
    notes: tuple[str, ...] = ()  # one NTE each


@dataclass(frozen=True, slots=True)
class News:
    """The content of a message: orders, or one order with the data of a fill."""

    orders: tuple[Order, ...]
    fill: Fields | None = None
    ordered: bool = False  # the receiver knows the order after this message


@dataclass(frozen=True, slots=True)
class Input:
    """All inputs of the mapping of an event."""

    value: Mapping[str, Any]  # the event's record; unknown enum values are `UNKNOWN`
    data: Fields  # `data` of the event's native body; days, instants and decimals are strings
    order: Order  # known facts of its prescription
    options: Hl7Options
    ordered: bool  # the receiver knows the order
    scope: str | None  # scope of the cancel request that the event responds to; None if unknown


def event_part(event: Event) -> str:
    """Return the prefix of MSH-10, unique per event and source."""
    return _digest(f"{event.source}\0{event.id}")[:EVENT_PART]


def _digest(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()


def note_hl7(document: Document, event: Event, stamp: Stamp) -> None:
    """Add facts for later messages: shared fields, scope of and response to cancel requests, and counted fills."""
    data = note_shared(document, event, stamp)
    if event.type == "cancel.requested":
        newest(document.setdefault("scopes", {}), data["request_id"], stamp, data["scope"])
    if event.type == "cancel.responded" and event.value["decision"] != UNKNOWN:
        newest(document.setdefault("answers", {}), data["request_id"], stamp, data["decision"])
    if _is_counted(data):
        document.setdefault("fills", {}).setdefault(data["fill_id"], len(document.get("fills", ())) + 1)


def _is_counted(data: Fields) -> bool:
    """Return whether a fill has an id but no number: RXD-1 then counts fills in the order of their events."""
    return bool(data.get("fill_id")) and not data["fill_number"]


def news(event: Event, document: Document, options: Hl7Options, *, ordered: bool) -> News | None:
    """Return the content to send for an event that `document` already includes; None if nothing is sent."""
    decide = _NEWS.get(event.type)
    if decide is None:
        return None
    value: Mapping[str, Any] = event.value
    ended = _ended(document)
    if ended is not None and event.type.startswith(_BEFORE_THE_PHARMACY):
        return None
    content = decide(
        Input(
            value=value,
            data=native({**value, "extensions": {}})["data"],
            order=Order(
                placer=value["prescription_id"] or "",
                filler=shared(document, "rx_reference_number") or "",
                medication=shared(document, "medication"),
            ),
            options=options,
            ordered=ordered,
            scope=_scope(document, value.get("request_id")),
        )
    )
    if content is None or content.fill is not None or ended is None:
        return content
    return replace(content, orders=tuple(_of_ended(each, ended) for each in content.orders))


def _scope(document: Document, request_id: str | None) -> str | None:
    found = document.get("scopes", {}).get(request_id)
    return None if found is None else found[1]


def _ended(document: Document) -> str | None:
    """Return ORC-5 of a cancelled order, by its most extensive approved cancellation; None if there is none."""
    responses = _CANCEL_RESPONSES["approved"]
    statuses = [
        responses.get(_scope(document, request_id), responses[None])[1]
        for request_id, (_, decision) in document.get("answers", {}).items()
        if decision == "approved"
    ]
    return max(statuses, key=("", "DC", "CA").index, default=None)


def _of_ended(order: Order, status: str) -> Order:
    return replace(order, control="SC" if order.control == "OH" else order.control, status=status)


def message(event: Event, content: News, document: Document, options: Hl7Options) -> Message:
    """Write the message of an event.

    MSH-10 depends on the bytes of the message. After a restore of the database, an event may be sent again with other
    facts, and the receiver must not treat that message as a repeat.
    """
    kind = "RDS" if content.fill is not None else "ORM" if options.orders == "orm" else "OMP"
    prescriber = shared(document, "prescriber")
    segments = [_pid(event, shared(document, "patient"), options)]
    for order in content.orders:
        segments.append(_orc(order, event, prescriber, options))
        if content.fill is None:
            segments += [_rxo(order, prescriber), *_notes(order.notes)]
        else:
            segments += [_rxd(content.fill, document, event, options), *_notes(order.notes)]
        if kind != "ORM":  # ORM^O01 has no RXR
            segments.append(_ROUTE)
    body = write(segments)
    differs = _digest(write([_msh(kind, "", event, options)]) + body)[:_TEXT_PART]
    full = options.control_id == "full" and _is_plain_id(event.id)
    given = f"{event.id}-{differs}" if full else event_part(event) + differs
    head = [_msh(kind, given, event, options)]
    return Message(kind, given, write(head) + body, dropped(head + segments))


# The mapping of each event type.


def _one(given: Input, control: str, status: str = "", reason: str = "", **more: Any) -> News:
    """Return the news of one order; `more` are further fields of it."""
    more = {"notes": _optional(given.data.get("note")), **more}
    return News((replace(given.order, control=control, status=status, reason=reason, **more),))


def _created(given: Input) -> News | None:
    if not given.options.drafts or given.ordered:
        return None
    return replace(_one(given, "NW"), ordered=True)


def _updated(given: Input) -> News:
    return _one(given, "XX", notes=(f"Changed: {', '.join(given.data['changed_fields'])}",))


def _sent(given: Input) -> News:
    status = given.data["network_status"]
    parts = (status["code"], status.get("description_code"), status.get("description"))
    note = f"Network: {' '.join(filter(None, parts))}"
    return replace(_one(given, "XX" if given.ordered else "NW", "IP", notes=(note,)), ordered=True)


def _failed(given: Input) -> News:
    return _one(given, "SC", "HD" if given.value["retryable"] else "ER", given.data["network_status"]["code"])


def _renewal_asked(given: Input) -> News:
    data = given.data
    medication = data.get("medication_dispensed") or given.order.medication
    refills = data.get("refills_requested", "")
    return _one(given, "RF", filler=_number_of_request(given), medication=medication, refills=refills)


def _known(given: Input, field: str, control: str, status: str = "") -> News | None:
    """Return the news of one order with the value of a field as its reason; None if that is unknown."""
    return None if given.value[field] == UNKNOWN else _one(given, control, status, given.value[field])


def _change_asked(given: Input) -> News | None:
    data = given.data
    if given.value["change_code"] == UNKNOWN:
        return None
    notes = _optional(data.get("reason"))
    (order,) = _one(given, "XO", "", data["change_code"], filler=_number_of_request(given), notes=notes).orders
    asked = data.get("medications_requested") or [given.order.medication]
    return News(tuple(replace(order, medication=each) for each in asked))


def _responded(given: Input, responses: Mapping[str, str], **more: Any) -> News | None:
    decision = given.value["decision"]
    if decision not in responses:
        return None
    status = "HD" if decision == _PENDING else ""
    return _one(given, responses[decision], status, given.data.get("denial_reason_code", ""), **more)


def _cancel_asked(given: Input) -> News | None:
    control = _CANCELS.get(given.value["scope"])
    return None if control is None else _one(given, control, why=given.data.get("reason", ""))


def _cancel_responded(given: Input) -> News | None:
    responses = _CANCEL_RESPONSES.get(given.value["decision"])
    if responses is None:
        return None
    return _one(given, *responses.get(given.scope, responses[None]), given.data.get("denial_reason_code", ""))


def _filled(given: Input) -> News | None:
    status = given.value["fill_status"]
    filler = given.data.get("fill_id") or given.order.filler
    if status in _NOT_FILLED:
        notes = (f"Fill: {status}", *_optional(given.data.get("note")))
        return _one(given, "SC", _NOT_FILLED[status], filler=filler, notes=notes)
    if status not in _FILLS:
        return None
    return replace(_one(given, "RE", _FILLS[status], filler=filler, notes=(f"Fill: {status}",)), fill=given.data)


def _worked_on(given: Input) -> News | None:
    status = given.value["fulfillment_status"]
    if status not in _STEPS or is_transient_reject(given.value):
        return None
    filler = given.data.get("pharmacy_rx_number") or given.order.filler
    return _one(given, *_STEPS[status], filler=filler, notes=(f"Fulfillment: {status}",))


def _shipped(given: Input) -> News | None:
    status = given.value["shipment_status"]
    if not given.options.shipments or status == UNKNOWN:
        return None
    note = f"Shipment: {status}, {given.data['carrier']} {given.data['tracking_number']}"
    return _one(given, "SC", "CM" if status == DELIVERED else "IP", notes=(note,))


def _number_of_request(given: Input) -> str:
    """Return ORC-3 of a request: its own id if it matches no prescription, to identify it."""
    fits = given.order.placer and given.value["matched"]
    return given.order.filler if fits else given.data["request_id"]


def _number(text: str | None) -> str:
    return text.rstrip("0").rstrip(".") if text and "." in text else text or ""


def _optional(text: str | None) -> tuple[str, ...]:
    return (text,) if text else ()


_REMAINING, _PENDING = "remaining_refills", "pending"
_RENEWAL_RESPONSES = {
    **dict.fromkeys(("approved", "approved_with_changes"), "AF"),
    **dict.fromkeys(("denied", "denied_new_rx_to_follow"), "DF"),
    "replace": "RP",
    _PENDING: "SC",
}
_CHANGE_RESPONSES = {
    **dict.fromkeys(("approved", "approved_with_changes"), "XR"),
    "denied": "UX",
    **dict.fromkeys(("validated", _PENDING), "SC"),
}
_CANCELS = {"all": "CA", _REMAINING: "DC"}
_DENIED: Mapping[str | None, tuple[str, str]] = {"all": ("UC", ""), _REMAINING: ("UD", ""), None: ("UC", "")}
# By response and scope of the request; with an unknown scope the order's status stays empty.
_CANCEL_RESPONSES: Mapping[str, Mapping[str | None, tuple[str, str]]] = {
    "approved": {"all": ("CR", "CA"), _REMAINING: ("DR", "DC"), None: ("CR", "")},
    "denied": _DENIED,
    "no_response": _DENIED,
}
# Status of the fill, not of the order: refills may be left, and another pharmacy may fill it.
_FILLS = {"dispensed": "CM", "partially_dispensed": "A"}
# Nothing was dispensed: RDS requires a day and a quantity.
_NOT_FILLED = {"not_dispensed": "CA", "transferred": "DC"}
# Event types that are not sent once the order is cancelled.
_BEFORE_THE_PHARMACY = ("prescription.", "epcs.")
_STEPS = {
    **dict.fromkeys(("received", "billing", "in_progress", "packed", "approved", "handed_to_carrier"), ("SC", "IP")),
    "on_hold": ("OH", "HD"),
    REJECTED: ("OC", "CA"),
    DELIVERED: ("SC", "CM"),
}
_NEWS: Mapping[str, Callable[[Input], News | None]] = {
    "prescription.created": _created,
    "prescription.updated": _updated,
    "prescription.sent": _sent,
    "prescription.processed": lambda given: _one(given, "SC", "SC"),
    "prescription.transmission_failed": _failed,
    "renewal.requested": _renewal_asked,
    "renewal.responded": lambda given: _responded(
        given, _RENEWAL_RESPONSES, refills=given.data.get("refills_approved", "")
    ),
    "renewal.closed": lambda given: _known(given, "reason", "UF"),
    "change.requested": _change_asked,
    "change.responded": lambda given: _responded(given, _CHANGE_RESPONSES),
    "cancel.requested": _cancel_asked,
    "cancel.responded": _cancel_responded,
    "fill.status_changed": _filled,
    "fulfillment.status_changed": _worked_on,
    "shipment.status_changed": _shipped,
    "epcs.signing_failed": lambda given: _known(given, "failure", "SC", "HD"),
}


# The segments.

_STRUCTURES = {"OMP": ("OMP", "O09", "OMP_O09"), "ORM": ("ORM", "O01", "ORM_O01"), "RDS": ("RDS", "O13", "RDS_O13")}
# RXR is required, but only the directions name a route.
_ROUTE = MessageSegment("RXR", {1: ("", "See sig")})


def _msh(kind: str, given: str, event: Event, options: Hl7Options) -> MessageSegment:
    accept_ack = options.ack_mode == "enhanced"
    return MessageSegment(
        "MSH",
        {
            3: options.sending_app,
            4: options.sending_facility,
            5: options.receiving_app,
            6: options.receiving_facility,
            # When the bridge received the event: every attempt has the same bytes.
            7: _time(event.received_at, ZoneInfo(options.timezone)),
            9: _STRUCTURES[kind],
            10: given,
            11: "P" if event.value["environment"] == "production" else "T",
            12: VERSION,
            15: "AL" if accept_ack else "",
            16: "NE" if accept_ack else "",
            18: "UNICODE UTF-8",
        },
    )


def _pid(event: Event, patient: Fields | None, options: Hl7Options) -> MessageSegment:
    if patient is None:
        # The patient is unknown; staff can look up the order's number.
        return MessageSegment("PID", {1: "1", 3: [(event.key, "", "", "DRX", "AN")], 5: ("", "", "", "", "", "", "U")})
    address = patient.get("address") or {}
    numbers = [
        (number, "", "", assigner, kind)
        for number, assigner, kind in ((patient.get("mrn"), options.assigner, "MR"), (patient.get("id"), "DRX", "PI"))
        if number
    ]
    phone, email = patient.get("phone"), patient.get("email")
    lines = ("line1", "line2", "city", "state", "postal_code", "country")
    return MessageSegment(
        "PID",
        {
            1: "1",
            3: numbers or NULL,
            5: (patient["last_name"], patient.get("first_name"), patient.get("middle_name"), "", "", "", "L"),
            7: patient.get("date_of_birth", "").replace("-", ""),
            8: patient["sex"] if patient.get("sex") in _SEXES else "",
            11: tuple(address.get(name) for name in lines),
            13: [
                *([("", "PRN", "PH", "", "", "", "", "", "", "", "", phone)] if phone else []),
                *([("", "NET", "Internet", email)] if email else []),
            ],
        },
    )


def _orc(order: Order, event: Event, prescriber: Fields | None, options: Hl7Options) -> MessageSegment:
    return MessageSegment(
        "ORC",
        {
            1: order.control,
            2: (order.placer, options.sending_app) if order.placer else "",
            3: order.filler,
            5: order.status,
            9: _time(event.occurred_at, ZoneInfo(options.timezone)),
            12: _person(prescriber, "npi", "NPI"),
            16: (order.reason, order.why),
        },
    )


def _rxo(order: Order, prescriber: Fields | None) -> MessageSegment:
    medication = order.medication or {}
    refills = medication.get("refills", "") if order.refills is None else order.refills
    allowed = medication.get("substitution_allowed")
    quantity = _number(medication.get("quantity"))
    return MessageSegment(
        "RXO",
        {
            1: _code(medication),
            7: ("", medication.get("sig")),
            9: "" if allowed is None else "G" if allowed else "N",
            11: quantity,
            12: ("", medication.get("quantity_unit")) if quantity else "",
            13: str(refills),
            14: _person(prescriber, "dea_number", "DEA"),
        },
    )


def _rxd(fill: Fields, document: Document, event: Event, options: Hl7Options) -> MessageSegment:
    # The pharmacy may dispense another product than ordered.
    medication: Fields = fill.get("medication_dispensed") or {}
    quantity = _number(fill.get("quantity_dispensed"))
    return MessageSegment(
        "RXD",
        {
            # The contract counts from 0, RXD-1 from 1.
            1: str(document["fills"][fill["fill_id"]] if _is_counted(fill) else fill["fill_number"] + 1),
            2: _code(medication),
            3: fill.get("fill_date", "").replace("-", "") or _time(event.occurred_at, ZoneInfo(options.timezone))[:8],
            # Empty if unknown: HL7's null would delete the receiver's quantity, and is not an NM.
            4: quantity,
            5: ("", medication.get("quantity_unit")) if quantity else "",
            7: _written(shared(document, "rx_reference_number") or "") or NULL,
            9: fill.get("note", ""),
        },
    )


def _notes(notes: tuple[str, ...]) -> list[MessageSegment]:
    return [MessageSegment("NTE", {1: str(number), 3: Formatted(text)}) for number, text in enumerate(notes, start=1)]


def _code(medication: Fields) -> tuple[str, ...]:
    """Return a medication as a CE: RxNorm, else NDC, with its description."""
    text = _written(medication.get("description", "")) or "Unknown"
    for name, system in (("rxcui", "RXNORM"), ("ndc", "NDC")):
        if medication.get(name):
            return medication[name], text, system
    return "", text


def _written(text: str) -> str:
    """Return the text, or an empty one if the field would hold only white space."""
    return text if escape(text).strip() else ""


def _person(prescriber: Fields | None, number: str, kind: str) -> object:
    if prescriber is None or not prescriber.get(number):
        return ""
    authority = _NPI if kind == "NPI" else ""
    family, given = prescriber["last_name"], prescriber.get("first_name")
    return prescriber[number], family, given, "", "", "", "", "", authority, "L", "", "", kind


def _time(instant: datetime, zone: tzinfo) -> str:
    """Return a TS with its offset; in UTC if the offset has seconds or the year would leave 1 to 9999."""
    try:
        local = instant.astimezone(zone)
    except OverflowError:
        local = instant
    if local.second != instant.second:  # local mean time, before time zones existed
        local = instant
    return f"{local.year:04}{local:%m%d%H%M%S%z}"
