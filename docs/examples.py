"""One example of each event type: its first sample, and the record of it."""
# ruff: noqa: INP001 - a script next to its pages, not a package

from datetime import datetime, timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from bridge.commands.tail_format import plain
from bridge.event import Delivery, ParkReason
from bridge.mapping import drx_standard
from bridge.mapping.json_body import parse

SAMPLES = Path(__file__).parents[1] / "tests" / "data" / "samples"


class Example(NamedTuple):
    """A body of native DRx and its record.

    Attributes:
        key: The Kafka record's.
        value: The Kafka record's, in JSON types: instants as ISO 8601, decimals as text.
    """

    body: dict[str, Any]
    key: str
    value: dict[str, Any]


@cache
def examples() -> dict[str, Example]:
    """Return type → example."""
    found: dict[str, Example] = {}
    for path in (*sorted(SAMPLES.glob("native/*.json")), SAMPLES / "edge" / "02_unknown_type.json"):
        content = path.read_bytes()
        example = _example(content, orjson.loads(content))
        found.setdefault(example.value["event_type"], example)
    return found


def _example(content: bytes, body: dict[str, Any]) -> Example:
    document = parse(content)
    if isinstance(document, ParkReason):
        raise TypeError(document)
    delivery = Delivery(
        source="drx",
        environment=body["environment"],
        id=body["id"],
        received_at=datetime.fromisoformat(body["timestamp"]) + timedelta(seconds=1),
        body=content,
        body_sha256=sha256(content).hexdigest(),
        key_slot="current",
        traceparent="",
        headers={},
    )
    mapped = drx_standard.map(delivery, document)
    if isinstance(mapped, ParkReason):
        raise TypeError(mapped)
    (event,) = mapped.events
    return Example(body, event.key, plain(event.value))
