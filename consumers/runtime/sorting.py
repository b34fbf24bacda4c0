"""What a record is to a consumer: an event for its handler, nothing to it, or one that cannot be read.

`Sorter` decides without I/O. Where the schema of a record is not known, `Learner` asks the registry in the background.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple, Protocol

from bridge.avro.codec import UNKNOWN_SCHEMA_ID, unknown_schema
from bridge.contract.events import EVENT_MODELS
from bridge.errors import BridgeError, DecodeError, TransientError, UnknownRecordError
from bridge.event import UNRECOGNIZED_TYPE, Event
from bridge.kafka.transport import ConsumedRecord
from consumers.api import Consumer
from consumers.runtime.failure import Failure, classify
from consumers.runtime.ledger import Inbox

KNOWN_TYPES = frozenset({*EVENT_MODELS, UNRECOGNIZED_TYPE})

# A producer may be ahead of the registry's replicas: that a schema is unknown counts after this.
UNKNOWN_GRACE_S = 60.0
# Between two requests for one schema.
AGAIN_S = 1.0
# How long "unknown" counts after the grace: later the registry is asked again, since a key may have been released.
REFUSED_S = 5.0
# Schemas remembered; a flood of made-up ids must not grow without a bound.
REQUESTS_MAX = 1024


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
            DecodeError: The registry does not know it.
            TransientError: The registry does not answer.
        """


class UnknownTypeError(BridgeError):
    """A record of a type that this release does not know, of a consumer whose `unknown` is `fail`."""

    code = "unknown_type"


class Skip(Enum):
    """Why a record is settled unseen."""

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

    def __init__(self, consumer: Consumer, decoder: Decoder) -> None:
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
        """Return the event, or why there is none.

        Raises:
            UnknownTypeError: The consumer fails for types that are not known.
        """
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
        digest = headers.get("drx_body_sha256", b"").decode("ascii", "replace")
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


@dataclass(slots=True)
class _Request:
    task: asyncio.Task[None] | None = None
    asked_at: float = 0.0
    refused_at: float | None = None
    failure: Failure | None = None
    away: bool = False


class Learner:
    """Asks the registry for schemas in the background; the record is tried again after a while."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        clock: Callable[[], float] | None = None,
        grace_s: float = UNKNOWN_GRACE_S,
        again_s: float = AGAIN_S,
    ) -> None:
        """Ask by `decoder`; `clock` counts seconds, the loop's by default."""
        self._decoder = decoder
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._grace_s = grace_s
        self._again_s = again_s
        self._requests: dict[Hashable, _Request] = {}

    def ask(self, record: ConsumedRecord) -> float | Failure:
        """Return after how many seconds to try the record again, or that there is no such schema."""
        key = unknown_schema(record.value or b"", record.headers)
        if key is None:
            return Failure("poison", UNKNOWN_SCHEMA_ID)
        request = self._requests.get(key)
        if request is None:
            if len(self._requests) >= REQUESTS_MAX:
                self._requests.pop(next(iter(self._requests)))
            request = self._requests[key] = _Request()
        if request.failure is not None:
            return request.failure
        now = self._clock()
        if self._refused(request, now):
            return Failure("poison", UNKNOWN_SCHEMA_ID)
        if request.task is None or (request.task.done() and now - request.asked_at >= self._again_s):
            request.asked_at = now
            request.task = asyncio.get_running_loop().create_task(self._learn(key, request, record))
        return self._again_s

    def away(self, record: ConsumedRecord) -> bool:
        """Whether the registry did not answer when the record's schema was last asked for."""
        request = self._requests.get(unknown_schema(record.value or b"", record.headers))
        return request is not None and request.away

    async def end(self) -> None:
        """Cancel what is still asked for."""
        tasks = [each.task for each in self._requests.values() if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _refused(self, request: _Request, now: float) -> bool:
        """Whether the registry does not know the schema, now and all through the grace."""
        if request.refused_at is None or request.away or request.task is None or not request.task.done():
            return False
        return now - request.refused_at >= self._grace_s and now - request.asked_at < REFUSED_S

    async def _learn(self, key: Hashable, request: _Request, record: ConsumedRecord) -> None:
        try:
            await self._decoder.learn(record)
        except TransientError:
            request.away = True
        except DecodeError as exc:
            request.away = False
            if exc.code == UNKNOWN_SCHEMA_ID:
                request.refused_at = request.refused_at if request.refused_at is not None else self._clock()
            else:
                request.failure = classify(exc)
        else:
            self._requests.pop(key, None)
