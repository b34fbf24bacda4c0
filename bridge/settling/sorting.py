"""What a record is to a consumer: an event for its handler, nothing to it, or one that cannot be read."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from bridge.consumer import Consumer
from bridge.contract.events import EVENT_MODELS
from bridge.errors import BridgeError, DecodeError, UnknownRecordError
from bridge.event import UNRECOGNIZED_TYPE, Event
from bridge.kafka.transport import ConsumedRecord
from bridge.settling.failure import Failure, classify
from bridge.settling.ledger import Inbox

_HEADERS = ("drx_body_sha256", "drx_ordinal", "traceparent", "drx_origin")
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
        self._skips: dict[bytes, bool] = {}

    def skips(self, record: ConsumedRecord) -> bool:
        """Whether the header alone says that the record is nothing to this consumer."""
        for name, content in record.headers:
            if name == "ce_type":
                return self._skips_type(content)
        return False

    def sort(self, record: ConsumedRecord) -> Sorted | Failure | None:
        """Return the event, or why there is none; None when the consumer has no use for it.

        Raises:
            UnknownTypeError: The consumer fails for types that are not known.
        """
        headers = dict(record.headers[::-1])  # the first of a name counts
        content = headers.get("ce_type")
        if content is not None and self._skips_type(content):
            return None
        try:
            event = self._decode(record)
        except UnknownRecordError as exc:
            return self._unknown(exc)
        except DecodeError as exc:
            if content is not None and content.decode("utf-8", "replace") not in KNOWN_TYPES:
                return self._unknown(UnknownRecordError())
            return classify(exc)
        if content is None and not self._consumer.wants(event.type):
            return None
        digest, ordinal, traceparent, origin = (headers.get(name, b"").decode("ascii", "replace") for name in _HEADERS)
        return Sorted(record, event, Inbox(event.source, event.id, digest), ordinal, traceparent, origin)

    def _skips_type(self, content: bytes) -> bool:
        """Types come from a closed list, so each is matched once; a foreign one is not worth remembering."""
        skips = self._skips.get(content)
        if skips is None:
            name = content.decode("utf-8", "replace")
            skips = not self._consumer.wants(name)
            if name not in KNOWN_TYPES:
                return skips or self._consumer.unknown == "skip"
            self._skips[content] = skips
        return skips

    def _unknown(self, exc: UnknownRecordError) -> Failure | None:
        if self._consumer.unknown == "fail":
            raise UnknownTypeError from exc
        return None if self._consumer.unknown == "skip" else classify(exc)
