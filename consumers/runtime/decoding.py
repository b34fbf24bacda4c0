"""Decode the records of a consumer: to events for its handler, records to skip, and unreadable ones.

`RecordDecoder` does no I/O. If the schema of a record is unknown, `Learner` asks the registry.
"""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import NamedTuple

from bridge.avro.codec import UNKNOWN_SCHEMA_ID
from bridge.avro.event_decoder import EventDecoder
from bridge.contract.events import EVENT_MODELS
from bridge.errors import BridgeError, DecodeError, TransientError, UnknownRecordError
from bridge.event import UNRECOGNIZED_TYPE, Event
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.record import PART_SHA256
from bridge.runtime.backoff import backoff_s
from bridge.runtime.logging import log
from consumers.api import Consumer
from consumers.runtime.ledger import Inbox
from consumers.runtime.retry_policy import Failure, classify

KNOWN_TYPES = frozenset({*EVENT_MODELS, UNRECOGNIZED_TYPE})

# Seconds after which a schema counts as unknown, since a producer may be ahead of the registry's replicas.
UNKNOWN_GRACE_S = 60.0
# Seconds between two requests for the schema of a record, doubled each time.
AGAIN_FIRST_S = 1.0
AGAIN_MAX_S = 15.0
# Concurrent requests: a registry responds in milliseconds, and a flood of invalid ids must not overload it.
ASKING_MAX = 4


class UnknownTypeError(BridgeError):
    """A record of a type unknown to this release, for a consumer whose `unknown` is `fail`."""

    code = "unknown_type"


class Skip(Enum):
    """Why a record is settled without calling the handler."""

    UNWANTED = auto()
    """The consumer does not handle its type."""
    UNKNOWN = auto()
    """The consumer's patterns match its type, which this release does not know, and it skips such records."""


class Decoded(NamedTuple):
    """A record for the handler, as an event."""

    record: ConsumedRecord
    event: Event
    inbox: Inbox
    ordinal: str
    traceparent: str = ""
    origin: str = ""


class RecordDecoder:
    """Decodes the records of one consumer, except those that their header already excludes."""

    def __init__(self, consumer: Consumer, decoder: EventDecoder) -> None:
        self._consumer = consumer
        self._decode = decoder.decode
        self._skips: dict[bytes, Skip | None] = {}

    def skips(self, record: ConsumedRecord) -> Skip | None:
        """Return why a record is skipped, if its header already shows it."""
        for name, content in reversed(record.headers):
            if name == "ce_type":
                return self._skips_type(content)
        return None

    def decode(self, record: ConsumedRecord) -> Decoded | Failure | Skip:
        """Return the event, or why the handler does not get it."""
        headers = dict(record.headers)  # the last header of a name is used, as in `identity_of`
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
        digest = (headers.get(PART_SHA256) or headers.get("drx_body_sha256", b"")).decode("ascii", "replace")
        ordinal = headers.get("drx_ordinal", b"").decode("ascii", "replace")
        traceparent = headers.get("traceparent", b"").decode("ascii", "replace")
        origin = headers.get("drx_origin", b"").decode("ascii", "replace")
        return Decoded(record, event, Inbox(event.source, event.id, digest), ordinal, traceparent, origin)

    def _skips_type(self, content: bytes) -> Skip | None:
        """Match each known type once; foreign types are not cached, since their number is unbounded."""
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


class Learner:
    """Fetches unknown schemas of records from the registry, while the keys of the records wait."""

    def __init__(
        self,
        decoder: EventDecoder,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`decoder` asks the registry; `clock` counts seconds."""
        self._decoder = decoder
        self._clock = clock
        self._sleep = sleep
        self._slots = asyncio.Semaphore(ASKING_MAX)
        self._answers = True

    async def learn(self, record: ConsumedRecord) -> Failure | None:
        """Return once the schema of a record is known, or with the reason once it certainly cannot be read."""
        refused_at: float | None = None
        for times in itertools.count(1):
            try:
                async with self._slots:
                    await self._decoder.learn(record)
            except TransientError as exc:
                if self._answers:
                    log.warning("worker.registry_away", code=exc.code)
                self._answers = False
            except DecodeError as exc:
                self._answers = True
                now = self._clock()
                refused_at = now if refused_at is None else refused_at
                if exc.code != UNKNOWN_SCHEMA_ID or now - refused_at >= UNKNOWN_GRACE_S:
                    return classify(exc)
            else:
                self._answers = True
                return None
            await self._sleep(backoff_s(times, first_s=AGAIN_FIRST_S, max_s=AGAIN_MAX_S, spread=max))
        return None
