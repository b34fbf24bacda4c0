from datetime import UTC, datetime

import pytest

from bridge.event import Event, Identity, ParkReason, identity_in
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.record import Header, Record, event_record, identity_of, unrecognized_key, unrecognized_record
from tests.builders import a_delivery, an_event

DELIVERY = a_delivery()._replace(received_at=datetime(2026, 3, 1, 12, 0, 0, 7, tzinfo=UTC))
SENT = an_event(id="evt_1/2", type="prescription.sent", occurred_at=datetime(2026, 3, 1, 11, 59, 59, tzinfo=UTC))
PARKED = unrecognized_record(DELIVERY, ParkReason("unusable", "no_key"), partition=1, value=b"avro")


def record_of(event: Event) -> Record:
    schema = "drx.v1.PrescriptionSent"
    return event_record(event, DELIVERY, topic="t", partition=3, value=b"avro", schema=schema, ordinal=b"pod-1:17")


EVENT = record_of(SENT)


def test_an_event_has_exactly_the_headers_of_the_contract() -> None:
    assert EVENT.headers == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"evt_1/2"),
        ("ce_source", b"drx"),
        ("ce_type", b"prescription.sent"),
        ("ce_subject", b"rx_1"),
        ("ce_time", b"2026-03-01T11:59:59.000000Z"),
        ("content-type", b"application/avro"),
        ("traceparent", DELIVERY.traceparent.encode()),
        ("drx_received_at", b"2026-03-01T12:00:00.000007Z"),
        ("drx_key_slot", b"current"),
        ("drx_body_sha256", DELIVERY.body_sha256.encode()),
        ("drx_schema", b"drx.v1.PrescriptionSent"),
        ("drx_ordinal", b"pod-1:17"),
    ]
    assert (EVENT.topic, EVENT.partition, EVENT.key, EVENT.value) == ("t", 3, b"rx_1", b"avro")
    # Whole milliseconds: a float would round some receipts up, and a record would seem younger than its header says.
    assert (EVENT.timestamp_ms, repr(EVENT)) == (1_772_366_400_000, "Record(t/3)")


def test_an_event_of_a_mapping_file_names_it_in_one_more_header() -> None:
    record = record_of(SENT._replace(mapping="0123456789ab"))

    assert record.headers == [*EVENT.headers, ("drx_mapping", b"0123456789ab")]


def test_an_event_whose_id_is_of_its_part_of_the_body_is_identified_by_the_hash_of_that() -> None:
    record = record_of(SENT._replace(sha256="ab" * 32))

    assert record.headers == [*EVENT.headers, ("drx_part_sha256", b"ab" * 32)]
    assert identity_of(record.headers) == identity_in(DELIVERY, SENT._replace(sha256="ab" * 32))


def test_an_unrecognized_delivery_has_exactly_the_headers_of_the_contract() -> None:
    assert PARKED.headers == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"evt_1"),
        ("ce_type", b"drx.unrecognized"),
        ("ce_source", b"drx"),
        ("ce_subject", b"evt_1"),
        ("ce_time", b"2026-03-01T12:00:00.000007Z"),
        ("content-type", b"application/avro"),
        ("drx_reason", b"unusable"),
        ("drx_received_at", b"2026-03-01T12:00:00.000007Z"),
        ("drx_key_slot", b"current"),
        ("drx_body_sha256", DELIVERY.body_sha256.encode()),
        ("drx_schema", b"drx.v1.UnrecognizedDelivery"),
    ]
    assert (PARKED.topic, PARKED.key, PARKED.value) == ("drx.unrecognized.v1", b"evt_1", b"avro")


def test_an_unrecognized_delivery_is_keyed_by_its_prescription_if_that_is_known() -> None:
    assert unrecognized_key(DELIVERY, ParkReason("unknown_type", key="rx_9")) == b"rx_9"
    assert unrecognized_key(DELIVERY, ParkReason("malformed_json")) == b"evt_1"


def changed(record: Record, name: str, content: bytes | None) -> list[Header]:
    """The headers of a record with one changed, or left out."""
    others = [header for header in record.headers if header[0] != name]
    return others if content is None else [*others, (name, content)]


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
