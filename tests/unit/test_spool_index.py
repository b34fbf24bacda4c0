"""Where the records of a spool are: order, what is acknowledged, and which files are still needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.spool.index import Index, Location, Segment
from bridge.spool.segment import SpoolPartition

PARTITION: SpoolPartition = ("drx.prescriptions.v1", 3)
OTHER: SpoolPartition = ("drx.accounts.v1", 0)
BYTES = 100


@pytest.fixture
def index() -> Index:
    return Index(Path("spool"))


def fill(index: Index, count: int, *, number: int = 1, partition: SpoolPartition = PARTITION) -> Segment:
    segment = index.segment(number)
    for at in range(count):
        index.add(partition, Location(segment.index, at * BYTES, BYTES, at, 1000 * number + at))
    return segment


def head(index: Index, most: int = 1_000_000, most_bytes: int = 1_000_000_000) -> list[int]:
    return [location.at_ms for location in index.head(PARTITION, most=most, most_bytes=most_bytes)]


def test_places_come_back_whole_in_the_order_in_which_they_were_added(index: Index) -> None:
    first, second = fill(index, 2), fill(index, 1, number=2**50)

    assert index.head(PARTITION, most=10, most_bytes=10 * BYTES) == [
        Location(first.index, 0, BYTES, 0, 1000),
        Location(first.index, BYTES, BYTES, 1, 1001),
        Location(second.index, 0, BYTES, 0, 1000 * 2**50),
    ]


def test_a_head_is_bounded_and_has_at_least_one(index: Index) -> None:
    fill(index, 5)

    assert head(index, most=2) == [1000, 1001]
    assert head(index, most_bytes=3 * BYTES) == [1000, 1001, 1002]
    assert head(index, most_bytes=1) == [1000]
    assert index.head(OTHER, most=5, most_bytes=5 * BYTES) == []


def test_what_is_dropped_is_acknowledged_in_its_segment(index: Index) -> None:
    first, second = fill(index, 2), fill(index, 2, number=2)

    assert index.acknowledge(PARTITION, 3) == {first.index, second.index}
    assert (first.acknowledged.tolist(), second.acknowledged.tolist()) == ([0, 1], [0])
    assert (first.is_needed, second.is_needed) == (False, True)
    assert (index.depth(PARTITION), index.events(), index.oldest_ms()) == (1, 1, 2001)
    assert index.acknowledge(PARTITION, 5) == {second.index}
    assert (index.depth(PARTITION), index.events(), index.oldest_ms()) == (0, 0, 0)


def test_what_is_passed_over_is_not_acknowledged(index: Index) -> None:
    segment = fill(index, 2)
    index.pass_over(PARTITION)

    assert head(index) == [1001]
    assert (segment.live, segment.acknowledged.tolist()) == (1, [])


def test_a_long_queue_keeps_its_order_while_it_is_drained_and_filled(index: Index) -> None:
    """Acknowledged locations are freed on the way."""
    expected = list(range(5000))
    segment = index.segment(1)
    for at in expected:
        index.add(PARTITION, Location(segment.index, at * BYTES, BYTES, at, at))
        if at % 3 == 2:
            index.acknowledge(PARTITION, 2)

    left = expected[2 * (len(expected) // 3) :]
    assert head(index) == left
    assert (index.depth(PARTITION), segment.live) == (len(left), len(left))


@pytest.mark.parametrize(("name", "value"), [("locked", 1), ("is_foreign", True), ("is_unread", True)])
def test_a_segment_without_records_that_wait_may_still_be_needed(index: Index, name: str, value: object) -> None:
    segment = fill(index, 1)
    index.acknowledge(PARTITION, 1)
    assert not segment.is_needed
    setattr(segment, name, value)

    assert segment.is_needed
