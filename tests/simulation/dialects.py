"""The sources of a world: their configuration, their deliveries, and the expected events."""

import hmac
import random
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from bridge.proof.scheme import HmacKey, KeySlot
from bridge.runtime.signing_secret import sign

HERE = Path(__file__).parent
SAMPLES = HERE.parent / "data" / "samples" / "native"
# In every free text of a body; must not appear in responses, log lines, metrics or headers.
MARKER = "Zyxmarker"
TEXTS = ("first_name", "last_name", "note", "description", "sig", "line1", "phone", "name")
WINDOW_S = 7200
# How a release or an operator may have configured the hosts: the mapping of `acme`, and what is ignored.
Variant = Literal["whole", "early", "ignoring"]
VARIANTS: Sequence[Variant] = ("whole", "early", "ignoring")

# `whole` is a delivery that becomes events, `conflict` has the id of another body, `unusable` can be no event of its
# source, and `hostile` proves nothing.
Kind = Literal["whole", "conflict", "unusable", "hostile"]


class Expected(NamedTuple):
    """An expected event of a delivery; the id is empty if the ingress makes it."""

    id: str
    key: str
    sha256: str  # of the body, or empty if other bodies may hold the same event


class Delivery(NamedTuple):
    """One body under one id."""

    number: int
    source: str
    id: str  # empty if its sender gives none
    key: str  # what its sender keeps in order
    kind: Kind
    body: bytes
    sha256: str
    events: Sequence[Expected]
    word: str = ""  # of the vendor, for what an early mapping does not know; in `plain` the member that it lacks

    def __repr__(self) -> str:
        return f"{self.source} {self.number} ({self.id or self.sha256[:6]} of {self.key}, {self.kind})"


def sources(variant: Variant) -> dict[str, Any]:
    """Return the settings of all sources."""
    common = {"environment": "sandbox", "secrets_dir": "/secrets", "dedupe_window_s": WINDOW_S}
    mapping = HERE / ("acme_early.toml" if variant == "early" else "acme.toml")
    plain: dict[str, Any] = {"scheme": "body_hmac", "scheme_parameters": {"header": "x-signature"}}
    return {
        "drx": common | {"profile": "drx_standard"},
        "acme": common
        | {
            "profile": "mapped",
            "options": {"mapping": str(mapping)},
            "ignore": "pinged" if variant == "ignoring" else "",
        },
        "plain": common
        | plain
        | {
            "profile": "mapped",
            "options": {"mapping": str(HERE / "plain.toml")},
            "accept": "undated,unsigned_id",
            "tolerance_s": None,
        },
    }


def secret(source: str, number: int) -> bytes:
    """Return the secret of a source after `number` rotations."""
    return f"simulated secret {number} of {source:.<9}".encode()


def slots(source: str, *numbers: int) -> tuple[KeySlot, ...]:
    """Return the slots of some secrets, the newest first."""
    names = ("current", "previous")
    return tuple(KeySlot(name, HmacKey(secret(source, number))) for name, number in zip(names, numbers, strict=False))


def headers(delivery: Delivery, at_s: float, key: bytes) -> dict[str, str]:
    """Return the headers that authenticate a delivery at a time."""
    if delivery.source == "plain":
        signature = hmac.digest(key, delivery.body, "sha256").hex()
        return {"content-type": "application/json", "x-signature": signature}
    return {
        "content-type": "application/json",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(int(at_s)),
        "webhook-signature": sign(delivery.id, int(at_s), delivery.body, key=key),
    }


@cache
def _templates() -> Sequence[bytes]:
    return [orjson.dumps(_marked(orjson.loads(path.read_bytes()))) for path in sorted(SAMPLES.glob("*.json"))]


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: f"{MARKER} {each}" if name in TEXTS and isinstance(each, str) else _marked(each)
            for name, each in value.items()
        }
    return [_marked(each) for each in value] if isinstance(value, list) else value


def native(rng: random.Random, number: int, *, key: str, event_id: str = "", kind: Kind = "whole") -> Delivery:
    """Make a delivery of native DRx, of any type."""
    event_id = event_id or f"evt_{number}"
    body = orjson.loads(_templates()[rng.randrange(len(_templates()))])
    body |= {"id": event_id, "sequence": number}
    if body["type"] == "prescriber.enrollment_changed":
        body["data"]["prescriber"]["id"] = key
    elif body["type"] == "system.ping":
        body["account_id"] = key
    else:
        body["data"]["prescription_id"] = key
    if kind == "unusable":
        body["environment"] = "production"
    if kind == "conflict":
        body["sequence"] += 100_000
    content = orjson.dumps(body)
    digest = sha256(content).hexdigest()
    return Delivery(number, "drx", event_id, key, kind, content, digest, (Expected(event_id, key, digest),))


def batch(rng: random.Random, number: int, *, keys: Sequence[str], known: Sequence[Delivery] = ()) -> Delivery:
    """Make a delivery of `acme`: new elements, and perhaps some of earlier batches."""
    elements, events = list[dict[str, str]](), list[Expected]()
    words = rng.choices(("filled", "moved", "pinged"), weights=(12, 2, 1), k=rng.randrange(1, 5))
    for place, word in enumerate(words):
        rx = rng.choice(keys)
        elements.append(
            {"no": f"e{number}-{place}", "type": word, "rx": rx, "state": rng.choice(("DONE", "OK")), "patient": MARKER}
        )
    if known and rng.random() < 0.3:
        elements += orjson.loads(rng.choice(known[-5:]).body)["events"][:2]
        rng.shuffle(elements)
    ends = {"filled": "step", "moved": "parcel", "pinged": "other.reported"}
    for element in elements:
        word = element["type"]
        events.append(Expected(f"{element['no']}/{ends[word]}", f"acme:{element['rx']}", ""))
    content = orjson.dumps({"shop": "s_7", "events": elements})
    rare = next((each["type"] for each in elements if each["type"] != "filled"), "")
    digest = sha256(content).hexdigest()
    return Delivery(number, "acme", f"dlv-{number}", "acme", "whole", content, digest, tuple(events), rare)


def record(number: int, *, key: str, state: str, lacks: str = "") -> Delivery:
    """Make a delivery of `plain`: the whole record of a prescription, the same bytes for the same state.

    One that `lacks` a member can be no event; without `rx` nobody knows its key.
    """
    members = {"shop": "s_7", "rx": key, "state": state, "patient": MARKER, "line": key}
    content = orjson.dumps({name: value for name, value in members.items() if name != lacks})
    digest = sha256(content).hexdigest()
    events = (Expected("", f"pl:{key}", digest),)
    kind: Kind = "unusable" if lacks else "whole"
    return Delivery(number, "plain", "", f"pl:{key}", kind, content, digest, events, lacks)
