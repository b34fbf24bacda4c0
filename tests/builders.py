"""Valid objects with one interesting field, for every test."""

import base64
import itertools
import json
import string
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from bridge.avro.codec import Codec
from bridge.event import Delivery, Event, Identity
from bridge.kafka.record import Record, identity_of
from bridge.proof.scheme import HmacKey, KeySlot
from bridge.registry.loader import bundled
from bridge.runtime.signing_secret import sign

SAMPLES = Path(__file__).parent / "data" / "samples"
KEY = b"component-test-key-not-a-secret!"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
WHEN = datetime(2026, 9, 14, 15, 9, 26, 535000, tzinfo=UTC)


@cache
def codec() -> Codec:
    lock = bundled()
    return Codec(schemas=lock.schemas(), ids=lock.ids())


def a_slot(name: str = "current", key: bytes = KEY) -> KeySlot:
    return KeySlot(name, HmacKey(key))


def a_body(**changes: Any) -> bytes:
    """A thin `prescription.processed`; `data_note` is the member `note` of `data`."""
    body: dict[str, Any] = {
        "id": "evt_1",
        "type": "prescription.processed",
        "version": "1",
        "timestamp": "2026-09-14T15:10:03.002000Z",
        "environment": "sandbox",
        "account_id": "acct_4021",
        "data": {"prescription_id": "rx_1", "network_status": {"kind": "verify", "code": "010"}},
    }
    for name, value in changes.items():
        if name.startswith("data_"):
            body["data"][name.removeprefix("data_")] = value
        else:
            body[name] = value
    return json.dumps(body).encode()


def a_growing_body(size: int, *, id: str = "evt_1", key: str = "rx_1") -> bytes:  # noqa: A002 - the field's name
    """Build a `change.requested` of `size` bytes whose record is four times as large.

    Each unknown member is stored with the path of its object, the longest of the contract.
    """
    document: dict[str, Any] = json.loads((SAMPLES / "native/16_change_requested_generic.json").read_bytes())
    document |= {"id": id}
    document["data"]["prescription_id"] = key
    medication = document["data"]["medications_requested"][0]
    left = size - len(json.dumps(document, separators=(",", ":")))
    members = ("".join(each) for each in itertools.product(string.ascii_letters + string.digits, repeat=3))
    medication |= dict.fromkeys(itertools.islice(members, left // len(',"abc":0')), 0)
    return json.dumps(document, separators=(",", ":")).encode().ljust(size)


def signed_headers(
    body: bytes, *, webhook_id: str = "evt_1", timestamp: int | None = None, key: bytes = KEY
) -> dict[str, str]:
    at = int(time.time()) if timestamp is None else timestamp
    return {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at),
        "webhook-signature": sign(webhook_id, at, body, key=key),
    }


def a_delivery(body: bytes | None = None, *, id: str = "evt_1", headers: Mapping[str, str] | None = None) -> Delivery:  # noqa: A002 - the field's name
    given = a_body(id=id) if body is None else body
    return Delivery(
        source="drx",
        environment="sandbox",
        id=id,
        received_at=WHEN,
        body=given,
        body_sha256=sha256(given).hexdigest(),
        key_slot="current",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        headers=headers or {},
    )


def an_event(**changes: Any) -> Event:
    """A `prescription.processed` as the profile would map it."""
    fields: dict[str, Any] = {
        "id": "evt_1",
        "type": "prescription.processed",
        "source": "drx",
        "key": "rx_1",
        "occurred_at": WHEN,
        "received_at": WHEN,
    } | changes
    value = {
        "event_id": fields["id"],
        "event_type": fields["type"],
        "contract_version": "1",
        "occurred_at": fields["occurred_at"],
        "received_at": fields["received_at"],
        "source": fields["source"],
        "environment": "sandbox",
        "account_id": "acct_4021",
        "prescription_id": fields["key"],
        "network_status": {"kind": "verify", "code": "010"},
        "extensions": {},
    }
    return Event(**{"value": value, **fields})


def a_ping(**fields: Any) -> dict[str, Any]:
    leading = {"event_id": "evt_1", "event_type": "system.ping", "contract_version": "1"}
    times = {"occurred_at": WHEN, "received_at": datetime(2026, 9, 14, 15, 9, 27, tzinfo=UTC)}
    origin = {"source": "drx", "origin_source": None, "environment": "sandbox", "account_id": "acct_4021"}
    none = dict.fromkeys(("prescription_id", "sequence", "correlation_id"))
    return {**leading, **times, **origin, **none, "message": "hello", "extensions": {}, **fields}


def identity_in(record: Record) -> Identity:
    identity = identity_of(record.headers)
    assert identity is not None
    return identity
