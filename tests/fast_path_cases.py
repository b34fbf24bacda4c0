"""Deliveries for the fast path, and the comparison with the reference code: equal records, byte for byte."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import repeat
from typing import Any, NamedTuple

import orjson

from bridge.avro.schema_ids import RECORDS
from bridge.contract.events import EVENT_MODELS, OTHER_REPORTED
from bridge.contract.native import native
from bridge.event import Delivery, Event, ParkReason
from bridge.fast_path import FastPath, FastPaths
from bridge.kafka.accepted import Accepted
from bridge.kafka.publisher import Publisher
from bridge.kafka.record import MESSAGE_MAX_BYTES
from bridge.kafka.routing import RoutingTable
from bridge.mapping import drx_standard
from bridge.mapping.json_body import parse, to_json_text
from bridge.registry.loader import bundled
from bridge.registry.schemas import expand
from tests.builders import a_delivery, codec
from tests.fuzz.choices import Choices
from tests.unit.profile_documents import SAMPLES

LOCK = bundled()
FAST_PATHS = FastPaths(LOCK.schemas(), RECORDS)
TYPES = tuple(each for each in EVENT_MODELS if each != OTHER_REPORTED)  # which it defers
# Later than nearly all samples.
RECEIVED_AT = datetime(2026, 12, 14, 16, 0, 0, 123456, tzinfo=UTC)


class Head(NamedTuple):
    """Inputs of the fast path: headers, receipt and configuration."""

    webhook_id: str
    environment: str = "sandbox"
    source: str = "drx"
    key_slot: str = "current"
    received_at: datetime = RECEIVED_AT
    partitions: int = 12


@cache
def fast_path(source: str, environment: str) -> FastPath:
    made = FAST_PATHS.of(drx_standard, source=source, environment=environment)
    assert made is not None
    return made


class _Taken:
    """Stores a publisher's records, instead of the partition writers."""

    def __init__(self) -> None:
        self.last: Accepted | None = None

    def check_open(self) -> None:
        """Be open."""

    def enqueue(self, accepted: Sequence[Accepted]) -> Any:
        (self.last,) = accepted


_TAKEN = _Taken()


@cache
def publisher(partitions: int) -> Publisher:
    taken: Any = _TAKEN
    return Publisher(
        writers=taken,
        encode=codec().encode,
        schemas=RECORDS,
        routing=RoutingTable({"epcs.*": "drx.epcs.v1"}),
        partitions=partitions,
        instance="i",
        ordinals=repeat(7),
        message_max_bytes=MESSAGE_MAX_BYTES,
    )


def accepted(event: Event, delivery: Delivery, partitions: int) -> Accepted:
    publisher(partitions).publish(delivery, (event,))
    assert _TAKEN.last is not None
    return _TAKEN.last


def check_fast_path(body: bytes, head: Head) -> str | None:
    """Run the fast path; if it returns a record, compare it with the reference and return the event type."""
    event = fast_path(head.source, head.environment)(body, head.webhook_id, head.received_at)
    if event is None:
        return None
    delivery = a_delivery(body, id=head.webhook_id)._replace(
        source=head.source, environment=head.environment, received_at=head.received_at, key_slot=head.key_slot
    )
    document = parse(body)
    assert not isinstance(document, ParkReason), document
    mapped = drx_standard.map(delivery, document)
    assert not isinstance(mapped, ParkReason), mapped
    assert (mapped.flags, mapped.extensions) == ((), ())
    (expected,) = mapped.events
    assert event.encoded
    assert not expected.encoded
    assert event[:6] == expected[:6]
    assert event.value == {"prescription_id": expected.value["prescription_id"]}
    assert accepted(event, delivery, head.partitions) == accepted(expected, delivery, head.partitions)
    return event.type


# Conforming documents of every type, and values at the edges of what conforms.

_TEXTS = ("Lisinopril 10 mg", "\N{LATIN SMALL LETTER U WITH DIAERESIS}ml\u2028", "\U0001f600", "a" * 300)
DECIMALS = ("30", "1.5", "-2.25", "0", "007", "-0.00", "12345678", "99999999.99", "999999999.999", "1.005", "1.50000")
DAYS = ("2026-09-14", "1950-02-28", "2024-02-29", "0001-01-01", "9999-12-31", "2023-02-29", "20260914", "2026-W38-1")
INSTANTS = (
    *("2026-09-14T15:09:26Z", "2026-09-14T15:09:26.5Z", "2026-09-14T15:09:26.123456Z", "1950-01-01T00:00:00Z"),
    *("2026-09-14T17:09:26+02:00", "2026-09-14T15:09:26-00:00", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59Z"),
    *("2026-09-14T15:09:26", "2026-09-14t15:09:26z", "2026-09-14T15:09:60Z", "2026-09-14T15:09:26.1234567Z"),
    *("2026-09-14T24:00:00Z", "2026-02-30T00:00:00Z", "2026-09-14T15:09:26+24:00", "1978-12-01T19:42:56.710655Z"),
    *("2026-12-14T16:05:00.123456Z", "2026-12-14T16:05:00.123457Z"),  # as far ahead as may be, and more
)
KEYS = ("rx_5KX0A1", "RX-1.2:3", "a" * 128, "a" * 129, "req:1", "q:1", "rx 1", "", "7")


_SCALARS: dict[tuple[str, str | None], object] = {
    ("string", None): "x",
    ("boolean", None): True,
    ("int", None): 1,
    ("long", None): 1,
    ("bytes", "decimal"): Decimal("1.5"),
    ("int", "date"): date(2026, 9, 14),
    ("long", "timestamp-micros"): datetime(2026, 9, 14, 15, 9, 26, tzinfo=UTC),
}


def full(schema: Any) -> Any:
    """Return a value of a schema with every field set."""
    if isinstance(schema, list):
        return full(schema[-1])
    schema = schema if isinstance(schema, dict) else {"type": schema}
    match schema["type"]:
        case "record":
            return {field["name"]: full(field["type"]) for field in schema["fields"]}
        case "array":
            return [full(schema["items"])]
        case "map":
            return {"a": "b"}
        case "enum":
            return schema["symbols"][1]
        case kind:
            return _SCALARS[kind, schema.get("logicalType")]


def full_document(event_type: str) -> dict[str, Any]:
    leading = {"event_id": "evt_1", "event_type": event_type, "contract_version": "1", "environment": "sandbox"}
    return native(full(expand(LOCK.schemas()[RECORDS[event_type]])) | leading | {"extensions": {}})


# Bodies: documents edited as strings, so that no JSON writer normalizes an edit.

# Replacements for a value.
VALUES = (
    *(b"null", b"true", b"false", b"0", b"1", b"-1", b"30", b'"30"', b"-0", b"1.5", b"-0.0", b"1e3", b"1E400", b"NaN"),
    *(b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809", b"2147483648", b"-2147483649"),
    *(b"18446744073709551615", b"18446744073709551616", b"1764158966", b"01", b"[]", b"{}", b'["F"]', b"[null]"),
    *(b'{"a":1}', b'{"a":"b","c":""}', b'""', b'"req:1"', b'"q:1"', b'"UNKNOWN"', b'"erx"', b'"F"', b'"\\u0046"'),
    *(
        b'"\\ud83d\\ude00"',
        b'"\\ud800"',
        b'"\\udc00\\ud800"',
        b'"\\u0000"',
        b'"a\\": b"',
        b'"a\\":"',
        b'" :"',
        b'"-0,"',
    ),
    *(b'"\xc3\xbc"', b'"\xed\xa0\x80"', b'"\xff"', b'"\x7f"', b'"\x01"', b'"\\x"', b'"1.50"', b'"1.005"', b'"-1.5"'),
    *(b'"\xef\xbc\x91"', b'"1_0"', b'"2026-09-14"', b'"2026-02-30"', b'"0000-01-01"', b'"2026-09-14T15:09:26Z"'),
    *(b'"2026-09-14T15:09:60Z"', b'"2026-09-14T17:09:26.5+02:00"', b'"sandbox"', b'"production"', b'"1"'),
    *(json.dumps(each).encode() for each in (*DECIMALS, *DAYS, *INSTANTS, *KEYS, *_TEXTS)),
    b"[" * 40 + b"]" * 40,
)
# Replacements for a name, or insertions before a member.
NAMES = (
    *(b'"data"', b'"id"', b'"type"', b'"first_name"', b'"prescription_id"', b'"request_id"', b'"timestamp"', b'"zzz"'),
    *(b'"extensions"', b'"raw_sex"', b'"event_id"', b'"source"', b'"a/b~"', b'""', b'"i\\u0064"', b'"version"', b"id"),
)
# Insertions at any position.
PIECES = (
    *(b" ", b"\n", b"\t", b"\r", b",", b":", b'"', b"}", b"{", b"]", b"[", b"\\", b"\x00", b"\xff", b"0", b"-", b"-0"),
    *(b"\xef\xbb\xbf", b"\\u0041", b"\\ud800", b"/**/", b"\x0c", b"\xc2\xa0", b"e", b".", b'":', b'" :'),
)
_TOKEN = re.compile(rb'(?P<name>"(?:[^"\\]|\\.)*"(?=\s*:))|(?P<value>"(?:[^"\\]|\\.)*"|-?[0-9.]+|true|false|null)|[{}]')


class Text(NamedTuple):
    """A body, with the positions of its names, scalars and starts of objects."""

    body: bytes
    webhook_id: str
    names: tuple[tuple[int, int], ...]
    values: tuple[tuple[int, int], ...]
    openings: tuple[int, ...]


def a_text(body: bytes) -> Text:
    tokens = list(_TOKEN.finditer(body))
    try:
        webhook_id = str(orjson.loads(body)["id"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        webhook_id = "evt_1"
    return Text(
        body,
        webhook_id if webhook_id.isascii() and webhook_id.isprintable() and webhook_id else "evt_1",
        tuple(token.span() for token in tokens if token["name"] is not None),
        tuple(token.span() for token in tokens if token["value"] is not None),
        tuple(token.end() for token in tokens if token[0] == b"{"),
    )


def edited(text: Text, choices: Choices) -> bytes:
    """Change a value or name, or insert or remove a piece."""
    body = text.body
    way = choices.below(16)
    if way < 7 and text.values:
        start, end = choices.one(text.values)
        return body[:start] + choices.one(VALUES) + body[end:]
    if way < 9 and text.names:
        start, end = choices.one(text.names)
        return body[:start] + choices.one(NAMES) + body[end:]
    if way < 12 and text.openings:
        start = choices.one(text.openings)
        name = body[slice(*choices.one(text.names))] if text.names and choices.truth() else choices.one(NAMES)
        return body[:start] + name + b":" + choices.one(VALUES) + b"," + body[start:]
    start = choices.below(len(body) + 1)
    return body[:start] + choices.one(PIECES) + body[start + choices.below(3) :]


_IDS = ("other", "!", "~" * 200, "evt_2")
_SOURCES = ("drx", "a", "s" * 64, "_heartbeat")
_SLOTS = ("current", "previous", "x" * 64)
_PARTITIONS = (12, 1, 3, 48, 10_000)
_RECEIPTS = (0, -123_456, 1, 876_544, 86_400_000_000, 10**12)


def a_head(text: Text, choices: Choices) -> Head:
    return Head(
        webhook_id=choices.one(_IDS) if choices.below(32) == 1 else text.webhook_id,
        environment="production" if choices.below(32) == 1 else "sandbox",
        source=choices.one(_SOURCES),
        key_slot=choices.one(_SLOTS),
        received_at=RECEIVED_AT + timedelta(microseconds=choices.one(_RECEIPTS)),
        partitions=choices.one(_PARTITIONS),
    )


_SAMPLE_MAX_BYTES = 8000


def spellings(document: Mapping[str, object]) -> Iterator[bytes]:
    """Yield equal JSON in several forms: compact, with usual spaces, and two forms of Python's `json`."""
    text = to_json_text(document)
    plain = json.loads(text)
    yield text.encode()
    yield orjson.dumps(plain, option=orjson.OPT_INDENT_2)
    yield json.dumps(plain).encode()
    yield json.dumps(plain, separators=(" , ", " : "), ensure_ascii=False).encode()


@cache
def samples() -> tuple[Text, ...]:
    """Return every sample of every profile, unchanged and in other forms, except the large ones."""
    bodies = [path.read_bytes() for path in sorted(SAMPLES.glob("*/*.json"))]
    bodies += [line for path in sorted(SAMPLES.glob("scenarios/*.ndjson")) for line in path.read_bytes().splitlines()]
    found: list[bytes] = []
    for body in bodies:
        if len(body) > _SAMPLE_MAX_BYTES:
            continue
        document = parse(body)
        found += [body] if isinstance(document, ParkReason) else [body, *spellings(document)]
    return tuple(map(a_text, dict.fromkeys(found)))
