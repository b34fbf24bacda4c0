"""Events of an order itself: drafted, changed, sent, confirmed or failed; signed if controlled."""

from typing import Literal

from pydantic import AwareDatetime, Field

from bridge.contract.common import DeaSchedule, Int, NetworkStatus
from bridge.contract.envelope import Extensions, PrescriptionRecord
from bridge.contract.fields import Linked


class PrescriptionCreated(PrescriptionRecord):
    """A draft was saved to the Pending Rx queue (usually by an agent on behalf of a prescriber)."""

    origin: Literal["new", "renewal_replace", "change_approved", "import", "UNKNOWN"]
    raw_origin: str | None = None
    awaiting: Literal["signature", "pharmacy", "review", "none", "UNKNOWN"]
    raw_awaiting: str | None = None
    extensions: Extensions = Field(default_factory=dict)


class PrescriptionUpdated(PrescriptionRecord):
    """A field of the order changed without a lifecycle step."""

    changed_fields: list[str]
    reason: Linked[str | None] = None
    extensions: Extensions = Field(default_factory=dict)


class PrescriptionSent(PrescriptionRecord):
    """NewRx left DRx and the network took it."""

    delivery_mode: Literal["erx", "fax", "print", "UNKNOWN"]
    raw_delivery_mode: str | None = None
    attempt: Int
    network_status: NetworkStatus
    extensions: Extensions = Field(default_factory=dict)


class PrescriptionProcessed(PrescriptionRecord):
    """The pharmacy system confirmed it has the prescription."""

    network_status: NetworkStatus
    extensions: Extensions = Field(default_factory=dict)


class PrescriptionTransmissionFailed(PrescriptionRecord):
    """The message was not accepted, or no confirmation came in time."""

    network_status: NetworkStatus
    retryable: bool
    attempt: Int
    extensions: Extensions = Field(default_factory=dict)


class EpcsSigned(PrescriptionRecord):
    """A controlled-substance order was two-factor signed."""

    dea_schedule: Linked[DeaSchedule]
    raw_dea_schedule: Linked[str | None] = None
    factors: list[Literal["otp_hard", "otp_soft", "biometric", "password", "UNKNOWN"]]
    raw_factors: list[str] = Field(default_factory=list)
    identity_provider: str | None = None
    signed_at: Linked[AwareDatetime]
    signature_hash: str | None = None
    extensions: Extensions = Field(default_factory=dict)


class EpcsSigningFailed(PrescriptionRecord):
    """Signing was refused."""

    dea_schedule: Linked[DeaSchedule]
    raw_dea_schedule: Linked[str | None] = None
    failure: Literal[
        "otp_mismatch",
        "credential_expired",
        "dea_not_authorized",
        "identity_not_proofed",
        "locked_out",
        "other",
        "UNKNOWN",
    ]
    raw_failure: str | None = None
    attempts_left: Int | None = None
    extensions: Extensions = Field(default_factory=dict)
