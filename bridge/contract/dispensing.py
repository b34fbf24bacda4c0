"""Events from pharmacy and carrier: fills, workflow steps and shipments."""

from datetime import date
from typing import Literal

from pydantic import AwareDatetime, Field

from bridge.contract.common import Int, Medication, Money, Quantity, ShortText
from bridge.contract.envelope import Extensions, PrescriptionRecord
from bridge.contract.fields import Direct, Linked


class FillStatusChanged(PrescriptionRecord):
    """Dispensing news from the pharmacy."""

    fill_number: Linked[Int]
    fill_id: Linked[ShortText | None] = None
    fill_status: Linked[Literal["dispensed", "partially_dispensed", "not_dispensed", "transferred", "UNKNOWN"]]
    raw_fill_status: Linked[str | None] = None
    quantity_dispensed: Linked[Quantity | None] = None
    quantity_remaining: Linked[Quantity | None] = None
    fill_date: Linked[date | None] = None
    transferred_to_ncpdp_id: str | None = None
    medication_dispensed: Linked[Medication | None] = None
    note: Linked[str | None] = None
    extensions: Extensions = Field(default_factory=dict)


class FulfillmentStatusChanged(PrescriptionRecord):
    """Workflow step inside a mail-order or compounding pharmacy."""

    queue_id: Linked[str]
    pharmacy_rx_number: Linked[str | None] = None
    fulfillment_status: Linked[
        Literal[
            "received",
            "billing",
            "in_progress",
            "packed",
            "approved",
            "on_hold",
            "rejected",
            "handed_to_carrier",
            "delivered",
            "UNKNOWN",
        ]
    ]
    raw_fulfillment_status: Linked[str | None] = None
    active: bool | None = None
    billing_status: Linked[Literal["billed", "cash", "pending", "UNKNOWN"] | None] = None
    raw_billing_status: Linked[str | None] = None
    patient_pay: Linked[Money | None] = None
    lot_number: Linked[str | None] = None
    raw_status: str | None = None
    extensions: Extensions = Field(default_factory=dict)


class ShipmentStatusChanged(PrescriptionRecord):
    """Carrier news."""

    carrier: Literal["ups", "fedex", "usps", "dhl", "courier", "other", "UNKNOWN"]
    raw_carrier: str | None = None
    tracking_number: Direct[str]
    shipment_status: Linked[
        Literal[
            "label_created",
            "picked_up",
            "in_transit",
            "out_for_delivery",
            "delivered",
            "exception",
            "returned",
            "UNKNOWN",
        ]
    ]
    raw_shipment_status: Linked[str | None] = None
    estimated_delivery: Linked[date | None] = None
    delivered_at: Linked[AwareDatetime | None] = None
    extensions: Extensions = Field(default_factory=dict)
