"""Record class of each event type: the closed list of the contract."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from bridge.contract.dispensing import FillStatusChanged, FulfillmentStatusChanged, ShipmentStatusChanged
from bridge.contract.envelope import EventRecord
from bridge.contract.notices import AlertRaised, OtherReported, PrescriberEnrollmentChanged, SystemPing
from bridge.contract.prescriptions import (
    EpcsSigned,
    EpcsSigningFailed,
    PrescriptionCreated,
    PrescriptionProcessed,
    PrescriptionSent,
    PrescriptionTransmissionFailed,
    PrescriptionUpdated,
)
from bridge.contract.requests import (
    CancelRequested,
    CancelResponded,
    ChangeRequested,
    ChangeResponded,
    RenewalClosed,
    RenewalRequested,
    RenewalResponded,
)

# Type of an update that the contract does not define.
OTHER_REPORTED = "other.reported"
# docs/contract.md §3.
REPORTED_TYPE = "[A-Za-z0-9_.:/-]{1,128}"
_is_reported_type = re.compile(REPORTED_TYPE).fullmatch
# Maximum number of names of a JSON pointer in a label.
NAMES_MAX = 6
# At most four parts and no number of four digits, so that free text, dates and ids do not match.
_is_plain_type = re.compile(r"(?=.{1,64}$)(?!.*[0-9]{4})[A-Za-z0-9]+(?:[_.:-][A-Za-z0-9]+){0,3}").fullmatch

EVENT_MODELS: Mapping[str, type[EventRecord]] = MappingProxyType(
    {
        "prescription.created": PrescriptionCreated,
        "prescription.updated": PrescriptionUpdated,
        "prescription.sent": PrescriptionSent,
        "prescription.processed": PrescriptionProcessed,
        "prescription.transmission_failed": PrescriptionTransmissionFailed,
        "renewal.requested": RenewalRequested,
        "renewal.responded": RenewalResponded,
        "renewal.closed": RenewalClosed,
        "change.requested": ChangeRequested,
        "change.responded": ChangeResponded,
        "cancel.requested": CancelRequested,
        "cancel.responded": CancelResponded,
        "fill.status_changed": FillStatusChanged,
        "fulfillment.status_changed": FulfillmentStatusChanged,
        "shipment.status_changed": ShipmentStatusChanged,
        "epcs.signed": EpcsSigned,
        "epcs.signing_failed": EpcsSigningFailed,
        "alert.raised": AlertRaised,
        OTHER_REPORTED: OtherReported,
        "prescriber.enrollment_changed": PrescriberEnrollmentChanged,
        "system.ping": SystemPing,
    }
)


def is_reported_type(word: object) -> bool:
    """Return whether a sender's type can be a `reported_type`."""
    return type(word) is str and _is_reported_type(word) is not None


def plain_type(word: object) -> str:
    """Return a sender's type for logs and labels: unchanged if it looks like a type name, else `other`."""
    return word if type(word) is str and _is_plain_type(word) else "other"


def plain_pointer(pointer: str) -> str:
    """Return a member's JSON pointer for labels: numbers as `*`; `other` if a name may be a value."""
    names = ["*" if name.isdigit() else name for name in pointer.split("/")[1 : NAMES_MAX + 2]]
    plain = len(names) <= NAMES_MAX and all(name == "*" or plain_type(name) == name for name in names)
    return "/" + "/".join(names) if plain else "other"
