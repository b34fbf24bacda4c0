from datetime import UTC, datetime

from bridge.event import Delivery, Event, ParkReason
from bridge.kafka.record import event_record, unrecognized_key, unrecognized_record

RECEIVED_AT = datetime(2026, 3, 1, 12, 0, 0, 7, tzinfo=UTC)
OCCURRED_AT = datetime(2026, 3, 1, 11, 59, 59, tzinfo=UTC)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

DELIVERY = Delivery(
    source="drx",
    environment="sandbox",
    id="wh_1",
    received_at=RECEIVED_AT,
    body=b'{"id": "\xff"}',
    body_sha256="ab" * 32,
    key_slot="current",
    traceparent=TRACEPARENT,
    headers={"content-type": "application/json"},
)
EVENT = Event(
    id="evt_1",
    type="prescription.sent",
    source="drx",
    key="rx_1",
    occurred_at=OCCURRED_AT,
    received_at=RECEIVED_AT,
    value={},
)


def test_an_event_has_exactly_the_headers_of_the_contract() -> None:
    record = event_record(
        EVENT, DELIVERY, topic="t", partition=3, value=b"avro", schema="drx.v1.PrescriptionSent", ordinal=b"pod-1:17"
    )

    assert record.headers == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"evt_1"),
        ("ce_source", b"drx"),
        ("ce_type", b"prescription.sent"),
        ("ce_subject", b"rx_1"),
        ("ce_time", b"2026-03-01T11:59:59.000000Z"),
        ("content-type", b"application/avro"),
        ("traceparent", TRACEPARENT.encode()),
        ("drx_received_at", b"2026-03-01T12:00:00.000007Z"),
        ("drx_key_slot", b"current"),
        ("drx_body_sha256", b"ab" * 32),
        ("drx_schema", b"drx.v1.PrescriptionSent"),
        ("drx_ordinal", b"pod-1:17"),
    ]
    assert (record.topic, record.partition, record.key, record.value) == ("t", 3, b"rx_1", b"avro")
    # Whole milliseconds: a float would round some receipts up, and a record would seem younger than its header says.
    assert record.timestamp_ms == 1_772_366_400_000
    assert repr(record) == "Record(t/3)"


def test_an_event_of_a_mapping_file_names_it_in_one_more_header() -> None:
    made = event_record(
        EVENT._replace(mapping="0123456789ab"), DELIVERY, topic="t", partition=0, value=b"", schema="s", ordinal=b"o"
    )

    assert made.headers[-1] == ("drx_mapping", b"0123456789ab")
    assert "drx_mapping" not in dict(
        event_record(EVENT, DELIVERY, topic="t", partition=0, value=b"", schema="s", ordinal=b"o").headers
    )


def test_an_unrecognized_delivery_has_exactly_the_headers_of_the_contract() -> None:
    park = ParkReason("unusable", detail="no_key", field="data.prescription_id")
    record = unrecognized_record(DELIVERY, park, partition=1, value=b"avro")

    assert record.headers == [
        ("ce_specversion", b"1.0"),
        ("ce_id", b"wh_1"),
        ("ce_type", b"drx.unrecognized"),
        ("ce_source", b"drx"),
        ("ce_subject", b"wh_1"),
        ("ce_time", b"2026-03-01T12:00:00.000007Z"),
        ("content-type", b"application/avro"),
        ("drx_reason", b"unusable"),
        ("drx_received_at", b"2026-03-01T12:00:00.000007Z"),
        ("drx_key_slot", b"current"),
        ("drx_body_sha256", b"ab" * 32),
        ("drx_schema", b"drx.v1.UnrecognizedDelivery"),
    ]
    assert (record.topic, record.key, record.value) == ("drx.unrecognized.v1", b"wh_1", b"avro")


def test_an_unrecognized_delivery_is_keyed_by_its_prescription_if_that_is_known() -> None:
    assert unrecognized_key(DELIVERY, ParkReason("unknown_type", key="rx_9")) == b"rx_9"
    assert unrecognized_key(DELIVERY, ParkReason("malformed_json")) == b"wh_1"
