"""Writes one prescription's life as contract v1 events: the envelope, the ids and the clock of a DRx."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
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
