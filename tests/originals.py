"""Prescription histories, generated, mapped and encoded in full, and copies of them made by joining bytes."""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from hashlib import sha256
from typing import NamedTuple

import orjson

from bridge.avro.encoder import varint
from bridge.avro.schema_ids import RECORDS
from bridge.dev.traffic import scenario, scenarios
from bridge.event import Delivery, Event
from bridge.kafka.record import Record, _milliseconds, _rfc3339, event_record
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC
from bridge.mapping import drx_standard
from bridge.mapping.profile import Mapped
from tests.builders import a_delivery, codec

# In equal parts of the seven plots about a prescription.
ORIGINALS = 700
_LATENCY = timedelta(milliseconds=350)
_UNIX = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Original(NamedTuple):
    """One event encoded in full; every second piece of its value differs in a copy, and is filled by `fills`."""

    event: Event
    record: Record
    pieces: tuple[bytes, ...]
    fills: tuple[str | int, ...]


def encoded(event: Event, delivery: Delivery) -> Record:
    schema = RECORDS[event.type]
    return event_record(
        *(event, delivery),
        topic=PRESCRIPTIONS_TOPIC,
        partition=0,
        value=codec().encode(schema, event.value),
        schema=schema,
        ordinal=b"filler:0",
    )


def decoded(record: Record) -> Event:
    value = codec().decode(record.value or b"").value
    return Event(
        id=value["event_id"],
        type=value["event_type"],
        source=value["source"],
        key=record.key.decode(),
        occurred_at=value["occurred_at"],
        received_at=value["received_at"],
        value=value,
    )


class Told:
    """One complete history, mapped and encoded on first use: most tests need few of the 700."""

    def __init__(self, prescription_id: str, bodies: Sequence[dict[str, object]]) -> None:
        self._prescription_id = prescription_id
        self._bodies = bodies

    def __len__(self) -> int:
        return len(self._bodies)

    def __iter__(self) -> Iterator[Original]:
        return iter(self._originals)

    @cached_property
    def _originals(self) -> tuple[Original, ...]:
        return tuple(_original(body, self._prescription_id) for body in self._bodies)


@cache
def originals(seed: int) -> list[Told]:
    """Complete histories, alternating between the plots."""
    rng = random.Random(seed)  # noqa: S311 - test traffic, not keys
    about_prescriptions = len(scenarios("drx")) - 1
    lives = (
        [orjson.loads(body) for body in scenario(rng, number % about_prescriptions)] for number in range(ORIGINALS)
    )
    return [Told(events[0]["data"]["prescription_id"], events) for events in lives]


def _original(document: dict[str, object], prescription_id: str) -> Original:
    body = orjson.dumps(document)
    received_at = datetime.fromisoformat(str(document["timestamp"])) + _LATENCY
    delivery = a_delivery(body, id=str(document["id"]))._replace(received_at=received_at)
    mapped = drx_standard.map(delivery, orjson.loads(body))
    assert isinstance(mapped, Mapped)
    (event,) = mapped.events
    record = encoded(event, delivery)
    fills: dict[bytes, str | int] = {event.id.encode(): "id", prescription_id.removeprefix("rx_").encode(): "token"}
    fills |= {varint(each): each for each in _instants(event.value)}
    pieces = re.split(b"(" + b"|".join(map(re.escape, fills)) + b")", record.value or b"")
    return Original(event, record, tuple(pieces), tuple(fills[each] for each in pieces[1::2]))


def _instants(item: object) -> Iterator[int]:
    """Every timestamp inside a value, in microseconds."""
    if isinstance(item, datetime):
        yield (item - _UNIX) // _MICROSECOND
    elif isinstance(item, Mapping):
        for each in item.values():
            yield from _instants(each)
    elif isinstance(item, list):
        for each in item:
            yield from _instants(each)


def copy(original: Original, event_id: bytes, token: bytes, shift: timedelta) -> Record:
    """Return the record of the same event under other ids, `shift` later."""
    shift_us = shift // _MICROSECOND
    pieces = list(original.pieces)
    pieces[1::2] = [
        event_id if each == "id" else token if each == "token" else varint(each + shift_us)  # type: ignore[operator]
        for each in original.fills
    ]
    event = original.event
    received_at = event.received_at + shift
    changed = {
        "ce_id": event_id,
        "ce_subject": b"rx_" + token,
        "ce_time": _rfc3339(event.occurred_at + shift),
        "drx_received_at": _rfc3339(received_at),
        # A substitute, since there is no body: unique for each event, and reproducible.
        "drx_body_sha256": sha256(event_id).hexdigest().encode(),
    }
    return original.record._replace(
        key=b"rx_" + token,
        value=b"".join(pieces),
        headers=[(name, changed.get(name, content)) for name, content in original.record.headers],
        timestamp_ms=_milliseconds(received_at),
    )
