"""The push notifications of DoseSpot: one status of one prescription, as a number in an enumeration of theirs.

Source: DoseSpot Push Notifications Supplement 1.0.3 (event types, members, statuses of medications); the names of the
prescription statuses are those of their API.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from types import MappingProxyType
from typing import NamedTuple

from bridge.contract.fields import UNKNOWN
from bridge.event import Delivery, ParkReason
from bridge.ingress.profiles.assemble import Draft, Reading, Said, compose
from bridge.ingress.profiles.plan import text_of_id
from bridge.ingress.profiles.profile import Mapped, refuse_unknown
from bridge.ingress.profiles.words import folded, is_given, key_of, prefix_of, zone_of

PREFIX = "ds:"


class Fact(NamedTuple):
    """What a status says in native words.

    Attributes:
        type: One of the twenty types.
        constants: Fields that the contract requires and the vendor lacks.
        finished: The same, for what is no word of an enum.
        dated: Field that is the time of the status.
        about: Field that is the prescription's id.
    """

    type: str
    constants: Mapping[str, object]
    finished: Mapping[str, object] = MappingProxyType({})
    dated: str = ""
    about: str = ""


def _sent(mode: str, code: str) -> Fact:
    return Fact("prescription.sent", {"delivery_mode": mode, "attempt": 1, **_network("status", code)})


def _network(kind: str, code: str) -> dict[str, object]:
    return {"network_status.kind": kind, "network_status.code": code}


def _fill(status: str) -> Fact:
    # Which fill it is, is not told: refills of one prescription overwrite each other.
    return Fact("fill.status_changed", {"fill_number": 0, "fill_status": status})


def _answer(decision: str) -> Fact:
    return Fact("cancel.responded", {"decision": decision}, about="request_id")


_CREATED = Fact("prescription.created", {"origin": "new", "awaiting": "signature"})
_UPDATED = Fact("prescription.updated", {"changed_fields": []})
_FAILED = Fact("prescription.transmission_failed", {"retryable": False, "attempt": 1, **_network("error", "")})
_UNSIGNED = Fact("epcs.signing_failed", {"failure": "other"}, {"dea_schedule": UNKNOWN})
_SIGNED = Fact("epcs.signed", {"factors": []}, {"dea_schedule": UNKNOWN}, dated="signed_at")
_PROCESSED = Fact("prescription.processed", _network("verify", "010"))

# By event type: the member that has the status, and by number or name what it says. Others say none of the twenty.
_PRESCRIPTION: Mapping[str, Fact] = {
    **dict.fromkeys(("1", "entered"), _CREATED),
    **dict.fromkeys(("2", "printed"), _sent("print", "")),
    **dict.fromkeys(("4", "erxsent"), _sent("erx", "000")),
    **dict.fromkeys(("6", "error"), _FAILED),
    **dict.fromkeys(("9", "edited"), _UPDATED),
    **dict.fromkeys(("10", "epcserror"), _UNSIGNED),
    **dict.fromkeys(("11", "epcssigned"), _SIGNED),
    **dict.fromkeys(("13", "pharmacyverified"), _PROCESSED),
}
_MEDICATION: Mapping[str, Fact] = {
    **dict.fromkeys(("8", "cancelled", "canceled"), _answer("approved")),
    **dict.fromkeys(("9", "canceldenied"), _answer("denied")),
    **dict.fromkeys(("11", "dispensed", "filled", "fullyfilled"), _fill("dispensed")),
    **dict.fromkeys(("12", "partiallydispensed", "partiallyfilled"), _fill("partially_dispensed")),
    **dict.fromkeys(("13", "notdispensed", "notfilled"), _fill("not_dispensed")),
}
_FACTS: Mapping[str, tuple[str, Mapping[str, Fact]]] = MappingProxyType(
    {
        "PrescriptionResult": ("PrescriptionStatus", _PRESCRIPTION),
        "MedicationStatusUpdate": ("MedicationStatus", _MEDICATION),
    }
)
_RELATED = (("RelatedRxRequestQueueItemId", "rq:"), ("RelatedRxChangeQueueItemId", "ch:"))
_NOTED = frozenset({"fill.status_changed", "cancel.responded"})


def configure(options: Mapping[str, str]) -> DoseSpot:
    """Build the profile.

    Args:
        options: `account_id`, of deliveries without a clinic; `zone`, of times without one, else UTC; `prefix`, of
            keys, accounts and correlations, else `ds:`.

    Raises:
        ConfigError: An option is unknown or cannot be used.
    """
    refuse_unknown(options, "account_id", "zone", "prefix")
    return DoseSpot(options.get("account_id", ""), zone_of(options), prefix_of(options, PREFIX))


@dataclass(frozen=True, slots=True)
class DoseSpot:
    """The profile with its options."""

    account_id: str = ""
    zone: tzinfo | None = field(default=None)
    prefix: str = PREFIX

    @property
    def PREFIX(self) -> str:  # noqa: N802 - as in profiles that are modules
        """With what its keys begin."""
        return self.prefix

    def map(self, delivery: Delivery, document: dict[str, object], /) -> Mapped | ParkReason:
        """Turn a notification into its event; see `Profile.map`."""
        data = document.get("Data")
        members = data if isinstance(data, dict) else {}
        prescription = members.get("PrescriptionId")
        key = key_of(self.prefix, prescription)
        event_type = document.get("EventType")
        named, facts = _FACTS.get(event_type, ("", {})) if type(event_type) is str else ("", {})
        if not named:
            return ParkReason("unknown_type", field="/EventType", key=key)
        status = next((name for name in (named, "Status") if is_given(members.get(name))), named)
        fact = facts.get(_word(members.get(status)))
        if fact is None:
            return ParkReason("unknown_type", field=f"/Data/{status}", key=key)
        if key is None:
            return ParkReason("unusable", "bad_key" if is_given(prescription) else "no_key", "/Data/PrescriptionId")
        reading = Reading(id=delivery.id, time=delivery.received_at)
        reading.claimed = {"/EventType", "/Data/PrescriptionId", f"/Data/{status}"}
        reading.read_time(members.get("StatusDateTime"), "/Data/StatusDateTime", self.zone)
        _correlate(members, reading, self.prefix)
        if not self._account(members, reading):
            return ParkReason("unusable", "missing_field", "/Data/ClinicId", key)
        return compose(delivery, document, [_draft(fact, key, prescription, members, reading)], reading, key=key)

    def _account(self, members: Mapping[str, object], reading: Reading) -> bool:
        clinic = text_of_id(members.get("ClinicId"))
        if clinic:
            reading.account_id = self.prefix + clinic
            reading.claimed.add("/Data/ClinicId")
            return True
        if members.get("ClinicId") is not None:
            reading.flags.add("field_unfit")
        reading.account_id = self.account_id
        return bool(self.account_id)


def _word(status: object) -> str:
    """Write a status as the tables have it: digits, or the name without case and breaks."""
    text = text_of_id(status)
    return "" if text is None else folded(text).replace(" ", "").replace("_", "")


def _correlate(members: Mapping[str, object], reading: Reading, prefix: str) -> None:
    for name, kind in _RELATED:
        item = members.get(name)
        text = text_of_id(item)
        if text and reading.correlation_id is None:
            reading.correlation_id = f"{prefix}{kind}{text}"
            reading.claimed.add(f"/Data/{name}")
        elif item is not None and text is None:
            reading.flags.add("field_unfit")


def _draft(fact: Fact, key: str, prescription: object, members: Mapping[str, object], reading: Reading) -> Draft:
    draft = Draft(fact.type, 1, key, constants=fact.constants, finished=fact.finished)
    if fact.dated:
        draft.finished = {**fact.finished, fact.dated: reading.time}
    if fact.about:
        draft.said[fact.about] = Said(text_of_id(prescription), "/Data/PrescriptionId")
    if "network_status.kind" in fact.constants:
        draft.said["network_status.description"] = Said(
            members.get("StatusDetails"), "/Data/StatusDetails", "/Data/StatusDetails"
        )
    if fact.type in _NOTED:
        draft.said["note"] = Said(members.get("StatusNotes"), "/Data/StatusNotes", "/Data/StatusNotes")
    return draft
