"""Plausible prescriptions as contract v1 events: a history of each plot."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Literal

Environment = Literal["production", "sandbox"]
Body = dict[str, Any]

# Crockford's base 32, in which DRx writes its ids (samples: evt_ and 26 characters, rx_ and 6).
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
VERIFY = {"kind": "verify", "code": "010"}  # SCRIPT Verify: the receiver has taken the message
ACCEPTED = {"kind": "status", "code": "000"}  # SCRIPT Status: the network has taken the message
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# All of them past for any clock this runs under, so that no event is ahead of its receipt; fixed, so that one seed is
# one stream on any day.
EPOCH = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
FIRST_NAMES = ("Marisol", "Theo", "Wanda", "Amadou", "Priya", "Søren", "Lucía", "Kenji")
LAST_NAMES = ("Quintero", "Marsh", "Kowalczyk", "Diallo", "Raman", "Lindqvist", "Ortega", "Mori")
PLACES = (("Novi", "48374"), ("Wixom", "48393"), ("Milford", "48381"), ("Howell", "48843"))
MEDICATIONS = (
    ("lisinopril 10 mg oral tablet", "00591040701", "314076", "30", 30, "Take one tablet by mouth every morning"),
    ("atorvastatin 20 mg oral tablet", "00093505798", "617310", "90", 90, "Take one tablet by mouth at bedtime"),
    ("metformin 500 mg oral tablet", "00093104801", "861007", "60", 30, "Take one tablet by mouth twice a day"),
)


@dataclass(frozen=True, slots=True)
class Cast:
    """Who and what one prescription is about; values as the contract writes them."""

    account_id: str
    patient: Mapping[str, object]
    prescriber: Mapping[str, object]
    pharmacy: Mapping[str, object]
    medication: Mapping[str, object]


def token(rng: random.Random, length: int) -> str:
    """Draw an id of `length` characters."""
    return "".join(rng.choices(ALPHABET, k=length))


class Life:
    """Writes the events of one prescription in the order in which they happen.

    Args:
        cast: Who takes part.
        rng: Where ids and small delays come from; equal state, equal life.
        starts_at: Aware UTC time of the first event.
        environment: What the events say of themselves.
    """

    def __init__(
        self, cast: Cast, *, rng: random.Random, starts_at: datetime, environment: Environment = "sandbox"
    ) -> None:
        """Open an empty life; the first event fixes the day the order was written."""
        self.cast = cast
        self.events: list[Body] = []
        self.prescription_id = f"rx_{token(rng, 10)}"
        self._rng = rng
        self._now = starts_at
        self._environment = environment
        self._sequence = 0
        self._message_id = ""
        self._reference = str(rng.randrange(1_000_000, 9_999_999))

    @property
    def today(self) -> date:
        """Day of the latest event."""
        return self._now.date()

    @property
    def written_on(self) -> str:
        """Day of the first event: when the order was written."""
        return str(self.events[0]["timestamp"])[:10] if self.events else self.today.isoformat()

    def instant(self, after: timedelta) -> str:
        """Write the time `after` the latest event as the contract does."""
        return (self._now + after).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def tell(self, event_type: str, after: timedelta, *, full: bool = False, **fields: Any) -> None:
        """Add the next event about the prescription; `full` repeats patient, prescriber, pharmacy and medication."""
        self._sequence += 1
        common: Body = {
            "prescription_id": self.prescription_id,
            "prescriber_order_number": f"PON-{self.prescription_id[3:]}",
        }
        if full:
            common |= {
                "patient": self.cast.patient,
                "prescriber": self.cast.prescriber,
                "pharmacy": self.cast.pharmacy,
                "medication": {**self.cast.medication, "written_date": self.written_on},
            }
        self._add(event_type, after, {"sequence": self._sequence}, common | fields)

    def announce(self, event_type: str, after: timedelta, **fields: Any) -> None:
        """Add an event about the account, not about the prescription."""
        self._add(event_type, after, {}, fields)

    def draft(self, origin: str = "new") -> None:
        """Open with the order in the queue of the prescriber."""
        self.tell("prescription.created", timedelta(), full=True, origin=origin, awaiting="signature")

    def transmit(self, after: timedelta = 9 * MINUTE, attempt: int = 1) -> None:
        """Send the order under a message id of its own."""
        self._message_id = self._new_message_id()
        self.tell(
            "prescription.sent",
            after,
            full=True,
            message_id=self._message_id,
            delivery_mode="erx",
            attempt=attempt,
            network_status=ACCEPTED,
        )

    def confirm(self, after: timedelta = MINUTE) -> None:
        """Let the pharmacy confirm the latest message."""
        self.tell("prescription.processed", after, **self.answer(), network_status=VERIFY)

    def fill(self, status: str, after: timedelta, **fields: Any) -> None:
        """Add dispensing news; the whole quantity is given out when it says `dispensed`."""
        if status == "dispensed":
            fields = {"quantity_dispensed": self.cast.medication["quantity"], "quantity_remaining": "0", **fields}
        if status in {"dispensed", "partially_dispensed"}:
            fields["fill_date"] = (self._now + after).date().isoformat()
        self.tell(
            "fill.status_changed",
            after,
            rx_reference_number=self._reference,
            fill_number=0,
            fill_status=status,
            **fields,
        )

    def answer(self) -> Body:
        """Fields by which a pharmacy's message points at the latest one of ours."""
        return {
            "message_id": self._new_message_id(),
            "relates_to_message_id": self._message_id,
            "rx_reference_number": self._reference,
        }

    def request_id(self, kind: str) -> str:
        """Name a request of the given kind, such as `rr`."""
        return f"{kind}_{self._rng.randrange(10_000, 99_999)}"

    def _new_message_id(self) -> str:
        return f"{self._rng.getrandbits(128):032x}"

    def _add(self, event_type: str, after: timedelta, envelope: Body, fields: Body) -> None:
        self._now += after + timedelta(microseconds=self._rng.randrange(1_000_000))
        event = {
            "id": f"evt_{token(self._rng, 26)}",
            "type": event_type,
            "version": "1",
            "timestamp": self.instant(timedelta()),
            "source": "h2h-drx",
            "environment": self._environment,
            "account_id": self.cast.account_id,
        }
        self.events.append(event | envelope | {"data": fields})


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


def a_cast(rng: random.Random) -> Cast:
    """Draw people, a place and a medicine; every number is one that is reserved for tests or belongs to nobody."""
    city, postal_code = rng.choice(PLACES)
    description, ndc, rxcui, quantity, days, sig = rng.choice(MEDICATIONS)
    number = rng.randrange(1, 10_000)
    address = {"line1": f"{number} Birch Ln", "city": city, "state": "MI", "postal_code": postal_code, "country": "US"}
    return Cast(
        account_id=f"acct_{4000 + number % 50}",
        patient=_a_patient(rng, number, address=address),
        prescriber={
            "id": f"prv_{300 + number % 40}",
            "npi": f"19999999{number % 40:02d}",
            "spi": f"999999999{number % 40:04d}",
            "dea_number": f"BO999{number % 40:04d}",
            "first_name": "Adaeze",
            "last_name": "Okafor",
        },
        pharmacy={
            "ncpdp_id": f"99990{number % 100:02d}",
            "npi": f"19999998{number % 100:02d}",
            "name": f"Maple Street Pharmacy #{number % 100:03d}",
            "phone": _phone(rng),
            "fax": _phone(rng),
            "address": {**address, "line1": "100 Maple St"},
        },
        medication={
            "description": description,
            "ndc": ndc,
            "rxcui": rxcui,
            "quantity": quantity,
            "quantity_unit": "C48542",
            "days_supply": days,
            "refills": 3,
            "sig": sig,
            "substitution_allowed": True,
        },
    )


def _a_patient(rng: random.Random, number: int, *, address: Mapping[str, object]) -> dict[str, object]:
    return {
        "id": f"pat_{number}",
        "mrn": f"MRN-{number:07d}",
        "first_name": rng.choice(FIRST_NAMES),
        "last_name": rng.choice(LAST_NAMES),
        "date_of_birth": f"{rng.randrange(1935, 2015)}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}",
        "sex": rng.choice("FMU"),
        "phone": _phone(rng),
        "email": f"patient.{number}@example.test",
        "address": address,
    }


def _phone(rng: random.Random) -> str:
    # 555-0100 to 555-0199 are reserved for fiction (ATIS-0300115).
    return f"+12485550{rng.randrange(100, 200)}"
