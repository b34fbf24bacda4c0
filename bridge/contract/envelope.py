"""The leading fields of every event, and of every event about a prescription."""

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import AwareDatetime

from bridge.contract.common import Long, Medication, Patient, Pharmacy, Prescriber
from bridge.contract.fields import ContractRecord, Direct, Linked

# Members of the body that the contract does not define: JSON pointer from the root -> JSON text.
Extensions = Direct[dict[str, str]]

VERSION = "1"


class EventRecord(ContractRecord):
    """Fields of every event; each class has `extensions` as its last field."""

    event_id: str
    event_type: str
    contract_version: str
    occurred_at: AwareDatetime
    received_at: AwareDatetime
    source: str
    origin_source: str | None = None
    environment: Literal["production", "sandbox", "UNKNOWN"]
    account_id: str
    prescription_id: Linked[str | None] = None
    sequence: Long | None = None
    correlation_id: str | None = None

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Identify the event without its content."""
        yield "event_id", self.event_id
        yield "event_type", self.event_type


class PrescriptionRecord(EventRecord):
    """Fields of every event about a prescription; short deliveries omit patient, prescriber and so on."""

    prescriber_order_number: Linked[str | None] = None
    rx_reference_number: Linked[str | None] = None
    message_id: Linked[str | None] = None
    relates_to_message_id: Linked[str | None] = None
    patient: Direct[Patient | None] = None
    prescriber: Prescriber | None = None
    pharmacy: Pharmacy | None = None
    medication: Linked[Medication | None] = None
