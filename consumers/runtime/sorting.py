"""Sort the records of a consumer: an event for its handler, one to skip, or one that cannot be read.

`Sorter` decides without I/O. Where the schema of a record is not known, `Learner` asks the registry.
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
from bridge.kafka.record import PART_SHA256
from bridge.kafka.transport import ConsumedRecord
from bridge.runtime.backoff import backoff_s
from bridge.runtime.logging import log
from consumers.api import Consumer
from consumers.runtime.failure import Failure, classify
from consumers.runtime.ledger import Inbox

KNOWN_TYPES = frozenset({*EVENT_MODELS, UNRECOGNIZED_TYPE})

# A producer may be ahead of the registry's replicas: that a schema is unknown counts after this.
UNKNOWN_GRACE_S = 60.0
# Between two requests for the schema of a record, doubled each time.
AGAIN_FIRST_S = 1.0
AGAIN_MAX_S = 15.0
# Requests at a time: a registry answers in milliseconds, and a flood of made-up ids must not become one of requests.
ASKING_MAX = 4


class UnknownTypeError(BridgeError):
    """A record of a type that this release does not know, of a consumer whose `unknown` is `fail`."""

    code = "unknown_type"


class Skip(Enum):
    """Why a record is settled without a call of the handler."""

    UNWANTED = auto()
    """The consumer does not handle its type."""
    UNKNOWN = auto()
    """The consumer handles its type, which this release does not know, and skips such records."""


class Sorted(NamedTuple):
    """A record that the handler wants, as an event."""

    record: ConsumedRecord
    event: Event
    inbox: Inbox
    ordinal: str
    traceparent: str = ""
    origin: str = ""


class Sorter:
    """Sorts the records of one consumer; one that its header shows to be unwanted is never decoded."""

    def __init__(self, consumer: Consumer, decoder: EventDecoder) -> None:
        self._consumer = consumer
        self._decode = decoder.decode
        self._skips: dict[bytes, Skip | None] = {}

    def skips(self, record: ConsumedRecord) -> Skip | None:
        """Return why a record is skipped, as far as its header alone shows."""
        for name, content in reversed(record.headers):
            if name == "ce_type":
                return self._skips_type(content)
        return None

    def sort(self, record: ConsumedRecord) -> Sorted | Failure | Skip:
        """Return the event, or why there is none."""
        headers = dict(record.headers)  # the last of a name counts, as in `identity_of`
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
        return Sorted(record, event, Inbox(event.source, event.id, digest), ordinal, traceparent, origin)

    def _skips_type(self, content: bytes) -> Skip | None:
        """Match each known type once; foreign types are not remembered, since their number has no bound."""
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
    """Asks the registry for the schema of a record that is not known, while the key of the record waits."""

    def __init__(
        self,
        decoder: EventDecoder,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Ask by `decoder`; `clock` counts seconds."""
        self._decoder = decoder
        self._clock = clock
        self._sleep = sleep
        self._slots = asyncio.Semaphore(ASKING_MAX)
        self._answers = True

    async def learn(self, record: ConsumedRecord) -> Failure | None:
        """Return once the schema of a record is known; or why it cannot be read, once that is certain."""
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
