"""The payload of an entry: a Kafka record without topic and partition, which the entry has.

Big-endian:

    version u8, time i64 (Unix ms), length of the value i32 (-1: null), count of headers u16, value,
    key, then name and content of each header: each of these a length u32 and that many bytes

Another layout has another version; the release after one that reads it may write it.
"""

import struct
from collections.abc import Sequence

from bridge.spool.segment import UnreadableEntryError

VERSION = 1
_HEAD = struct.Struct(">BqiH")
_LENGTH = struct.Struct(">I")

Content = tuple[bytes, bytes | None, list[tuple[str, bytes]], int]
"""Key, value, headers, and time in Unix milliseconds."""


def pack(key: bytes, value: bytes | None, headers: Sequence[tuple[str, bytes]], timestamp_ms: int) -> bytes:
    """Return the payload."""
    parts = [_HEAD.pack(VERSION, timestamp_ms, -1 if value is None else len(value), len(headers)), value or b""]
    for part in (key, *(part for name, content in headers for part in (name.encode(), content))):
        parts += [_LENGTH.pack(len(part)), part]
    return b"".join(parts)


def unpack(payload: bytes) -> Content:
    """Invert `pack`.

    Raises:
        UnreadableEntryError: Of another version, or not a record: since decryption verified the bytes, a fault in them
            is a bug.
    """
    try:
        return _unpack(payload)
    except (struct.error, UnicodeDecodeError):
        raise UnreadableEntryError from None


def _unpack(payload: bytes) -> Content:
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
    return parts[0], value, headers, timestamp_ms
