"""Events that `unrecognized list` assigns to a parked delivery."""

import pytest

from bridge.commands.unrecognized import _event_marks, _marks
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.record import PART_SHA256


def record(event_id: str, **headers: str) -> ConsumedRecord:
    named = {"ce_source": "acme", "ce_id": event_id, "drx_body_sha256": "ab" * 32, **headers}
    return ConsumedRecord("t", 0, 0, 0, None, None, [(name, text.encode()) for name, text in named.items()])


@pytest.mark.parametrize(
    ("reason", "headers", "is_event"),
    [
        ("unknown_type", {}, True),
        ("unknown_type", {PART_SHA256: "cd" * 32}, True),
        ("id_conflict", {}, True),
        ("id_conflict", {PART_SHA256: "cd" * 32}, False),
    ],
)
def test_an_element_is_no_event_of_another_that_is_in_conflict(
    reason: str, headers: dict[str, str], *, is_event: bool
) -> None:
    assert _marks(record("b2", drx_reason=reason)).isdisjoint(_event_marks(record("f1/fill", **headers))) != is_event
