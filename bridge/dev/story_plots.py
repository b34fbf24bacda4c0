"""The plots of prescription lives that the simulator plays; together they use all twenty types of the catalogue."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from bridge.dev.story import ACCEPTED, DAY, HOUR, MINUTE, Body, Life


def mail_order(life: Life) -> None:
    """From the draft to the patient's door by mail."""
    queue: Body = {"queue_id": life.request_id("q")[2:], "active": True}
    line = life.request_id("7")[2:]
    track: Body = {"carrier": "ups", "tracking_number": f"1Z999AA1{life.request_id('t')[2:]}00784"}
    life.draft()
    life.transmit()
    life.confirm()
    life.tell("fulfillment.status_changed", 20 * MINUTE, **queue, fulfillment_status="received")
    life.tell(
        "fulfillment.status_changed",
        HOUR,
        **queue,
        pharmacy_rx_number=line,
        fulfillment_status="packed",
        billing_status="billed",
        patient_pay="15.00",
        raw_status="PACKED",
    )
    life.fill("dispensed", HOUR)
    life.tell("shipment.status_changed", HOUR, **track, shipment_status="label_created")
    due = (life.today + 2 * DAY).isoformat()
    life.tell("shipment.status_changed", DAY, **track, shipment_status="in_transit", estimated_delivery=due)
    life.tell(
        "shipment.status_changed", 2 * DAY, **track, shipment_status="delivered", delivered_at=life.instant(2 * DAY)
    )


def controlled(life: Life) -> None:
    """A controlled substance: signed with two factors at the second try."""
    schedule = life.cast.medication.get("dea_schedule", "IV")
    life.draft()
    life.tell(
        "epcs.signing_failed", 4 * MINUTE, full=True, dea_schedule=schedule, failure="otp_mismatch", attempts_left=2
    )
    life.tell(
        "epcs.signed",
        MINUTE,
        full=True,
        dea_schedule=schedule,
        factors=["password", "otp_soft"],
        identity_provider="id.me",
        signed_at=life.instant(MINUTE),
        signature_hash=f"sha256:{hashlib.sha256(life.prescription_id.encode()).hexdigest()}",
    )
    life.transmit(MINUTE)
    life.confirm()
    life.fill("partially_dispensed", 3 * HOUR, quantity_dispensed="6", quantity_remaining="6")


def second_attempt(life: Life) -> None:
    """The network was down: an alert, and a second message that arrives."""
    down = {"kind": "error", "code": "600", "description": "Communication problem, try again later"}
    life.draft()
    life.tell("prescription.updated", 3 * MINUTE, full=True, changed_fields=["pharmacy"], reason="Patient moved")
    life.transmit()
    life.tell(
        "prescription.transmission_failed", MINUTE, **life.answer(), network_status=down, retryable=True, attempt=1
    )
    life.tell(
        "alert.raised",
        HOUR,
        alert_id=life.request_id("al"),
        category="processing_problem",
        workflow="new_rx",
        severity="warning",
        message="The first attempt failed",
    )
    life.transmit(HOUR, attempt=2)
    life.confirm()
    life.fill("not_dispensed", 10 * DAY, note="Not picked up, returned to stock")


def renewal_answered(life: Life) -> None:
    """The pharmacy asks for refills and gets them."""
    request = life.request_id("rr")
    life.draft()
    life.transmit()
    life.confirm()
    life.fill("dispensed", 2 * HOUR)
    life.tell("renewal.requested", 25 * DAY, full=True, **life.answer(), **_renewal(request, follow_up_count=0))
    life.tell(
        "renewal.responded",
        2 * DAY,
        request_id=request,
        decision="approved",
        refills_approved=3,
        responded_by="prescriber",
        network_status=ACCEPTED,
    )


def renewal_superseded(life: Life) -> None:
    """The pharmacy asks twice; the first question leaves the queue without an answer."""
    first, second = life.request_id("rr"), life.request_id("rr")
    life.draft()
    life.transmit()
    life.confirm()
    life.tell("renewal.requested", 20 * DAY, full=True, **life.answer(), **_renewal(first, follow_up_count=0))
    life.tell("renewal.requested", 2 * DAY, full=True, **life.answer(), **_renewal(second, follow_up_count=1))
    life.tell("renewal.closed", MINUTE, request_id=first, reason="superseded", superseded_by=second)


def changed(life: Life) -> None:
    """The pharmacy is out of stock, asks for another quantity, and gets it."""
    request: Body = {"request_id": life.request_id("cr"), "change_code": "OS"}
    life.draft()
    life.transmit()
    life.confirm()
    life.tell(
        "change.requested",
        2 * HOUR,
        full=True,
        **life.answer(),
        **request,
        matched=True,
        follow_up_count=0,
        reason="Backordered until October",
        medications_requested=[{**life.cast.medication, "quantity": "90", "written_date": life.written_on}],
    )
    life.tell(
        "change.responded", HOUR, **request, decision="approved", responded_by="prescriber", network_status=ACCEPTED
    )


def cancelled(life: Life) -> None:
    """The prescriber takes the order back in time."""
    request = life.request_id("cx")
    life.draft()
    life.transmit()
    life.confirm()
    life.tell(
        "cancel.requested", HOUR, request_id=request, reason="Wrong pharmacy", scope="all", network_status=ACCEPTED
    )
    life.tell(
        "cancel.responded", HOUR, **life.answer(), request_id=request, decision="approved", note="Removed from profile"
    )


def account_news(life: Life) -> None:
    """A ping and a prescriber's new service levels: events about the account."""
    life.announce("system.ping", 0 * MINUTE, message="hello")
    life.announce(
        "prescriber.enrollment_changed",
        HOUR,
        prescriber=life.cast.prescriber,
        identity_proofing="verified",
        epcs_status="active",
        service_levels=["new", "renewal", "change", "cancel", "epcs"],
    )


PLOTS: tuple[Callable[[Life], None], ...] = (
    mail_order,
    controlled,
    second_attempt,
    renewal_answered,
    renewal_superseded,
    changed,
    cancelled,
    account_news,
)


def _renewal(request_id: str, *, follow_up_count: int) -> Body:
    return {
        "request_id": request_id,
        "matched": True,
        "match_basis": "pon",
        "refills_requested": 3,
        "follow_up_count": follow_up_count,
    }
