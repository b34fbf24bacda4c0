"""Which records of a topic identify something, by their headers."""

import pytest

from bridge.event import Identity, ParkReason
from bridge.kafka.record import Header, Record, event_record, identity_of, unrecognized_record
from bridge.kafka.transport import ConsumedRecord
from tests.builders import a_delivery, an_event

DELIVERY = a_delivery()
EVENT = event_record(
    an_event(id="evt_1/2"), DELIVERY, topic="t", partition=0, value=b"", schema="drx.v1.X", ordinal=b"i:1"
)
PARKED = unrecognized_record(DELIVERY, ParkReason("unusable", "no_key"), partition=0, value=b"")


def changed(record: Record, name: str, content: bytes | None) -> list[Header]:
    """The headers of a record with one changed, or left out."""
    return [(each, old if each != name else content) for each, old in record.headers if each != name or content]  # type: ignore[misc]  # None is left out


def test_an_event_is_identified_by_its_id_and_its_body_and_what_is_parked_by_its_reason_too() -> None:
    assert identity_of(EVENT.headers) == Identity("drx", "evt_1/2", DELIVERY.body_sha256)
    assert identity_of(PARKED.headers) == Identity("drx", "evt_1", DELIVERY.body_sha256, "unusable")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ce_id", None),
        ("ce_id", b"\xff"),
        ("ce_source", None),
        ("ce_source", b"\xff"),
        ("drx_body_sha256", None),
        ("drx_body_sha256", b"0" * 63),
        ("drx_body_sha256", b"0" * 65),
        ("drx_body_sha256", b"F" * 64),
        ("drx_body_sha256", b"g" * 64),
        ("drx_body_sha256", b"0" * 64 + b"\n"),
        ("drx_reason", b"\xff"),
    ],
)
def test_headers_that_are_not_as_ours_identify_nothing(name: str, content: bytes | None) -> None:
    assert identity_of(changed(PARKED, name, content)) is None


def test_of_a_repeated_header_the_last_counts() -> None:
    """As for Kafka's `Headers.lastHeader`, so that the deduplicator and a consumer see the same event."""
    headers = [("ce_id", b"evt_0"), *EVENT.headers, ("ce_source", b"other")]
    record = ConsumedRecord("t", 0, 7, 0, EVENT.key, EVENT.value, headers)

    assert identity_of(headers) == Identity("other", "evt_1/2", DELIVERY.body_sha256)
    assert (record.header("ce_id"), record.header("ce_source")) == ("evt_1/2", "other")
