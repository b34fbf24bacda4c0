"""Which record an event type has: the closed list of the contract."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bridge.contract.dispensing import FillStatusChanged, FulfillmentStatusChanged, ShipmentStatusChanged
from bridge.contract.envelope import EventRecord
from bridge.contract.notices import AlertRaised, PrescriberEnrollmentChanged, SystemPing
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
        "prescriber.enrollment_changed": PrescriberEnrollmentChanged,
        "system.ping": SystemPing,
    }
)
