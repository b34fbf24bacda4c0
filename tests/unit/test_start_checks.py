"""What a process refuses to go on from, and the line that tells its operator what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bridge.errors import ConfigError
from bridge.kafka.transport import Bounds, ConsumedRecord, Place
from consumers.runtime.operator import Progress
from consumers.runtime.start_checks import check_last_records, check_offsets

PLACE = Place("drx.prescriptions.v1", 3)
AGAIN = "`drx-consumer init desk --partition drx.prescriptions.v1/3 --from … --force --reason …`"


def standing(next_offset: int | None, *, cluster_id: str | None = "A", last_event_id: str | None = None) -> Progress:
    return Progress(PLACE, next_offset, last_event_id, 1, cluster_id, datetime(2026, 9, 14, tzinfo=UTC), 0, 0, 0)


LOG = Bounds(0, 100)


def judged(*stored: Progress, bounds: Bounds = LOG, **changes: Any) -> str:
    """Return the complaint, or an empty text."""
    options: dict[str, Any] = {"cluster_id": "A", "accepted": None, "begins_by_itself": False} | changes
    try:
        check_offsets("desk", stored, {PLACE: bounds}, **options)
    except ConfigError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize("offset", [10, 50, 100])
def test_an_offset_within_the_log_is_gone_on_from(offset: int) -> None:
    assert judged(standing(offset), bounds=Bounds(10, 100)) == ""


def test_an_offset_behind_the_end_is_that_of_another_log() -> None:
    complaint = judged(standing(101))

    assert "stands at 101 of drx.prescriptions.v1/3, which ends at 100: the topic was made anew or cut" in complaint
    assert AGAIN in complaint


def test_an_offset_before_the_start_has_expired() -> None:
    complaint = judged(standing(9), bounds=Bounds(10, 100))

    assert "stands at 9 of drx.prescriptions.v1/3, which begins at 10: what lies between has expired" in complaint
    assert AGAIN in complaint


def test_a_partition_that_is_gone_was_made_anew() -> None:
    """`init --partition` would refuse it, since it is not there."""
    with pytest.raises(ConfigError, match="ends at 0: the topic was made anew") as caught:
        check_offsets("desk", [standing(5)], {}, cluster_id="A", accepted=None, begins_by_itself=True)

    assert "`drx-consumer init desk --from … --force --reason …`" in str(caught.value)


@pytest.mark.parametrize("stored", [[], [standing(None)]])
def test_a_group_that_stands_nowhere_wants_to_be_told_where_to_begin(stored: list[Progress]) -> None:
    assert "`drx-consumer init desk --from earliest|latest|TIME`" in judged(*stored)
    assert judged(*stored, begins_by_itself=True) == ""


def test_offsets_of_another_cluster_are_refused_until_they_are_accepted() -> None:
    complaint = judged(standing(5), cluster_id="B")

    assert "stands in Kafka cluster A, and this is B" in complaint
    assert "set CONSUMER_KAFKA__ACCEPT_CLUSTER_ID=B" in complaint
    assert judged(standing(5), cluster_id="B", accepted="B") == ""
    assert judged(standing(5), cluster_id="B", accepted="A") == complaint


def test_a_cluster_that_is_not_known_is_no_other() -> None:
    assert judged(standing(5, cluster_id=None), cluster_id="B") == ""


def a_record(offset: int, event_id: str) -> ConsumedRecord:
    return ConsumedRecord(*PLACE, offset, 0, b"rx_1", b"", [("ce_id", event_id.encode())])


def test_other_records_under_the_same_offsets_are_a_topic_made_anew() -> None:
    """Also when it has outgrown what was settled of the old one."""
    with pytest.raises(ConfigError, match="holds other records: the topic was made anew") as caught:
        check_last_records("desk", {PLACE: standing(5, last_event_id="evt_1")}, {PLACE: a_record(4, "evt_2")})

    assert AGAIN in str(caught.value)


@pytest.mark.parametrize("record", [a_record(4, "evt_1"), a_record(6, "evt_2")], ids=["the same", "a gap"])
def test_the_same_record_or_none_proves_nothing_against_it(record: ConsumedRecord) -> None:
    check_last_records("desk", {PLACE: standing(5, last_event_id="evt_1")}, {PLACE: record})
