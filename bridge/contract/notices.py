"""Events that are not a step of an order: alerts, enrollments, endpoint tests, and other updates of a sender."""

from typing import Literal

from pydantic import Field

from bridge.contract.common import Prescriber
from bridge.contract.envelope import EventRecord, Extensions, PrescriptionRecord
from bridge.contract.fields import Linked


class AlertRaised(PrescriptionRecord):
    """An Rx Alert was opened: somebody must look."""

    alert_id: Linked[str]
    category: Literal[
        "no_confirmation", "processing_problem", "request_mismatch", "prescriber_ineligible", "other", "UNKNOWN"
    ]
    raw_category: str | None = None
    workflow: Literal["new_rx", "renewal", "change", "cancel", "UNKNOWN"]
    raw_workflow: str | None = None
    severity: Literal["info", "warning", "critical", "UNKNOWN"]
    raw_severity: str | None = None
    message: Linked[str | None] = None
    extensions: Extensions = Field(default_factory=dict)


class OtherReported(PrescriptionRecord):
    """An update of a type that the contract does not know. Key: account id where it is about no prescription."""

    reported_type: str
    extensions: Extensions = Field(default_factory=dict)


class PrescriberEnrollmentChanged(EventRecord):
    """Identity proofing, EPCS or service-level status of a prescriber changed. Key: prescriber id."""

    prescriber: Prescriber
    identity_proofing: Literal["none", "pending", "verified", "denied", "UNKNOWN"]
    raw_identity_proofing: str | None = None
    epcs_status: Literal["none", "pending", "active", "suspended", "UNKNOWN"]
    raw_epcs_status: str | None = None
    service_levels: list[Literal["new", "renewal", "change", "cancel", "rxfill", "epcs", "UNKNOWN"]]
    raw_service_levels: list[str] = Field(default_factory=list)
    extensions: Extensions = Field(default_factory=dict)


class SystemPing(EventRecord):
    """Endpoint test. Key: account id. Never forwarded to clinical consumers."""

    message: str | None = None
    extensions: Extensions = Field(default_factory=dict)
