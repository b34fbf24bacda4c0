"""The filler's records are what the ingress writes, so that what is measured and broken with them means something."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from itertools import islice

from bridge.avro.schema_ids import RECORDS
from bridge.event import Delivery
from bridge.kafka.record import Record, event_record
from bridge.kafka.routing import partition
from tests.originals import ORIGINALS, codec, decoded
from tests.topic_filler import Lives


def the_long_way(record: Record) -> Record:
    """Build the record again from what it says, as the publisher does."""
    headers = {name: content.decode() for name, content in record.headers}
    event = decoded(record)
    delivery = Delivery(
        source=headers["ce_source"],
        environment="sandbox",
        id=headers["ce_id"],
        received_at=datetime.fromisoformat(headers["drx_received_at"]),
        body=b"",
        body_sha256=headers["drx_body_sha256"],
        key_slot=headers["drx_key_slot"],
        traceparent=headers["traceparent"],
        headers={},
    )
    schema = RECORDS[event.type]
    return event_record(
        *(event, delivery),
        topic=record.topic,
        partition=partition(event.key.encode(), 12),
        value=codec().encode(schema, event.value),
        schema=schema,
        ordinal=headers["drx_ordinal"].encode(),
    )


def test_a_copy_is_the_record_that_the_publisher_would_write() -> None:
    copies = islice(Lives(ORIGINALS + 7).records(), 0, None, 11)

    assert [each for each in copies if each != the_long_way(each)] == []


def test_prescriptions_take_turns_and_keep_their_own_order() -> None:
    lives = Lives(50, lives_each=3)
    written: dict[str, list[str]] = defaultdict(list)
    keys = []
    for record in lives.records():
        written[record.key.decode()].append(dict(record.headers)["ce_id"].decode())
        keys.append(record.key)

    assert written == {lives.prescription_id(number): lives.event_ids(number) for number in range(50)}
    assert len(set(keys[:100])) > 25
    assert len(keys) == lives.count == len({each for ids in written.values() for each in ids})
