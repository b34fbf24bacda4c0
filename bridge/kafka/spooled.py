"""A record as the spool keeps it: opaque there, a record again when it is drained."""

from __future__ import annotations

import struct
from collections.abc import Iterable

from bridge.event import Identity
from bridge.kafka.record import Header, Record
from bridge.spool.segment import Entry, UnreadableEntryError

# Of the layout of a payload, its first byte. Another layout is another version; once a release reads it, the next may
# write it.
VERSION = 1
# Version, time, length of the value or -1, count of headers.
_HEAD = struct.Struct(">BqiH")
_LENGTH = struct.Struct(">I")


def pack(record: Record) -> bytes:
    """Return all of a record but its place, which the spool keeps."""
    value = record.value
    parts = [
        _HEAD.pack(VERSION, record.timestamp_ms, -1 if value is None else len(value), len(record.headers)),
        value or b"",
    ]
    for part in (record.key, *(part for name, content in record.headers for part in (name.encode(), content))):
        parts += [_LENGTH.pack(len(part)), part]
    return b"".join(parts)


def unpack(payload: bytes, topic: str, partition: int) -> Record:
    """Invert `pack`.

    Raises:
        UnreadableEntryError: Of another version, or no record: the spool has proved that the bytes are ours, so a fault
            in them is a bug.
    """
    try:
        return _unpack(payload, topic, partition)
    except (struct.error, UnicodeDecodeError):
        raise UnreadableEntryError from None


def _unpack(payload: bytes, topic: str, partition: int) -> Record:
    version, timestamp_ms, length, count = _HEAD.unpack_from(payload)
    if version != VERSION:
        raise UnreadableEntryError
    start = _HEAD.size + max(length, 0)
    value = None if length < 0 else payload[_HEAD.size : start]
    parts = []
    for _ in range(1 + 2 * count):
        (size,) = _LENGTH.unpack_from(payload, start)
        start += _LENGTH.size + size
        parts.append(payload[start - size : start])
    if start != len(payload):
        raise UnreadableEntryError
    headers = [(name.decode(), content) for name, content in zip(parts[1::2], parts[2::2], strict=True)]
    return Record(topic, partition, parts[0], value, headers, timestamp_ms)


def read(entry: Entry) -> Record:
    """Return the record that an entry holds.

    Raises:
        UnreadableEntryError: None that this version can read and deliver.
    """
    record = unpack(entry.payload, *entry.lane)
    identity_of(record.headers)
    return record


def identity_of(headers: Iterable[Header]) -> Identity:
    """Return what the headers of a record of ours say about its identity.

    Raises:
        UnreadableEntryError: They do not say it.
    """
    try:
        said = {name: content.decode() for name, content in headers}
        return Identity(said["ce_source"], said["ce_id"], said["drx_body_sha256"], said.get("drx_reason", ""))
    except (KeyError, UnicodeDecodeError):
        raise UnreadableEntryError from None
