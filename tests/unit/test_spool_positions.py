"""The side file of acknowledged positions: a frame is valid as a whole or not at all."""

from collections.abc import Iterable

import pytest

from bridge.spool import segment
from bridge.spool.segment import POSITIONS_PREFIX, POSITIONS_VERSION, key_of

SEGMENT = 77
KEY, OLDER_KEY = key_of(b"k" * 32), key_of(b"o" * 32)


def positions_frame(number: int, numbers: Iterable[int]) -> bytes:
    return segment.positions_frame(number, numbers, KEY)


def read_positions(content: bytes, *, number: int = SEGMENT) -> set[int]:
    return segment.read_positions(content, segment=number, keys=[OLDER_KEY, KEY])


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_anywhere_costs_positions_and_makes_none(bit: int) -> None:
    """A position too many would be an event that is never delivered."""
    first, second = positions_frame(SEGMENT, [1, 2]), positions_frame(SEGMENT, [4, 8])
    content = first + second
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << bit

        assert read_positions(bytes(changed)) == ({1, 2} if at >= len(first) else {4, 8})


@pytest.mark.parametrize("filler", [b"", bytes(100), b"?"])
def test_what_follows_a_torn_frame_is_believed(filler: bytes) -> None:
    """A power cut tears the frame that was written last, and the next start goes on behind it."""
    first, second, third = (positions_frame(SEGMENT, [number, number + 10]) for number in (1, 2, 3))

    for kept in range(len(second)):
        torn = first + second[:kept] + filler
        assert read_positions(torn) == {1, 11}, kept
        assert read_positions(torn + third) == {1, 11, 3, 13}, kept


def test_a_frame_of_another_version_or_segment_is_passed_over() -> None:
    """Files that were copied or blocks that are stale may hold one of another segment, with a digest that holds."""
    first, second, third = (positions_frame(SEGMENT, [number]) for number in (1, 2, 3))
    later = second[: len(POSITIONS_PREFIX)] + bytes([POSITIONS_VERSION + 1]) + second[len(POSITIONS_PREFIX) + 1 :]

    assert read_positions(first + later + positions_frame(SEGMENT + 1, [4]) + third) == {1, 3}
