"""The public port: read, admit, verify, map, publish, answer, in this order and nowhere else."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal, Protocol

import orjson
import structlog

from bridge.errors import DeliveryRefusedError, NotDurableError, TooLargeError
from bridge.event import Delivery, EncodedEvent, ParkReason
from bridge.ingress.deduplicator import Deduplicator, Outcome
from bridge.ingress.delivery_ids import id_in_bucket_before, id_of_body, id_of_other_body, identities_as
from bridge.ingress.headers import check_content, head_rules, read_heads, safe_headers, trace_of
from bridge.ingress.json_body import parse
from bridge.ingress.metrics import UNKNOWN, Deferral, Observations, Request
from bridge.ingress.profiles.profile import Encoded, Mapped, Profile
from bridge.ingress.proof import REASONS, Proof, Raw, Scheme, Secrets
from bridge.ingress.rate_limit import AddressLimit, RateLimit
from bridge.ingress.schemes.network import FORWARDED
from bridge.runtime import failpoints
from bridge.runtime.http import Answer
from bridge.runtime.logging import trail

log = structlog.get_logger()

PREFIX = "/webhooks/"
# The status codes of all answers (docs/contract.md §2): by outcome, and of what is refused by code.
STATUS: Mapping[str, int] = {"accepted": 200, "duplicate": 200, "spooled": 202, "parked": 202, "unavailable": 503}
REFUSAL_STATUS: Mapping[str, int] = {
    "malformed_http": 400,
    **dict.fromkeys((*REASONS, "header_duplicated"), 401),
    "not_found": 404,
    "method_not_allowed": 405,
    "body_too_large": 413,
    "content_type": 415,
    "content_encoding": 415,
    "rate_limited": 429,
}
# Seconds; spread so that senders turned away together do not come back together.
RETRY_AFTER_S = (1, 5)
_LINES = {"accepted": "delivery.accepted", "duplicate": "delivery.duplicate", "spooled": "delivery.spooled"}
_OPENINGS = {outcome: b'{"outcome":"' + outcome.encode() + b'","id":' for outcome in _LINES}
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_RATE_LIMITED = orjson.dumps({"outcome": "refused", "code": "rate_limited"})
_REFUSALS = {
    code: Answer(
        status,
        orjson.dumps({"outcome": "refused", "code": code}),
        headers=(("Allow", "POST"),) if code == "method_not_allowed" else (),
    )
    for code, status in REFUSAL_STATUS.items()
}


class Engine(Protocol):
    """Encodes the event of a plainly conforming delivery; see `bridge/engine/plan.py`."""

    def __call__(self, body: bytes, webhook_id: str, received_at: datetime, /) -> EncodedEvent | None:
        """Return the event that the reference would make of this delivery, encoded; or None: the reference decides."""


@dataclass(frozen=True, slots=True)
class Source:
    """One configured sender.

    Attributes:
        name: Last segment of its path.
        environment: What it may send.
        profile: Its dialect.
        scheme: How its deliveries prove themselves.
        secrets: Its key slots.
        internal: It is ourselves: its clock is no sender's.
        content_types: What its bodies may be called beside `application/json`.
        answer_200: What is spooled or parked is answered 200 too.
        engine: A faster way for deliveries that conform plainly, if the profile has one.
        bucket_s: After how long equal bytes without an id are another delivery; 0: never.
        limit: How many deliveries may come, proved or not.
    """

    name: str
    environment: str
    profile: Profile
    scheme: Scheme
    secrets: Secrets
    internal: bool = False
    content_types: tuple[bytes, ...] = ()
    answer_200: bool = False
    engine: Engine | None = None
    bucket_s: int = 0
    limit: RateLimit | None = None


class Admission:
    """How much may be taken in at one time, by count and by bytes; decided when a body is whole.

    No queue: what does not fit is refused at once, and the sender comes back. A delivery whose body is still coming
    takes no room here: a client could take all of it by declaring bodies that it never sends. What has come of such
    bodies is bounded by the server (`runtime/http.py`).
    """

    __slots__ = ("_bytes_max", "_count_max", "bytes", "count")

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self.count = 0
        self.bytes = 0

    def enter(self, size: int) -> bool:
        """Take one delivery of `size` bytes in, or return False and take nothing.

        A delivery larger than the whole bound still enters when nothing else is in flight, or it never could.
        """
        if self.count >= self._count_max or (self.count and self.bytes + size > self._bytes_max):
            return False
        self.count += 1
        self.bytes += size
        return True

    def leave(self, size: int) -> None:
        """Give back what `enter` took for the same `size`."""
        self.count -= 1
        self.bytes -= size


class Webhooks:
    """Handles every request of the public port."""

    def __init__(
        self,
        *,
        sources: Mapping[str, Source],
        decoy: Source,
        deduplicator: Deduplicator,
        admission: Admission,
        observations: Observations,
        body_max_bytes: int,
        address_limit: AddressLimit | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Serve `sources`; a name that is none of them is verified against `decoy`, which proves nothing."""
        self._sources = sources
        self._head_rules = head_rules(
            (source.scheme for source in sources.values()), joined={FORWARDED} if address_limit else ()
        )
        self._address_limit = address_limit
        self._always_200 = frozenset(name for name, source in sources.items() if source.answer_200)
        self._decoy = decoy
        self._deduplicator = deduplicator
        self._admission = admission
        self._observe = observations
        observations.expect(REFUSAL_STATUS)
        self._body_max_bytes = body_max_bytes
        self._now = now

    async def handle(self, http: Any) -> Answer:
        """Answer one request; nothing but the verified webhook id of it ever comes back.

        Args:
            http: aiohttp's `BaseRequest`, of which only the raw head and the payload are used.
        """
        head = http._message  # noqa: SLF001 - the public properties parse again what the parser has parsed
        request = Request(head.method)
        try:
            source = self._route(head, request)
            heads = read_heads(head.raw_headers, self._head_rules)
            if (source.limit or self._address_limit) and (limited := self._limited(request, source, http, heads)):
                return limited
            check_content(heads, size_max=self._body_max_bytes, types=source.content_types)
            body = await self._read(http, heads)
            size = len(body)
            if not self._admission.enter(size):
                return self._unavailable(request, "admission_full")
            try:
                delivery, proof = self._prove(source, http, heads, body)
                http.protocol.trust()
                request.event_id = delivery.id
                return await self._take(request, delivery, proof, source, heads)
            except (DeliveryRefusedError, NotDurableError):
                raise
            except Exception as exc:  # noqa: BLE001 - whatever is durable already is a duplicate when it comes again
                self._log_bug("delivery_unanswered", request, exc)
                return self._unavailable(request, "unexpected")
            finally:
                self._admission.leave(size)
        except DeliveryRefusedError as exc:
            return self._refuse(request, exc)
        except NotDurableError as exc:
            return self._unavailable(request, exc.code)

    def malformed(self) -> None:
        """Account for what was no HTTP and has been answered 400."""
        self._refuse(Request(UNKNOWN), DeliveryRefusedError("malformed_http"))

    def _route(self, head: Any, request: Request) -> Source:
        # The absolute form, which RFC 9112 3.2.2 has every server accept, starts with a scheme.
        path = head.path.partition("?")[0] if head.path.startswith("/") else head.url.raw_path
        name = path[len(PREFIX) :] if path.startswith(PREFIX) else ""
        if not name or "/" in name:
            raise DeliveryRefusedError("not_found")
        if head.method != "POST":
            raise DeliveryRefusedError("method_not_allowed")
        request.routed = True
        # An unknown name costs what a bad signature costs and is answered alike, so names cannot be found out.
        source = self._sources.get(name, self._decoy)
        request.source = source.name
        return source

    def _limited(self, request: Request, source: Source, http: Any, heads: Mapping[bytes, bytes]) -> Answer | None:
        """Refuse what is too much from an address or for a source; the address first, so that it costs no other."""
        by, wait_s = "address", 0.0
        if self._address_limit is not None:
            wait_s = self._address_limit.wait_s(_peer(http), heads.get(FORWARDED, b""), request.began)
        if not wait_s and source.limit is not None:
            by, wait_s = "source", source.limit.wait_s(None, request.began)
        if not wait_s:
            return None
        log.info(
            "delivery.refused",
            source=request.source,
            code="rate_limited",
            reason=by,
            duration_ms=self._observe.answered("refused", "rate_limited", request.elapsed_s, request),
        )
        return Answer(REFUSAL_STATUS["rate_limited"], _RATE_LIMITED, headers=(("Retry-After", str(math.ceil(wait_s))),))

    async def _read(self, http: Any, heads: Mapping[bytes, bytes]) -> bytes:
        """Read the body up to the limit; the server ends a connection whose body comes too slowly."""
        payload = http._payload  # noqa: SLF001 - `BaseRequest.read` copies the body twice
        if payload.is_eof():  # it came with the head, as most do
            body: bytes = payload.read_nowait()
        else:
            if heads.get(b"expect", b"").lower() == b"100-continue":
                http.protocol.transport.write(_CONTINUE)
            body = await self._read_on(payload)
        if len(body) > self._body_max_bytes:
            raise DeliveryRefusedError("body_too_large")
        return body

    async def _read_on(self, payload: Any) -> bytes:
        """Read a body that is still coming until it is whole or too large; parts may be single bytes."""
        parts: list[bytes] = []
        size = 0
        try:
            while size <= self._body_max_bytes and not payload.at_eof():
                parts.append(await payload.readany())
                size += len(parts[-1])
            return b"".join(parts)
        finally:
            parts.clear()  # the exception of a lost connection keeps this frame until the collector comes by

    @staticmethod
    def _raw(scheme: Scheme, http: Any, heads: Mapping[bytes, bytes], body: bytes) -> Raw:
        if not scheme.reads_query and not scheme.reads_peer:
            return Raw(heads, body)
        # The query may hold a credential: it is read here and kept nowhere.
        query = http._message.path.partition("#")[0].partition("?")[2]  # noqa: SLF001 - as in `handle`
        return Raw(heads, body, query.encode("utf-8", "surrogateescape"), _peer(http))

    def _prove(self, source: Source, http: Any, heads: Mapping[bytes, bytes], body: bytes) -> tuple[Delivery, Proof]:
        """Verify on bytes, before anything is parsed."""
        failpoints.hit(failpoints.BEFORE_VERIFY)
        now = self._now()
        proved = source.scheme.prove(self._raw(source.scheme, http, heads, body), source.secrets.keys, now)
        failpoints.hit(failpoints.AFTER_VERIFY)
        self._observe.verified(
            slot=proved.slot,
            offset_s=None if source.internal or proved.timestamp is None else now - proved.timestamp,
            size=len(body),
        )
        digest = sha256(body).hexdigest()
        delivery = Delivery(
            source=source.name,
            environment=source.environment,
            id=proved.id or id_of_body(digest, received_s=now, bucket_s=source.bucket_s),
            received_at=datetime.fromtimestamp(now, UTC),
            body=body,
            body_sha256=digest,
            key_slot=proved.slot,
            traceparent=trace_of(heads),
            headers={},
        )
        return delivery, proved

    async def _take(
        self, request: Request, delivery: Delivery, proof: Proof, source: Source, heads: Mapping[bytes, bytes]
    ) -> Answer:
        """Make what a verified delivery holds durable: its events, or the delivery itself with a reason."""
        ends_at = self._deduplicator.ends_at()
        taken: Outcome = "conflict"
        outcome: Mapped | Encoded | ParkReason
        try:
            outcome = self._understand(request, delivery, source)
            if proof.id is None and source.bucket_s and self._is_repeat_of_bucket_before(delivery, outcome):
                delivery, outcome = self._renamed(request, delivery, id_in_bucket_before(delivery.id), source)
            outcome, taken = await self._publish(delivery, outcome, ends_at=ends_at)
            if taken == "conflict" and not isinstance(outcome, ParkReason) and not proof.id_signed:
                other_id = id_of_other_body(delivery.id, delivery.body_sha256)
                delivery, outcome = self._renamed(request, delivery, other_id, source)
                outcome, taken = await self._publish(delivery, outcome, ends_at=ends_at)
                self._observe.id_reused()
        except NotDurableError:
            raise
        except Exception as exc:  # noqa: BLE001 - a bug of ours must never cost the sender a delivery
            self._log_bug("delivery_parked", request, exc)
            outcome = ParkReason("unexpected")
        if not isinstance(outcome, ParkReason):
            if taken != "conflict":
                return self._accept(request, delivery, outcome, taken)
            outcome = ParkReason("id_conflict", key=_prescription_id(outcome))
        headers = safe_headers(heads, source.scheme)
        fresh = await self._deduplicator.park(replace(delivery, headers=headers), outcome, ends_at=ends_at)
        return self._park(request, outcome, fresh=fresh)

    async def _publish(
        self, delivery: Delivery, outcome: Mapped | Encoded | ParkReason, *, ends_at: float
    ) -> tuple[Mapped | Encoded | ParkReason, Outcome]:
        """Make the events durable, if there are some; return what is left to park, as a conflict."""
        if isinstance(outcome, ParkReason):
            return outcome, "conflict"
        try:
            return outcome, await self._deduplicator.take(delivery, outcome.events, ends_at=ends_at)
        except TooLargeError as exc:
            return ParkReason("unusable", exc.code, key=_prescription_id(outcome)), "conflict"

    def _is_repeat_of_bucket_before(self, delivery: Delivery, outcome: Mapped | Encoded | ParkReason) -> bool:
        said = outcome if isinstance(outcome, ParkReason) else outcome.events
        return self._deduplicator.knows(identities_as(delivery, said, id_in_bucket_before(delivery.id)))

    def _renamed(
        self, request: Request, delivery: Delivery, delivery_id: str, source: Source
    ) -> tuple[Delivery, Mapped | Encoded | ParkReason]:
        request.event_id = delivery_id
        renamed = replace(delivery, id=delivery_id)
        return renamed, self._understand(request, renamed, source)

    def _understand(self, request: Request, delivery: Delivery, source: Source) -> Mapped | Encoded | ParkReason:
        if source.engine is not None and (event := self._encode(request, delivery, source.engine)) is not None:
            return Encoded((event,))
        document = parse(delivery.body, arrays=getattr(source.profile, "ARRAYS", False))
        return document if isinstance(document, ParkReason) else source.profile.map(delivery, document)

    def _encode(self, request: Request, delivery: Delivery, engine: Engine) -> EncodedEvent | None:
        """Ask the engine; whatever is the matter with a delivery, or with the engine, the reference says what it is."""
        cause: Deferral = "form"
        try:
            event = engine(delivery.body, delivery.id, delivery.received_at)
            if event is not None:
                return event
        except Exception as exc:  # noqa: BLE001 - a bug of an engine costs time, nothing else
            self._log_bug("engine", request, exc)
            cause = "fault"
        self._observe.deferred(delivery.source, cause)
        return None

    def _accept(
        self,
        request: Request,
        delivery: Delivery,
        mapped: Mapped | Encoded,
        outcome: Literal["accepted", "duplicate", "spooled"],
    ) -> Answer:
        failpoints.hit(failpoints.BEFORE_ANSWER)
        elapsed = request.elapsed_s
        if outcome != "duplicate":
            self._observe.taken(delivery, mapped, written_s=elapsed if outcome == "accepted" else None)
        log.info(
            _LINES[outcome],
            source=request.source,
            event_id=request.event_id,
            event_type=mapped.events[0].type,
            duration_ms=self._observe.answered(outcome, "", elapsed, request),
        )
        return Answer(self._status(request, outcome), _OPENINGS[outcome] + orjson.dumps(delivery.id) + b"}")

    def _park(self, request: Request, park: ParkReason, *, fresh: bool) -> Answer:
        failpoints.hit(failpoints.BEFORE_ANSWER)
        if fresh:
            self._observe.parked(request.source, park.reason)
        log.warning(
            "delivery.parked",
            source=request.source,
            event_id=request.event_id,
            event_type=UNKNOWN if park.reason == "unknown_type" else "",
            code=park.reason,
            detail=park.detail,
            field=park.field,
            duration_ms=self._observe.answered("parked", "", request.elapsed_s, request),
        )
        body = {"outcome": "parked", "id": request.event_id, "reason": park.reason}
        return Answer(self._status(request, "parked"), orjson.dumps(body))

    def _status(self, request: Request, outcome: str) -> int:
        """Return the status of what has been taken; some senders take only 200 as an acknowledgement."""
        return STATUS["accepted"] if request.source in self._always_200 else STATUS[outcome]

    def _refuse(self, request: Request, exc: DeliveryRefusedError) -> Answer:
        self._observe.refused(exc.reason)
        log.info(
            "delivery.refused",
            source=request.source,
            code=exc.code,
            reason=exc.reason,
            duration_ms=self._observe.answered("refused", exc.code, request.elapsed_s, request),
        )
        return _REFUSALS[exc.code]

    @staticmethod
    def _log_bug(reason: str, request: Request, exc: Exception) -> None:
        where = trail(exc)
        log.error("worker.failed", reason=reason, source=request.source, event_id=request.event_id, where=where)

    def _unavailable(self, request: Request, code: str) -> Answer:
        log.warning(
            "delivery.unavailable",
            source=request.source,
            event_id=request.event_id,
            code=code,
            duration_ms=self._observe.answered("unavailable", code, request.elapsed_s, request),
        )
        retry_after = str(random.randint(*RETRY_AFTER_S))  # noqa: S311 - spreads load, guards nothing
        body = orjson.dumps({"outcome": "unavailable", "code": code})
        return Answer(STATUS["unavailable"], body, headers=(("Retry-After", retry_after),))


def _peer(http: Any) -> str:
    """Return the address at the other end; empty when the connection is gone."""
    peer = http.transport.get_extra_info("peername") if http.transport else None
    return peer[0] if peer else ""


def _prescription_id(mapped: Mapped | Encoded) -> str | None:
    event = mapped.events[0]
    found = event.prescription_id if isinstance(event, EncodedEvent) else event.value.get("prescription_id")
    return found if isinstance(found, str) else None
