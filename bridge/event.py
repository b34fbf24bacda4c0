"""The types that travel through the whole ingress: a delivery, its events, or the reason to park it."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal, NamedTuple

import orjson

from bridge.contract.envelope import EventRecord
from bridge.contract.events import EVENT_MODELS
from bridge.errors import UnknownRecordError

# A sender's clock may run ahead by this much; a later timestamp is clamped, for ordering only (docs/contract.md §3).
AHEAD_MAX = timedelta(minutes=5)

UNRECOGNIZED_TYPE = "drx.unrecognized"

# How an event is durable: acknowledged by all in-sync replicas, or on this host's disk.
Durable = Literal["committed", "spooled"]
# Receipts whose encoded forms are cached; deliveries processed together share one.
RECEIPTS_MAX = 8
# Final state of an accepted event; `failed`: it is not durable, and is not written any more.
Settled = Literal["committed", "spooled", "failed"]


class Delivery(NamedTuple):
    """One verified HTTP POST; a tuple, since creating a frozen dataclass takes four times as long."""

    source: str  # configured name of the sender
    environment: str  # `production` or `sandbox`, as configured for the source
    id: str  # the webhook id; the same on every retry
    received_at: datetime  # receipt of the complete body, aware UTC
    body: bytes  # exact bytes received
    body_sha256: str  # lower-case hex digest of `body`
    key_slot: str  # slot of the secret that verified it
    traceparent: str  # W3C trace context for the records
    headers: Mapping[str, str]  # request headers without credentials, names in lower case, for a parked record
    origin: str = ""  # `replay` or `import` if an operator posted it; empty if the sender did
    first_received_at: datetime | None = None  # aware UTC; first receipt of a replay, or time of an import

    def __repr__(self) -> str:
        """Identify the delivery without its content."""
        return f"Delivery(source={self.source!r}, id={self.id!r})"


class Identity(NamedTuple):
    """The identity by which repeats are recognised, of an event or of a parked delivery."""

    source: str  # configured name of the sender
    id: str  # event id; the webhook id for a parked delivery
    body_sha256: str  # lower-case hex digest of its body, or of the event's own part of the body
    reason: str = ""  # empty for an event; else the reason to park the delivery


class Event(NamedTuple):
    """The fact inside a delivery, immutable, identified by (source, id)."""

    id: str  # event id
    type: str  # one of `contract.events.EVENT_MODELS`, such as `prescription.sent`
    source: str  # configured name of the sender
    key: str  # record key; events of one key keep their order
    occurred_at: datetime  # when it happened, by the source's clock, aware UTC
    received_at: datetime  # receipt of its delivery, aware UTC
    # The whole Avro record: names as in the schema; instants aware UTC, decimals `Decimal`, dates `date`.
    value: Mapping[str, object]
    mapping: str = ""  # first 12 hex digits of the SHA-256 of its mapping file, or empty
    # Lower-case hex digest of its own part of the body if its id is that of the part, since several bodies may contain
    # the same part; else empty.
    sha256: str = ""
    # The whole Avro record without the prefix of the wire format, if the fast path made it; then `value` has only
    # `prescription_id`.
    encoded: bytes = b""

    def __repr__(self) -> str:
        """Identify the event without its content."""
        return f"Event(id={self.id!r}, type={self.type!r}, source={self.source!r})"

    @property
    def ordering_time(self) -> datetime:
        """Return `occurred_at`, at most `AHEAD_MAX` after the receipt: a wrong clock must not win permanently."""
        if self.occurred_at <= self.received_at:  # nearly always
            return self.occurred_at
        return min(self.occurred_at, self.received_at + AHEAD_MAX)

    def typed(self) -> EventRecord:
        """Return `value` as the contract's model of this type; `isinstance` or `match` narrows it to its class.

        The classes are in `bridge.contract`, one for each type: `RenewalRequested`, `PrescriptionSent`.

        Raises:
            UnknownRecordError: The type has no model, as `drx.unrecognized`.
        """
        model = EVENT_MODELS.get(self.type)
        if model is None:
            raise UnknownRecordError
        return model.model_validate(self.value)

    def to_json(self) -> str:
        """Return `value` as JSON text: instants ISO 8601 in UTC with `Z`, dates `YYYY-MM-DD`, decimals as strings.

        Bytes, which only `drx.unrecognized` has, become base64. It holds health information.
        """
        return orjson.dumps(self.value, default=plain, option=orjson.OPT_UTC_Z).decode()


def identity_in(delivery: Delivery, event: Event) -> Identity:
    """Return the identity of an event of a delivery."""
    return Identity(event.source, event.id, event.sha256 or delivery.body_sha256)


@dataclass(frozen=True, slots=True)
class ParkReason:
    """Why a verified delivery is parked instead of mapped to events."""

    reason: str  # key of `response_codes.PARKED`; the only part in metrics
    detail: str = ""  # from a closed list of the reason, or empty
    # Path of the invalid field, array indexes as `*`, or empty. It is part of the response: never a value, or a name
    # that only the body has.
    field: str = ""
    key: str | None = None  # prescription id if valid; None: the webhook id is the record key


def instant(at: datetime) -> str:
    """Format a moment as ISO 8601 in UTC, with microseconds."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def plain(value: object) -> object:
    """Convert values without a JSON form: decimals to text without an exponent, bytes to base64."""
    if isinstance(value, Decimal):
        return f"{value:f}"  # never with an exponent
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError
