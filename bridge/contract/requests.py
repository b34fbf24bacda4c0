"""Requests about an order and their responses: renewals, changes and cancels."""

from datetime import date
from typing import Literal

from pydantic import Field

from bridge.contract.common import Int, Medication, NetworkStatus
from bridge.contract.envelope import Extensions, PrescriptionRecord
from bridge.contract.fields import Linked

# SCRIPT MessageRequestCode.
ChangeCode = Literal["G", "T", "D", "S", "OS", "P", "U", "RM", "UNKNOWN"]
Responder = Literal["prescriber", "agent", "system", "UNKNOWN"]


class RenewalRequested(PrescriptionRecord):
    """A pharmacy asks for more refills."""

    request_id: Linked[str]
    matched: bool
    match_basis: Literal["pon", "relates_to", "demographics", "none", "UNKNOWN"]
    raw_match_basis: str | None = None
    refills_requested: Linked[Int | None] = None
    follow_up_count: Int
    last_fill_date: Linked[date | None] = None
    medication_dispensed: Linked[Medication | None] = None
    extensions: Extensions = Field(default_factory=dict)


class RenewalResponded(PrescriptionRecord):
    """The prescriber's answer went out."""

    request_id: Linked[str]
    decision: Linked[
        Literal[
            "approved", "approved_with_changes", "denied", "denied_new_rx_to_follow", "replace", "pending", "UNKNOWN"
        ]
    ]
    raw_decision: Linked[str | None] = None
    refills_approved: Linked[Int | None] = None
    denial_reason_code: Linked[str | None] = None
    replacement_prescription_id: Linked[str | None] = None
    expected_response_date: Linked[date | None] = None
    note: Linked[str | None] = None
    responded_by: Responder | None = None
    raw_responded_by: str | None = None
    network_status: NetworkStatus
    extensions: Extensions = Field(default_factory=dict)


class RenewalClosed(PrescriptionRecord):
    """The request left the queue without an answer."""

    request_id: Linked[str]
    reason: Literal["expired", "removed", "superseded", "answered_elsewhere", "UNKNOWN"]
    raw_reason: str | None = None
    superseded_by: Linked[str | None] = None
    extensions: Extensions = Field(default_factory=dict)


class ChangeRequested(PrescriptionRecord):
    """A pharmacy asks for a change, a prior authorisation or a credential check."""

    request_id: Linked[str]
    change_code: Linked[ChangeCode]
    raw_change_code: Linked[str | None] = None
    sub_codes: list[str] | None = None
    matched: bool
    follow_up_count: Int
    reason: Linked[str | None] = None
    medications_requested: Linked[list[Medication] | None] = None
    extensions: Extensions = Field(default_factory=dict)


class ChangeResponded(PrescriptionRecord):
    """The prescriber's answer went out."""

    request_id: Linked[str]
    change_code: Linked[ChangeCode]
    raw_change_code: Linked[str | None] = None
    decision: Linked[Literal["approved", "approved_with_changes", "denied", "pending", "validated", "UNKNOWN"]]
    raw_decision: Linked[str | None] = None
    validated: dict[str, str] | None = None
    prior_authorization_number: Linked[str | None] = None
    denial_reason_code: Linked[str | None] = None
    replacement_prescription_id: Linked[str | None] = None
    note: Linked[str | None] = None
    responded_by: Responder | None = None
    raw_responded_by: str | None = None
    network_status: NetworkStatus
    extensions: Extensions = Field(default_factory=dict)


class CancelRequested(PrescriptionRecord):
    """The prescriber asked the pharmacy not to fill (or to stop refills)."""

    request_id: Linked[str]
    reason: Linked[str | None] = None
    scope: Literal["all", "remaining_refills", "UNKNOWN"]
    raw_scope: str | None = None
    network_status: NetworkStatus
    extensions: Extensions = Field(default_factory=dict)


class CancelResponded(PrescriptionRecord):
    """The pharmacy answered. Only approved changes the order."""

    request_id: Linked[str]
    decision: Linked[Literal["approved", "denied", "no_response", "UNKNOWN"]]
    raw_decision: Linked[str | None] = None
    denial_reason_code: Linked[str | None] = None
    note: Linked[str | None] = None
    extensions: Extensions = Field(default_factory=dict)
