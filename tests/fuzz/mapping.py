"""Any edit of a valid delivery: an event with all of its body that survives encoding, or a reason."""

import copy
import io
import re
from collections.abc import Callable
from typing import Any

import fastavro  # noqa: TID251 -- the other implementation that ours is held to

from bridge.contract.events import EVENT_MODELS
from bridge.event import Delivery, ParkReason
from bridge.kafka.record import UNRECOGNIZED_SCHEMA, Record, event_record, unrecognized_record, unrecognized_value
from bridge.mapping import drx_standard
from bridge.mapping.json_body import Real, parse, to_json_text
from bridge.mapping.profile import Mapped
from bridge.registry.loader import read_schemas, schemas_root
from bridge.spool.payload import pack, unpack
from tests.builders import codec
from tests.fuzz.choices import Choices
from tests.profile_properties import NATIVE, assert_closed, assert_nothing_lost, assert_writable, holders
from tests.unit.profile_documents import a_delivery

WORDS = (b"1789398566", b"2026-09-14T15:09:60Z", b"req:", b"q:", b"UNKNOWN", b"0000-01-01", b"99999999999", b"1e-400")

SAMPLES: list[dict[str, object]] = [one for one in NATIVE if isinstance(one, dict)]
PARSED = {name: fastavro.parse_schema(dict(schema)) for name, schema in read_schemas(schemas_root()).items()}
PREFIX_BYTES = 5  # Confluent, "Wire format"
TEXTS = (
    *("", "UNKNOWN", "req:1", "q:1", "30", "-1.5", "007", "2026-09-14", "2026-09-14T15:09:60", "0000-00-00"),
    *("dispensed", "\x00", "~/*", "evt_1", "9999-12-31T23:59:60Z", "0001-01-01T00:00:00+23:59", "\uff11", "1_0"),
)
REALS = ("-0", "0.0", "1.5", "3.0", "1e308", "1e-300", "0e999999", "1e11", "1789398566.5355555", "0.0005", "-1E-9999")
INTEGERS = (0, 1, -1, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, -(2**63), 10**11, 253_402_300_800, 999_999_999)
NAMES = ("raw_sex", "event_id", "extensions", "patient", "sequence", "a/b~c*", "", "data", "id", "Type")
LEVELS = 4
# Types whose key is no prescription's, and the beginnings of keys that vendors' prescriptions have.
KEYED_BY_OTHERS = ("system.ping", "prescriber.enrollment_changed")
VENDORS = ("q:", "ds:", "ph:")
SCALARS: tuple[Callable[[Choices], object], ...] = (
    lambda _: None,
    Choices.truth,
    lambda choices: choices.one(INTEGERS),
    lambda choices: choices.below(65_536) - 32_768,
    lambda choices: Real(choices.one(REALS)),
    lambda choices: choices.one(TEXTS),
    lambda choices: choices.one(TEXTS),
    lambda choices: choices.text(40),
)


def check(content: bytes) -> None:
    choices = Choices(content)
    document = copy.deepcopy(choices.one(SAMPLES))
    while document and not choices.is_used_up:
        edit(choices, document)
    body = to_json_text(document).encode()
    parsed = parse(body)
    if isinstance(parsed, ParkReason):  # edits may nest deeper than a body may be
        assert parsed.detail == "depth"
        return
    assert parsed == document
    delivery = a_delivery(body)
    outcome = drx_standard.map(delivery, parsed)
    assert_closed(outcome)
    if isinstance(outcome, ParkReason):
        record = parked_record(delivery, outcome)
    else:
        record = mapped_record(delivery, outcome, document)
    assert unpack(pack(*record[2:])) == record[2:]


def parked_record(delivery: Delivery, park: ParkReason) -> Record:
    """Check that the record of a parked delivery has the exact body, and return it."""
    value = unrecognized_value(delivery, park)
    assert value["body"] == delivery.body
    payload = codec().encode(UNRECOGNIZED_SCHEMA, value)
    assert codec().decode(payload).value == value
    return unrecognized_record(delivery, park, partition=0, value=payload)


def mapped_record(delivery: Delivery, mapped: Mapped, document: dict[str, object]) -> Record:
    """Check that the record of an event has all of its body in any Avro reader, and return it."""
    (event,) = mapped.events
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", event.key)
    # A native prescription never shares a key with a vendor's; accounts and prescribers are in a topic of their own.
    assert event.type in KEYED_BY_OTHERS or not event.key.startswith(VENDORS)
    assert_writable(event)
    assert_nothing_lost(event, document)
    schema = f"drx.v1.{EVENT_MODELS[event.type].__name__}"
    payload = codec().encode(schema, event.value)
    assert fastavro.schemaless_reader(io.BytesIO(payload[PREFIX_BYTES:]), PARSED[schema], None) == event.value
    return event_record(event, delivery, topic="t", partition=0, value=payload, schema=schema, ordinal=b"i:1")


def edit(choices: Choices, document: dict[str, Any]) -> None:
    """Set, remove, add, rename or move one member."""
    places = holders(document)
    holder: Any = choices.one(places)
    place: Any = choices.one(list(holder)) if isinstance(holder, dict) else choices.below(len(holder))
    match choices.below(6):
        case 0 | 1:
            holder[place] = value_of(choices, LEVELS)
        case 2:
            del holder[place]
        case 3 if isinstance(holder, dict):
            holder[choices.one(NAMES) if choices.truth() else choices.text(12)] = value_of(choices, LEVELS)
        case 4:
            holder[place] = respelt(holder[place])
        case _:
            other: Any = choices.one(places)
            # A copy, since a document is a tree.
            holder[place] = copy.deepcopy(other if len(to_json_text(other)) < 2000 else None)


def respelt(value: Any) -> Any:
    """Convert a scalar to the equivalent other type."""
    match value:
        case bool() | None:
            return str(value).lower()
        case int():
            return str(value)
        case Real(lexeme):
            return lexeme
        case str() if value.isdecimal() and value.isascii() and len(value) < 18:
            return int(value)
        case _:
            return [value]


def value_of(choices: Choices, levels: int) -> Any:
    kind = choices.below(10)
    if kind < 8:
        return SCALARS[kind](choices)
    inner = [value_of(choices, levels - 1) for _ in range(choices.below(4) if levels else 0)]
    return inner if kind == 8 else {choices.text(6): each for each in inner}
