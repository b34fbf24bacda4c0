"""What a record is to a consumer: an event for its handler, nothing to it, or one that cannot be read."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple, Protocol

from bridge.contract.events import EVENT_MODELS
from bridge.errors import BridgeError, DecodeError, UnknownRecordError
from bridge.event import UNRECOGNIZED_TYPE, Event
from bridge.kafka.transport import ConsumedRecord
from consumers.api import Consumer
from consumers.runtime.failure import Failure, classify
from consumers.runtime.ledger import Inbox

KNOWN_TYPES = frozenset({*EVENT_MODELS, UNRECOGNIZED_TYPE})


class Decoder(Protocol):
    """Turns records into events."""

    def decode(self, record: ConsumedRecord) -> Event:
        """Return the event of a record.

        Raises:
            DecodeError: It holds none that can be read; after `unknown_schema_id`, `learn` may help.
        """

    async def learn(self, record: ConsumedRecord) -> None:
        """Learn the schema a record was written with; return when it is known.

        Raises:
            DecodeError: The registry has answered, and does not know it.
            TransientError: Nobody answers.
        """


class UnknownTypeError(BridgeError):
    """A record of a type that this release does not know, and the consumer says that nothing may go on then."""

    code = "unknown_type"


class Skip(Enum):
    """Why a record is settled unseen."""

    UNWANTED = auto()
    """Its type is none of the consumer's."""
    UNKNOWN = auto()
    """Its type is one of the consumer's and not known to this release, and the consumer says `skip`."""


class Sorted(NamedTuple):
    """A record that the handler wants, as an event."""

    record: ConsumedRecord
    event: Event
    inbox: Inbox
    ordinal: str
    traceparent: str = ""
    origin: str = ""


class Sorter:
    """Sorts the records of one consumer; what its header shows to be unwanted is never decoded."""

    def __init__(self, consumer: Consumer, decoder: Decoder) -> None:
        """Sort for `consumer`."""
        self._consumer = consumer
        self._decode = decoder.decode
        self._skips: dict[bytes, Skip | None] = {}

    def skips(self, record: ConsumedRecord) -> Skip | None:
        """Return why the header alone says that the record is nothing to this consumer."""
        for name, content in record.headers:
            if name == "ce_type":
                return self._skips_type(content)
        return None

    def sort(self, record: ConsumedRecord) -> Sorted | Failure | Skip:
        """Return the event, or why there is none.

        Raises:
            UnknownTypeError: The consumer fails for types that are not known.
        """
        headers = dict(record.headers[::-1])  # the first of a name counts
        content = headers.get("ce_type")
        skip = None if content is None else self._skips_type(content)
        if skip is not None:
            return skip
        try:
            event = self._decode(record)
        except UnknownRecordError as exc:
            return self._unknown(exc)
        except DecodeError as exc:
            if content is not None and content.decode("utf-8", "replace") not in KNOWN_TYPES:
                return self._unknown(UnknownRecordError())
            return classify(exc)
        if content is None and not self._consumer.wants(event.type):
            return Skip.UNWANTED
        digest = headers.get("drx_body_sha256", b"").decode("ascii", "replace")
        ordinal = headers.get("drx_ordinal", b"").decode("ascii", "replace")
        traceparent = headers.get("traceparent", b"").decode("ascii", "replace")
        origin = headers.get("drx_origin", b"").decode("ascii", "replace")
        return Sorted(record, event, Inbox(event.source, event.id, digest), ordinal, traceparent, origin)

    def _skips_type(self, content: bytes) -> Skip | None:
        """Types come from a closed list, so each is matched once; a foreign one is not worth remembering."""
        try:
            return self._skips[content]
        except KeyError:
            name = content.decode("utf-8", "replace")
        skip = None if self._consumer.wants(name) else Skip.UNWANTED
        if name in KNOWN_TYPES:
            self._skips[content] = skip
        elif skip is None and self._consumer.unknown == "skip":
            return Skip.UNKNOWN
        return skip

    def _unknown(self, exc: UnknownRecordError) -> Failure | Skip:
        if self._consumer.unknown == "fail":
            raise UnknownTypeError from exc
        return Skip.UNKNOWN if self._consumer.unknown == "skip" else classify(exc)
