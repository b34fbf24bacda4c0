"""The nouns that travel the whole way: a delivery, the events inside it, or why it holds none."""

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

# A sender's clock may run ahead by this much before the receipt bounds the event's place in the order
# (docs/contract.md §3: a timestamp more than 5 min ahead is clamped for ordering only).
AHEAD_MAX = timedelta(minutes=5)

UNRECOGNIZED_TYPE = "drx.unrecognized"

# How something is durable: acknowledged by all in-sync replicas, or on this host's disk.
Durable = Literal["committed", "spooled"]
# Receipts whose encoded forms are cached; deliveries that are taken together have one.
RECEIPTS_MAX = 8
# What became of something accepted; `failed` means that it is not durable, and nothing more is done about it.
Settled = Literal["committed", "spooled", "failed"]


class Delivery(NamedTuple):
    """One verified HTTP POST; a tuple, which is made in a quarter of the time of a frozen dataclass."""

    source: str  # configured name of the sender
    environment: str  # `production` or `sandbox`: what this source is configured to send
    id: str  # the webhook id; the same on every retry
    received_at: datetime  # receipt of the complete body, aware UTC
    body: bytes  # exact bytes received
    body_sha256: str  # lower-case hex digest of `body`
    key_slot: str  # slot of the secret that verified it
    traceparent: str  # W3C trace context for the records
    headers: Mapping[str, str]  # safe request headers, names in lower case, for a parked record
    origin: str = ""  # `replay` or `import` if an operator posted it; empty if the sender did
    first_received_at: datetime | None = None  # aware UTC, if it was received before; of an import, when it happened

    def __repr__(self) -> str:
        """Identify the delivery without its content."""
        return f"Delivery(source={self.source!r}, id={self.id!r})"


class Identity(NamedTuple):
    """What makes two deliveries of the same thing one: of an event, or of a delivery that holds none."""

    source: str  # configured name of the sender
    id: str  # event id; of a parked delivery the webhook id
    body_sha256: str  # lower-case hex digest of the body it came in, or of its own part of that
    reason: str = ""  # empty for an event; else why the delivery is parked


class Event(NamedTuple):
    """The fact inside a delivery, immutable, identified by (source, id)."""

    id: str  # event id
    type: str  # one of the twenty types, such as `prescription.sent`
    source: str  # configured name of the sender
    key: str  # record key; events of one key keep their order
    occurred_at: datetime  # when it happened at the source, aware UTC, by the source
    received_at: datetime  # receipt of its delivery, aware UTC
    # The whole Avro record: names as in the schema; instants aware UTC, decimals `Decimal`, dates `date`.
    value: Mapping[str, object]
    mapping: str = ""  # first 12 hex digits of the SHA-256 of the mapping file that made it, or empty
    # Lower-case hex digest of its own part of the body, if its id is of that: other bodies may have the same part.
    sha256: str = ""
    # The whole Avro record without the prefix of the wire format, if the fast path of the ingress made it: then `value`
    # has `prescription_id` only.
    encoded: bytes = b""

    def __repr__(self) -> str:
        """Identify the event without its content."""
        return f"Event(id={self.id!r}, type={self.type!r}, source={self.source!r})"

    @property
    def ordering_time(self) -> datetime:
        """`occurred_at`, but never more than `AHEAD_MAX` after the receipt: a wrong clock must not win for ever."""
        if self.occurred_at <= self.received_at:  # nearly always
            return self.occurred_at
        return min(self.occurred_at, self.received_at + AHEAD_MAX)

    def typed(self) -> EventRecord:
        """Return `value` as the contract's model of this type; `isinstance` or `match` narrows it to its class.

        The classes are in `bridge.contract`, one for each type: `RenewalRequested`, `PrescriptionSent`.

        Raises:
            UnknownRecordError: The type has no model: it is `drx.unrecognized`.
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
    """Return the identity of an event that came in a delivery."""
    return Identity(event.source, event.id, event.sha256 or delivery.body_sha256)


@dataclass(frozen=True, slots=True)
class ParkReason:
    """Why a verified delivery is set aside instead of becoming events."""

    reason: str  # word of `answers.PARKED`; the only part that metrics carry
    detail: str = ""  # word of the reason's own closed list, or empty
    # Path of the field at fault, array indexes as `*`, for the answer too; never a value or a name that only the body
    # has. Or empty.
    field: str = ""
    key: str | None = None  # prescription id if it could be read and is valid; the webhook id is the key otherwise


def instant(at: datetime) -> str:
    """Write a moment as ISO 8601 in UTC, with microseconds."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def plain(value: object) -> object:
    """Convert what JSON has no form for: decimals to text without an exponent, bytes to base64."""
    if isinstance(value, Decimal):
        return f"{value:f}"  # never with an exponent
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError
