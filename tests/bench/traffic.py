"""Distinct signed requests of about 1 KB, cheap to generate."""

import base64
import time
from collections.abc import Iterator
from functools import cache

import orjson

from bridge.dev.traffic import deliveries
from bridge.runtime.signing_secret import sign

HMAC_KEY = b"bench-key-that-guards-nothing-at-all"
SECRET = "whsec_" + base64.b64encode(HMAC_KEY).decode()
PATH = "/webhooks/drx"
KEYS = 10_000
# The three most frequent events of a prescription: 1.3, 1.4 and 0.5 KB, 1.0 KB together.
TYPES = ("prescription.created", "prescription.sent", "prescription.processed")
# Of each type; people, places and medicines differ among them.
_TEMPLATES_EACH = 50
_SEED = 1
_ID, _KEY = b"<event-id>", b"<prescription-id>"


def event_id(number: int) -> str:
    """Id of delivery `number`: as long as one of DRx."""
    return f"evt_{number:026d}"


def body_of(number: int) -> bytes:
    """Return body `number`: types and keys alternate."""
    template = _templates()[number % (_TEMPLATES_EACH * len(TYPES))]
    return template.replace(_ID, event_id(number).encode()).replace(_KEY, b"rx_%010d" % (number % KEYS))


def requests(first: int, count: int) -> Iterator[bytes]:
    """Yield complete HTTP requests, signed now."""
    now = int(time.time())
    for number in range(first, first + count):
        body, name = body_of(number), event_id(number)
        head = (
            f"POST {PATH} HTTP/1.1\r\n"
            "Host: bridge.example.test\r\n"
            "User-Agent: drx-webhooks/1.0\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n"
            f"webhook-id: {name}\r\n"
            f"webhook-timestamp: {now}\r\n"
            f"webhook-signature: {sign(name, now, body, key=HMAC_KEY)}\r\n"
            "\r\n"
        )
        yield head.encode() + body


@cache
def _templates() -> list[bytes]:
    """Real bodies without ids, of alternating types."""
    found: dict[str, list[bytes]] = {kind: [] for kind in TYPES}
    stream = deliveries(_SEED)
    while any(len(each) < _TEMPLATES_EACH for each in found.values()):
        outgoing = next(stream)
        event = orjson.loads(outgoing.body)
        if event["type"] in found and len(found[event["type"]]) < _TEMPLATES_EACH:
            prescription = event["data"]["prescription_id"].encode()
            body = outgoing.body.replace(outgoing.id.encode(), _ID).replace(prescription, _KEY)
            found[event["type"]].append(body)
    return [body for bodies in zip(*found.values(), strict=True) for body in bodies]
