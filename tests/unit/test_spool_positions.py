"""The side file of acknowledged positions: believed whole, or not at all."""

from __future__ import annotations

import pytest

from bridge.spool.positions import positions_frame, read_positions

SEGMENT = 77


def test_what_is_noted_is_read_again() -> None:
    content = positions_frame(SEGMENT, [0, 5, 2**32 - 1]) + positions_frame(SEGMENT, [7])

    assert read_positions(content, segment=SEGMENT) == {0, 5, 7, 2**32 - 1}


def test_the_file_of_another_segment_is_not_believed() -> None:
    assert read_positions(positions_frame(SEGMENT, [1]), segment=SEGMENT + 1) == set()


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_anywhere_costs_positions_and_makes_none(bit: int) -> None:
    """A position too many would be an event that is never delivered."""
    first, second = positions_frame(SEGMENT, [1, 2]), positions_frame(SEGMENT, [4, 8])
    content = first + second
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << bit

        assert read_positions(bytes(changed), segment=SEGMENT) == ({1, 2} if at >= len(first) else set())


def test_a_torn_end_is_left_out() -> None:
    content = positions_frame(SEGMENT, [1]) + positions_frame(SEGMENT, [2])

    for kept in range(len(content)):
        assert read_positions(content[:kept], segment=SEGMENT) <= {1, 2}
    assert read_positions(content[:-1], segment=SEGMENT) == {1}
