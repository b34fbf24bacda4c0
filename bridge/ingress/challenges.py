"""Registration handshakes: before a vendor sends events, it asks the endpoint to echo a value.

The value has 1 to 512 printable ASCII characters; no other response echoes part of a request. A body that maps to an
event of a prescription is never a handshake. A handshake by GET or OPTIONS is rate limited; it is verified only if
`challenge_token` names a place for the source's secret. One by POST is verified by the source's scheme, or by the
secret in that place. Nothing of a handshake is stored.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from hmac import compare_digest
from typing import Literal, NamedTuple, cast
from urllib.parse import unquote_plus

import orjson

from bridge.contract.events import OTHER_REPORTED
from bridge.event import ParkReason
from bridge.ingress.delivery_limits import RateLimit
from bridge.mapping.json_body import parse
from bridge.mapping.profile import Mapped
from bridge.proof.scheme import HmacKey, KeySlot, ProofKey, SharedSecret, matching_slot, refuse_mismatch
from bridge.proof.schemes.parameters import ParameterError
from bridge.runtime.http_server import Response

Kind = Literal["query", "body", "body_json", "cloudevents", "eventgrid"]
# Unverified handshakes per second, and at once: an endpoint is registered once; some vendors repeat it daily.
PER_S, BURST = 1.0, 10
QUERY_MAX_CHARS = 2048  # a value of 512 characters takes 1,536 if all are percent-encoded
BODY_MAX_BYTES = 4096  # the largest body in a vendor's documentation, of Event Grid, has 700
# Methods of handshakes that have no body; the others are by POST.
METHODS: Mapping[str, str] = {"query": "GET", "cloudevents": "OPTIONS"}
ORIGIN, REQUEST_TYPE = b"webhook-request-origin", b"aeg-event-type"
VALIDATION = "Microsoft.EventGrid.SubscriptionValidationEvent"
_is_value = re.compile(r"[ -~]{1,512}").fullmatch
_parts = re.compile(r"(?:(query|body|body_json):([!-~]{1,100})|(cloudevents|eventgrid))").fullmatch
_token_parts = re.compile(r"(header|member):([!-~]{1,100})").fullmatch


class Challenge(NamedTuple):
    """The handshake of a source, as configured."""

    kind: Kind
    name: str  # name of the parameter or member that has the value
    token: tuple[str, str]  # the place of the secret: `header` or `member`, and its name; both empty if not set
    limit: RateLimit  # of unverified handshakes

    @property
    def headers(self) -> frozenset[bytes]:
        """The request headers that it reads."""
        own = {"cloudevents": ORIGIN, "eventgrid": REQUEST_TYPE}.get(self.kind)
        token = {self.token[1].lower().encode()} if self.token[0] == "header" else set()
        return frozenset(token | ({own} if own else set()))

    @property
    def method(self) -> str:
        """The method of the handshake request."""
        return METHODS.get(self.kind, "POST")

    def respond_to_headers(
        self, headers: Mapping[bytes, bytes], query: str, keys: Sequence[KeySlot], now: float, *, per_s: float | None
    ) -> Response | None:
        """Return the response to a GET or OPTIONS; None if it is not a handshake. Refuses a wrong token."""
        given = [pair.partition("=") for pair in query.split("&")] if len(query) <= QUERY_MAX_CHARS else []
        members = [(unquote_plus(name), unquote_plus(text)) for name, _, text in given]
        values = [text for name, text in members if name == self.name]
        value = headers.get(ORIGIN, b"").decode("latin-1") if self.kind == "cloudevents" else "".join(values[:1])
        if not _is_value(value) or len(values) > 1:
            return None
        if self.token[0] and not _is_secret(self._token(headers, dict(members)), keys, now):
            refuse_mismatch(keys, now)
        if self.kind == "query":
            return _text(value)
        rate = "*" if per_s is None else str(max(1, int(per_s * 60)))
        return _text("", ("WebHook-Allowed-Origin", value), ("WebHook-Allowed-Rate", rate), ("Allow", "POST"))

    def admits(self, headers: Mapping[bytes, bytes], body: bytes, keys: Sequence[KeySlot], now: float) -> bool:
        """Return whether a POST that the scheme refused is a handshake with the right token. Refuses a wrong one."""
        if not self.token[0] or self.respond_to_body(headers, body) is None:
            return False
        given = self._token(headers, cast("dict[str, object]", parse(body, arrays=True)))
        if given and not _is_secret(given, keys, now):
            refuse_mismatch(keys, now)
        return bool(given)

    def respond_to_body(self, headers: Mapping[bytes, bytes], body: bytes) -> Response | None:
        """Return the response to a POST; None if it is not a handshake."""
        document = parse(body, arrays=True) if self.method == "POST" and len(body) <= BODY_MAX_BYTES else None
        if self.kind == "eventgrid":
            code = _validation_code(document) if headers.get(REQUEST_TYPE) == b"SubscriptionValidation" else None
            return _json({"validationResponse": code}) if code else None
        if not isinstance(document, dict) or any(isinstance(each, dict | list) for each in document.values()):
            return None
        value = document.get(self.name)
        if not isinstance(value, str) or not _is_value(value):
            return None
        return _json({self.name: value}) if self.kind == "body_json" else _text(value)

    def _token(self, headers: Mapping[bytes, bytes], members: Mapping[str, object]) -> bytes:
        place, name = self.token
        return headers.get(name.lower().encode(), b"") if place == "header" else _bytes(members.get(name))


def read_challenge(text: str, token: str) -> Challenge | None:
    """Parse `challenge` and `challenge_token` of a source; None if both are empty. May raise `ParameterError`."""
    if not text and not token:
        return None
    found, place = _parts(text), _token_parts(token)
    if not found:
        raise ParameterError("challenge", "must be query:NAME, body:MEMBER, body_json:MEMBER, cloudevents or eventgrid")
    if token and (not place or found[3]):
        raise ParameterError("challenge_token", "must be header:NAME or member:NAME; cloudevents, eventgrid: none")
    kind, limit = cast("Kind", found[1] or found[3]), RateLimit(per_s=PER_S, burst=BURST)
    return Challenge(kind, found[2] or "", (place[1], place[2]) if place else ("", ""), limit)


def _bytes(value: object) -> bytes:
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else b""


def _is_secret(given: bytes, keys: Sequence[KeySlot], now: float) -> bool:
    digest = sha256(given).digest()

    def is_secret(key: ProofKey) -> bool:
        if isinstance(key, tuple):
            return any(map(is_secret, key))
        return isinstance(key, HmacKey | SharedSecret) and compare_digest(sha256(key.secret).digest(), digest)

    return matching_slot(keys, now, is_secret) is not None


def _validation_code(document: object) -> str | None:
    """Return the code of Event Grid's validation event."""
    event = document[0] if isinstance(document, list) and len(document) == 1 else None
    content = event.get("data") if isinstance(event, dict) and event.get("eventType") == VALIDATION else None
    code = content.get("validationCode") if isinstance(content, dict) else None
    return code if isinstance(code, str) and _is_value(code) else None


def _text(value: str, *headers: tuple[str, str]) -> Response:
    # Plain text and nosniff, or a browser could run the echoed value as a page of this host.
    return Response(
        200, value.encode(), content_type="text/plain", headers=(("X-Content-Type-Options", "nosniff"), *headers)
    )


def _json(document: dict[str, str]) -> Response:
    return Response(200, orjson.dumps(document))


class ChallengedError(Exception):
    """A request is a handshake, and this is its response."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


def may_be_handshake(outcome: Mapped | ParkReason) -> bool:
    """Return False if a body has an event of a prescription; a handshake may be mapped to `other.reported`."""
    if isinstance(outcome, ParkReason):
        return outcome.reason != "unexpected" and outcome.key is None
    return all(event.type == OTHER_REPORTED and not event.value.get("prescription_id") for event in outcome.events)
