"""The side file of a segment as bytes: which of its records are acknowledged. Losing it costs duplicates only."""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Iterable

# Not ASCII at the front, as a segment's; the version of the format is in the byte behind it.
PREFIX = b"\x8bDRXAK\n"
VERSION = 1
_MAGIC = PREFIX + bytes([VERSION])
# Magic, number of the segment, count of running numbers.
_COUNT = struct.Struct(">8sQI")
_NUMBER_BYTES = 4
# A changed number would make an event count as acknowledged that is not, so a check sum of 32 bits is not enough.
_DIGEST_BYTES = 16


def positions_frame(segment: int, numbers: Iterable[int]) -> bytes:
    """Return what to append to the side file of `segment` when these records are acknowledged."""
    listed = tuple(numbers)
    content = _COUNT.pack(_MAGIC, segment, len(listed)) + struct.pack(f">{len(listed)}I", *listed)
    return content + _digest(content)


def read_positions(content: bytes, *, segment: int) -> set[int]:
    """Return the numbers of the acknowledged records by every sound frame, whatever stands between those."""
    numbers: set[int] = set()
    at = content.find(_MAGIC)
    while 0 <= at <= len(content) - _COUNT.size:
        _, stated, count = _COUNT.unpack_from(content, at)
        end = at + _COUNT.size + count * _NUMBER_BYTES
        if stated == segment and content[end : end + _DIGEST_BYTES] == _digest(content[at:end]):
            numbers.update(struct.unpack_from(f">{count}I", content, at + _COUNT.size))
            at = content.find(_MAGIC, end + _DIGEST_BYTES)
        else:  # torn: not behind the length that it states
            at = content.find(_MAGIC, at + 1)
    return numbers


def no_numbers() -> array[int]:
    """Return an empty collection of running numbers, four bytes each."""
    return array("I")


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
