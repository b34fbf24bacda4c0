"""The side file of a segment as bytes: which of its records are acknowledged. Losing it costs duplicates only."""

from __future__ import annotations

import hashlib
import struct
from array import array
from collections.abc import Iterable

_COUNT = struct.Struct(">QI")
_NUMBER_BYTES = 4
# A changed number would make an event count as acknowledged that is not, so a check sum of 32 bits is not enough.
_DIGEST_BYTES = 16


def positions_frame(segment: int, numbers: Iterable[int]) -> bytes:
    """Return what to append to the side file of `segment` when these records are acknowledged."""
    listed = tuple(numbers)
    content = _COUNT.pack(segment, len(listed)) + struct.pack(f">{len(listed)}I", *listed)
    return content + _digest(content)


def read_positions(content: bytes, *, segment: int) -> set[int]:
    """Return the numbers of the acknowledged records; from the first frame that is not sound nothing is believed."""
    numbers: set[int] = set()
    at = 0
    while len(content) - at >= _COUNT.size:
        stated, count = _COUNT.unpack_from(content, at)
        end = at + _COUNT.size + count * _NUMBER_BYTES
        if stated != segment or content[end : end + _DIGEST_BYTES] != _digest(content[at:end]):
            break
        numbers.update(struct.unpack_from(f">{count}I", content, at + _COUNT.size))
        at = end + _DIGEST_BYTES
    return numbers


def no_numbers() -> array[int]:
    """Return an empty collection of running numbers, four bytes each."""
    return array("I")


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest()
