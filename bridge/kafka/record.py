"""Records as written to Kafka, free of client types: topic, key, value and the headers of the contract."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from bridge.event import RECEIPTS_MAX, UNRECOGNIZED_TYPE, Delivery, Event, Identity, ParkReason
from bridge.kafka.routing import UNRECOGNIZED_TOPIC

Header = tuple[str, bytes]

UNRECOGNIZED_SCHEMA = "drx.v1.UnrecognizedDelivery"

# Header that replaces `drx_body_sha256` in comparing repeats if bodies with different hashes may have the event.
PART_SHA256 = "drx_part_sha256"

_SPEC_VERSION: Header = ("ce_specversion", b"1.0")  # CloudEvents 1.0, "Kafka Protocol Binding", binary mode
_CONTENT_TYPE: Header = ("content-type", b"application/avro")
_UNRECOGNIZED: Header = ("ce_type", UNRECOGNIZED_TYPE.encode())
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_SHA256 = re.compile(rb"[0-9a-f]{64}")

# `max.message.bytes` of the topics: larger than the record of any body of 256 KiB. Unknown members repeat the path of
# their object, so a value may have six times the bytes of its body (tests/unit/test_record_sizes.py finds the worst
# case).
MESSAGE_MAX_BYTES = 2 * 1024 * 1024
# Kafka's own default; our batches are half of it.
MESSAGE_MAX_LEAST_BYTES = 1_048_588
# Brokers close a connection that sends more than `socket.request.max.bytes` at once, 100 MiB by default.
MESSAGE_MAX_MOST_BYTES = 64 * 1024 * 1024
# Bytes around the body of a parked delivery: ids, reason, and headers without credentials.
RAW_HEAD_MAX_BYTES = 16 * 1024

# Kafka protocol guide, "Record Batch": 61 bytes precede the records. Each record has a length, attributes, two deltas,
# lengths of key and value, and a count of headers; each header has two lengths. An int takes at most 5 bytes, a long
# 10.
_BATCH_HEAD_BYTES = 61
_RECORD_HEAD_BYTES = 1 + 10 + 5 * 5
_HEADER_HEAD_BYTES = 2 * 5
# Cached headers: sources, slots and types are few; the bound only guards against mistakes.
_CONSTANTS_MAX = 1024
# Upper bound of the bytes of an event's key and headers (tests/unit/test_record_sizes.py).
HEADERS_MAX_BYTES = 16 * 1024


class Record(NamedTuple):
    """One record to write; a tuple, since thousands are created per second."""

    topic: str
    partition: int
    key: bytes
    value: bytes | None
    headers: list[Header]
    timestamp_ms: int  # receipt of the delivery in Unix ms; Kafka's timestamp is the earlier of receipt and write

    def __repr__(self) -> str:
        """Show only topic and partition: key and value are health information."""
        return f"Record({self.topic}/{self.partition})"


def event_record(
    event: Event, delivery: Delivery, *, topic: str, partition: int, value: bytes, schema: str, ordinal: bytes
) -> Record:
    """Return the record of an event; `value` in wire format, `ordinal` as `<instance>:<number>`, increasing."""
    key = event.key.encode()
    received_header, received_ms = _receipt(delivery.received_at)
    type_header, schema_header = _type_headers(event.type, schema)
    headers = [
        _SPEC_VERSION,
        ("ce_id", event.id.encode()),
        _text_header("ce_source", event.source),
        type_header,
        ("ce_subject", key),
        ("ce_time", _rfc3339(event.occurred_at)),
        _CONTENT_TYPE,
        ("traceparent", delivery.traceparent.encode()),
        received_header,
        _text_header("drx_key_slot", delivery.key_slot),
        ("drx_body_sha256", delivery.body_sha256.encode()),
        schema_header,
        ("drx_ordinal", ordinal),
    ]
    if event.mapping:
        headers.append(("drx_mapping", event.mapping.encode()))
    if event.sha256:
        headers.append((PART_SHA256, event.sha256.encode()))
    if delivery.origin:
        headers.append(_text_header("drx_origin", delivery.origin))
    return Record(topic, partition, key, value, headers, received_ms)


def unrecognized_record(delivery: Delivery, park: ParkReason, *, partition: int, value: bytes) -> Record:
    """Return the record of a parked delivery; `value` is `unrecognized_value` in wire format."""
    key = unrecognized_key(delivery, park)
    received_at = _rfc3339(delivery.received_at)
    headers = [
        _SPEC_VERSION,
        ("ce_id", delivery.id.encode()),
        _UNRECOGNIZED,
        _text_header("ce_source", delivery.source),
        ("ce_subject", key),
        ("ce_time", received_at),
        _CONTENT_TYPE,
        _text_header("drx_reason", park.reason),
        ("drx_received_at", received_at),
        _text_header("drx_key_slot", delivery.key_slot),
        ("drx_body_sha256", delivery.body_sha256.encode()),
        _text_header("drx_schema", UNRECOGNIZED_SCHEMA),
    ]
    if delivery.origin:
        headers.append(_text_header("drx_origin", delivery.origin))
    return Record(UNRECOGNIZED_TOPIC, partition, key, value, headers, _milliseconds(delivery.received_at))


def identity_of(headers: Iterable[Header]) -> Identity | None:
    """Return the identity in the headers of a record, or None if they are not as this module writes them."""
    named = dict(headers)  # the last of repeated headers wins, as in Kafka's `Headers.lastHeader`
    body_sha256 = named.get(PART_SHA256) or named.get("drx_body_sha256", b"")
    if _SHA256.fullmatch(body_sha256) is None or not {"ce_source", "ce_id"} <= named.keys():
        return None
    try:
        return Identity(
            source=named["ce_source"].decode(),
            id=named["ce_id"].decode(),
            body_sha256=body_sha256.decode(),
            reason=named.get("drx_reason", b"").decode(),
        )
    except UnicodeDecodeError:
        return None


def fits(record: Record, most: int) -> bool:
    """Return whether a batch with only this record has at most `most` bytes, as a broker measures it."""
    # Nearly every value is so small that the headers, whose sum takes a microsecond, do not matter.
    return len(record.value or b"") <= most - HEADERS_MAX_BYTES or message_bytes(record) <= most


def message_bytes(record: Record) -> int:
    """Return an upper bound of the bytes of a batch with only this record, as a broker measures it."""
    # Names are ASCII. A list comprehension, since a generator takes twice the time, for every record.
    headers = sum([_HEADER_HEAD_BYTES + len(name) + len(content) for name, content in record.headers])
    return _BATCH_HEAD_BYTES + _RECORD_HEAD_BYTES + len(record.key) + len(record.value or b"") + headers


def unrecognized_key(delivery: Delivery, park: ParkReason) -> bytes:
    """Return the record key: the prescription id if it could be read and is valid, else the webhook id."""
    return (delivery.id if park.key is None else park.key).encode()


def unrecognized_value(delivery: Delivery, park: ParkReason) -> dict[str, Any]:
    """Return the Avro value of a parked delivery: its exact bytes and the reason."""
    return {
        "webhook_id": delivery.id,
        "source": delivery.source,
        "received_at": delivery.first_received_at or delivery.received_at,
        "reason": park.reason,
        "detail": park.detail,
        "field": park.field,
        "headers": delivery.headers,
        "body": delivery.body,
    }


@lru_cache(_CONSTANTS_MAX)
def _type_headers(event_type: str, schema: str) -> tuple[Header, Header]:
    return ("ce_type", event_type.encode()), ("drx_schema", schema.encode())


@lru_cache(_CONSTANTS_MAX)
def _text_header(name: str, value: str) -> Header:
    return name, value.encode()


@lru_cache(RECEIPTS_MAX)
def _receipt(received_at: datetime) -> tuple[Header, int]:
    """Return the header of a receipt, and its time in milliseconds."""
    return ("drx_received_at", _rfc3339(received_at)), _milliseconds(received_at)


def _rfc3339(moment: datetime) -> bytes:
    if moment.microsecond:  # orjson takes a fifth of the time, but omits a fraction of zero
        return orjson.dumps(moment, option=orjson.OPT_UTC_Z)[1:-1]
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z").encode()


def _milliseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MILLISECOND
