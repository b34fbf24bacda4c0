"""The public port: check the headers, verify, admit, map, publish and respond, in this order.

Deliveries that arrive together are processed stage by stage: all are verified, then mapped, then published. This saves
a seventh of the CPU time per delivery, since code and data of a stage stay in the CPU's caches. Only repeats, conflicts
and deliveries to park need an asyncio task.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import cast

from bridge.errors import DeliveryRefusedError, NotDurableError, TooLargeError
from bridge.event import Delivery, Event, ParkReason
from bridge.ingress.call import UNKNOWN, Call, FastPath, Observed, Source
from bridge.ingress.challenges import Challenge, ChallengedError, may_be_handshake
from bridge.ingress.deduplicator import Deduplicator, Outcome
from bridge.ingress.delivery_limits import AddressLimit, Admission
from bridge.ingress.headers import check_content, header_rules, read_headers, trace_of
from bridge.ingress.parking import park_delivery
from bridge.ingress.responses import Observations, Responses
from bridge.known.derived_ids import NewestBodies, id_of_body, id_of_other_body, is_derived
from bridge.mapping.profile import IGNORED, Mapped, prescription_id, read_body
from bridge.proof.origin import SIGNATURE, verify_origin
from bridge.proof.scheme import Proof, Raw
from bridge.proof.schemes.network import FORWARDED
from bridge.runtime.failpoints import hit
from bridge.runtime.http_server import Request, Response
from bridge.runtime.logging import log, trail
from bridge.runtime.tracing import Tracing

PREFIX = "/webhooks/"


@dataclass(kw_only=True, eq=False, repr=False)
class Webhooks:
    """Handles every request of the public port."""

    sources: Mapping[str, Source]
    deduplicator: Deduplicator
    admission: Admission
    observations: Observations
    body_max_bytes: int
    newest: NewestBodies
    address_limit: AddressLimit | None = None
    tracing: Tracing | None = None
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        challenges = [source.challenge.headers for source in self.sources.values() if source.challenge]
        self._header_rules = header_rules((source.scheme for source in self.sources.values()), further=challenges)
        self._respond = Responses(self.observations)
        self._tasks: set[asyncio.Task[None]] = set()

    def check(self, request: Request) -> Response | None:
        """Check the headers of a request before its body arrives; return a response if the request is refused."""
        call = request.note = Call(request)
        try:
            self._check_headers(call)
        except DeliveryRefusedError as exc:
            return self._respond.refused(call, exc)
        except ChallengedError as exc:
            return self._respond.challenged(call, exc.response)
        if call.headers.get(b"expect", b"").lower() == b"100-continue":
            request.invite()
        return None

    def take(self, requests: Sequence[Request]) -> None:
        """Process requests that arrived together, by stage. Only responses to verified deliveries contain an id."""
        calls = [request.note or Call(request) for request in requests]
        deadline_at, received_s = self.deduplicator.deadline_at(), self.now()
        received_at = datetime.fromtimestamp(received_s, UTC)
        for call in calls:
            call.deadline_at, call.received_s, call.received_at = deadline_at, received_s, received_at
        for stage in (self._check, self._verify, self._admit, self._map, self._publish):
            calls = self._through(stage, calls)

    def _through(self, stage: Callable[[Call], None], calls: Sequence[Call]) -> list[Call]:
        """Run calls through a stage; a call that fails gets its response without affecting the others."""
        passed = []
        for call in calls:
            try:
                stage(call)
            except DeliveryRefusedError as exc:
                self._end(call, self._respond.refused, exc)
            except ChallengedError as exc:
                self._end(call, self._respond.challenged, exc.response)
            except NotDurableError as exc:
                self._end(call, self._respond.unavailable, exc.code)
            except Exception as exc:  # noqa: BLE001 - gets 503; events already durable are duplicates in the retry
                self._fail(call, exc)
            else:
                passed.append(call)
        return passed

    def _fail(self, call: Call, exc: Exception) -> None:
        log_bug("delivery_unanswered", call, exc)
        self._end(call, self._respond.unavailable, "unexpected")

    def _end(self, call: Call, respond: Callable[..., Response], *arguments: object) -> None:
        """Respond to a call and release its admission, even if building the response fails."""
        if call.room is not None:
            self.admission.leave(call.room)
            call.room = None
        try:
            response = respond(call, *arguments)
        except Exception as exc:  # noqa: BLE001 - a bug must not leave a sender waiting
            if respond == self._respond.unavailable:
                call.http.fail(exc)
            else:
                self._fail(call, exc)
        else:
            call.http.respond(response)

    def malformed(self) -> None:
        """Count a malformed request to which the server has responded with 400."""
        self._respond.refused(Observed(UNKNOWN), DeliveryRefusedError("malformed_http"))

    def _check_headers(self, call: Call) -> None:
        """Check the headers; rate limits come first, so that requests with invalid headers count, too."""
        self._check_address(call)
        source = call.sender = self._route(call)
        if source.limit is not None and (wait_s := source.limit.wait_s(None, call.began)):
            raise DeliveryRefusedError("rate_limited", reason="source", wait_s=wait_s)
        call.headers = read_headers(call.http.raw_headers, self._header_rules)
        if call.method != "POST":
            self._respond_to_challenge(call, source)
        check_content(
            call.headers, size_max=self.body_max_bytes, types=call.sender.content_types, json=call.sender.json
        )

    def _route(self, call: Call) -> Source:
        path = call.http.path
        name = path[len(PREFIX) :] if path.startswith(PREFIX) else ""
        if not name or "/" in name:
            raise DeliveryRefusedError("not_found")
        source = self.sources.get(name)
        if call.method != "POST" and not (source and source.challenge and source.challenge.method == call.method):
            raise DeliveryRefusedError("method_not_allowed")
        call.routed = True
        if source is None:
            raise DeliveryRefusedError("unknown_source")
        call.source = source.name
        return source

    def _respond_to_challenge(self, call: Call, source: Source) -> None:
        """Respond to a handshake without a body; refuse any other request with that method."""
        challenge = cast("Challenge", source.challenge)
        if wait_s := challenge.limit.wait_s(None, call.began):
            raise DeliveryRefusedError("rate_limited", reason="challenge", wait_s=wait_s)
        query = call.http.raw_path.partition("#")[0].partition("?")[2]
        per_s = source.limit.per_s if source.limit else None
        response = challenge.respond_to_headers(call.headers, query, source.secrets.keys, self.now(), per_s=per_s)
        if response is None or b"transfer-encoding" in call.headers or int(call.headers.get(b"content-length") or 0):
            raise DeliveryRefusedError("method_not_allowed")
        raise ChallengedError(response)

    def _check_address(self, call: Call) -> None:
        """Refuse a request above the address's limit before it counts towards the limit of its source."""
        if self.address_limit is None:
            return
        forwarded = b",".join(value for name, value in call.http.raw_headers if name.lower() == FORWARDED)
        wait_s = self.address_limit.wait_s(call.http.remote or "", forwarded, call.began)
        if wait_s:
            raise DeliveryRefusedError("rate_limited", reason="address", wait_s=wait_s)

    def _check(self, call: Call) -> None:
        """Check the size of the body, and the headers unless they were checked on arrival."""
        if not call.routed:
            self._check_headers(call)
        if len(call.http.body) > self.body_max_bytes:
            raise DeliveryRefusedError("body_too_large")

    @staticmethod
    def _raw(call: Call) -> Raw:
        scheme, request = call.sender.scheme, call.http
        if not scheme.reads_query and not scheme.reads_peer:
            return Raw(call.headers, request.body)
        # The query may contain a credential: it is read here and never stored.
        query = request.raw_path.partition("#")[0].partition("?")[2]
        return Raw(call.headers, request.body, query.encode("utf-8", "surrogateescape"), request.remote or "")

    def _verify(self, call: Call) -> None:
        """Verify the raw bytes, before anything is parsed."""
        source, body = call.sender, call.http.body
        hit("before_verify")
        now = call.received_s
        verify = partial(verify_origin, source.scheme) if SIGNATURE in call.headers else source.scheme.verify
        try:
            proof = call.proof = verify(self._raw(call), source.secrets.keys, now)
        except DeliveryRefusedError as exc:
            if source.challenge is None or not source.challenge.admits(call.headers, body, source.secrets.keys, now):
                raise
            call.unverified, proof = exc, Proof(None, None, "")
            call.proof = proof
        hit("after_verify")
        if call.unverified is None:
            self.observations.verified(
                source.name,
                slot=proof.slot,
                offset_s=None if source.internal or proof.timestamp is None else now - proof.timestamp,
            )
        digest = sha256(body).hexdigest()
        if self.tracing is None:
            traceparent = trace_of(call.headers)
        else:
            traceparent, call.end_span = self.tracing.receive(call.headers.get(b"traceparent", b""), call.began)
        call.delivery = Delivery(
            source=source.name,
            environment=source.environment,
            id=proof.id or (self.newest.new_id(digest, now) if source.bucket_s else id_of_body(digest)),
            received_at=call.received_at,
            body=body,
            body_sha256=digest,
            key_slot=proof.slot,
            traceparent=traceparent,
            headers={},
            origin=proof.origin,
            first_received_at=None if proof.received_s is None else datetime.fromtimestamp(proof.received_s, UTC),
        )
        call.event_id = call.delivery.id

    def _admit(self, call: Call) -> None:
        size = len(call.http.body)
        if not self.admission.enter(size):
            raise NotDurableError("admission_full")
        call.room = size

    def _map(self, call: Call) -> None:
        """Map a verified delivery to events, or to a reason to park it."""
        try:
            call.outcome = self._map_body(call, call.delivery, call.sender)
        except NotDurableError:
            raise
        except Exception as exc:  # noqa: BLE001 - a bug of ours must never lose a delivery
            self._park_bug(call, exc)
        challenge = call.sender.challenge
        if challenge is not None and not call.proof.origin and may_be_handshake(call.outcome):
            response = challenge.respond_to_body(call.headers, call.http.body)
            if response is not None:
                raise ChallengedError(response)
        if call.unverified is not None:
            raise call.unverified

    def _publish(self, call: Call) -> None:
        """Publish new events; calls that must wait continue in a task."""
        if call.outcome is IGNORED:
            self._end(call, self._respond.accepted, "ignored")
            return
        try:
            if call.sender.bucket_s:
                # Not a separate stage: this call may repeat the previous one, which must be published first.
                self._note_or_repeat(call)
            outcome = call.outcome
            if not isinstance(outcome, ParkReason):
                taken = self.deduplicator.publish_new(call.delivery, outcome.events)
                if taken is not None:
                    call.taken = taken
                    taken.add_done_callback(lambda _: self._through(self._accept_taken, (call,)))
                    return
        except NotDurableError:
            raise
        except TooLargeError as exc:
            call.outcome = ParkReason("unusable", exc.code, key=prescription_id(call.outcome))
        except Exception as exc:  # noqa: BLE001 - as above
            self._park_bug(call, exc)
        task = asyncio.get_running_loop().create_task(self._finish(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _park_bug(self, call: Call, exc: Exception) -> None:
        log_bug("delivery_parked", call, exc)
        call.outcome = ParkReason("unexpected")

    def _accept_taken(self, call: Call) -> None:
        if call.taken.cancelled():
            raise NotDurableError("unexpected")
        self._end(call, self._respond.accepted, "spooled" if call.taken.result() == "spooled" else "accepted")

    async def _finish(self, call: Call) -> None:
        """Handle a repeat or a conflict, or park the delivery with a reason."""
        try:
            await self._take_or_park(call)
        except NotDurableError as exc:
            self._end(call, self._respond.unavailable, exc.code)
        except Exception as exc:  # noqa: BLE001 - as above
            self._fail(call, exc)

    async def _take_or_park(self, call: Call) -> None:
        taken = await self._take_known(call)
        park = call.outcome
        if not isinstance(park, ParkReason):
            self._end(call, self._respond.accepted, taken)
            return
        fresh = await park_delivery(call, park, self.deduplicator)
        self._end(call, self._respond.parked, park, fresh)

    async def _take_known(self, call: Call) -> Outcome:
        """Publish events, some of them known; if the delivery must be parked, the reason becomes `call.outcome`."""
        taken: Outcome = "conflict"
        try:
            taken = await self._take_events(call)
            if taken == "conflict" and self._has_reused_id(call):
                self._rename(call, id_of_other_body(call.delivery.id, call.delivery.body_sha256))
                taken = await self._take_events(call)
                self.observations.id_reused()
        except NotDurableError:
            raise
        except Exception as exc:  # noqa: BLE001 - as above
            self._park_bug(call, exc)
        outcome = call.outcome
        if taken == "conflict" and not isinstance(outcome, ParkReason):
            call.outcome = ParkReason("id_conflict", key=prescription_id(outcome))
        return taken

    @staticmethod
    def _has_reused_id(call: Call) -> bool:
        """Return whether the conflict is about an unsigned delivery id instead of an id in the body."""
        proof = call.proof
        if proof.id is None or proof.id_signed or isinstance(call.outcome, ParkReason):
            return False
        return any(is_derived(event.id, call.delivery.id) for event in call.outcome.events)

    async def _take_events(self, call: Call) -> Outcome:
        """Make the events durable; on a conflict, still publish those elements of a batch that have their own ids."""
        outcome = call.outcome
        if isinstance(outcome, ParkReason):
            return "conflict"
        publish = partial(self.deduplicator.publish, call.delivery, deadline_at=call.deadline_at)
        try:
            if (taken := await publish(outcome.events)) == "conflict":
                # A retry would have the same conflict, which must not hold back the other elements.
                await asyncio.gather(*(publish((event,)) for event in outcome.events if event.sha256))
        except TooLargeError as exc:
            call.outcome = ParkReason("unusable", exc.code, key=prescription_id(outcome))
            return "conflict"
        return taken

    def _note_or_repeat(self, call: Call) -> None:
        """If a delivery without an id repeats another, use the other's id; else note it as the newest of its keys.

        What an operator sends is a repeat of nothing, and may be older than the newest.
        """
        outcome = call.outcome
        if isinstance(outcome, ParkReason):
            keys = {outcome.key} if outcome.key else set()
        else:
            keys = {event.key for event in outcome.events}
        if call.delivery.origin:
            self.newest.forget(call.source, keys)
            return
        repeated = "" if call.proof.id else self.newest.repeated(call.delivery, keys, within_s=call.sender.bucket_s)
        if repeated:
            self._rename(call, repeated)
        else:
            self.newest.note(call.delivery, keys)

    def _rename(self, call: Call, delivery_id: str) -> None:
        call.event_id = delivery_id
        call.delivery = call.delivery._replace(id=delivery_id)
        call.outcome = self._map_body(call, call.delivery, call.sender)

    def _map_body(self, call: Call, delivery: Delivery, source: Source) -> Mapped | ParkReason:
        if delivery.first_received_at is not None:
            # The first receipt bounds times in the body and is their default; `drx_received_at` is the current time.
            delivery = delivery._replace(received_at=delivery.first_received_at)
        if source.fast_path is not None and (event := self._encoded(call, delivery, source.fast_path)) is not None:
            return Mapped((event,))
        document = read_body(source.profile, delivery.body)
        return document if isinstance(document, ParkReason) else source.profile.map(delivery, document)

    def _encoded(self, call: Call, delivery: Delivery, fast_path: FastPath) -> Event | None:
        """Encode by the fast path; None if it defers or fails, so that the profile maps the body."""
        try:
            event = fast_path(delivery.body, delivery.id, delivery.received_at)
        except Exception as exc:  # noqa: BLE001 - a bug of the fast path must only cost time
            log_bug("fast_path", call, exc)
            self.observations.deferred(delivery.source, "fault")
            return None
        if event is None:
            self.observations.deferred(delivery.source, "form")
        return event


def log_bug(reason: str, call: Call, exc: Exception) -> None:
    """Log the location of a bug of ours, without the exception's message, which may contain values."""
    log.error("worker.failed", reason=reason, source=call.source, event_id=call.event_id, where=trail(exc))
