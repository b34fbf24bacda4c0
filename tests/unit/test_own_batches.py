"""What this process knows to be in Kafka is left out by its offsets; anything else is read."""

from __future__ import annotations

from bridge.kafka.fetch_buffer import OWN_MAX, OwnBatches

PLACE = ("drx.prescriptions.v1", 3)
WRITER, REPLICA = 7, 8


def noted(*batches: tuple[int, int]) -> OwnBatches:
    """Batches of `PLACE`, each an offset and how many records."""
    own = OwnBatches()
    for offset, records in batches:
        own.note(*PLACE, offset, records=records, producer_id=WRITER)
    return own


def test_batches_that_follow_each_other_are_left_out_together() -> None:
    own = noted((10, 2), (12, 1), (13, 5))

    assert own.end_of(PLACE, 10) == 18


def test_what_another_replica_has_written_between_is_read() -> None:
    own = noted((10, 2), (15, 1))

    assert own.end_of(PLACE, 10) == 12
    assert own.end_of(PLACE, 12) == 12
    assert own.end_of(PLACE, 15) == 16


def test_nothing_is_left_out_in_the_midst_of_a_batch_or_of_another_partition() -> None:
    own = noted((10, 4))

    assert own.end_of(PLACE, 11) == 11
    assert own.end_of((PLACE[0], 4), 10) == 10
    assert own.end_of(("drx.accounts.v1", 3), 10) == 10


def test_a_batch_is_left_out_once() -> None:
    """A topic that was made anew has the same offsets again."""
    own = noted((10, 2))

    assert own.end_of(PLACE, 10) == 12
    assert own.end_of(PLACE, 10) == 10
    assert not own.take(PLACE, 10, WRITER)


def test_a_batch_that_was_fetched_is_ours_by_its_writer() -> None:
    assert noted((10, 2)).take(PLACE, 10, WRITER)
    assert not noted((10, 2)).take(PLACE, 10, REPLICA)


def test_what_a_topic_held_before_it_is_opened_again_is_forgotten() -> None:
    own = noted((10, 2))
    own.note("drx.accounts.v1", 0, 5, records=1, producer_id=WRITER)

    own.forget(PLACE[0])

    assert own.end_of(PLACE, 10) == 10
    assert own.end_of(("drx.accounts.v1", 0), 5) == 6


def test_of_a_partition_that_nobody_reads_the_newest_are_noted() -> None:
    own = noted(*((offset, 1) for offset in range(OWN_MAX + 2)))

    assert own.end_of(PLACE, 1) == 1
    assert own.end_of(PLACE, 2) == OWN_MAX + 2
