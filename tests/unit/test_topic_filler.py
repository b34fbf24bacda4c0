"""The filler's records are what the ingress writes, so that what is measured and broken with them means something."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from itertools import islice, pairwise

from bridge.avro.schema_ids import RECORDS
from bridge.event import Delivery
from bridge.kafka.record import Record, event_record
from bridge.kafka.routing import partition
from tests.originals import ORIGINALS, codec, decoded
from tests.topic_filler import AT_ONCE, Lives


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


def test_every_copy_has_ids_and_times_of_its_own() -> None:
    """Two copies of one life, which differ in nothing else."""
    lives = Lives(ORIGINALS + 1)
    first, copy = lives.events(0), lives.events(ORIGINALS)

    assert [each.type for each in first] == [each.type for each in copy]
    assert not {each.id for each in first} & {each.id for each in copy}
    assert not {each.occurred_at for each in first} & {each.occurred_at for each in copy}
    assert copy[0].value["prescription_id"] == copy[0].key == lives.prescription_id(ORIGINALS)


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


def test_the_lives_of_one_prescription_happen_one_after_the_other() -> None:
    times = [each.occurred_at for each in Lives(ORIGINALS, lives_each=3).events(5)]

    assert times == sorted(times)
    assert max(b - a for a, b in pairwise(times)) > timedelta(days=20)


def test_as_many_lives_are_told_as_the_records_need() -> None:
    lives = Lives.of_records(10_000)

    assert 10_000 <= lives.count < 10_000 + 10
    assert Lives(lives.prescriptions - 1).count < 10_000


def test_more_prescriptions_than_are_told_at_one_time_are_all_told() -> None:
    lives = Lives(AT_ONCE + 100)

    assert len({record.key for record in lives.records()}) == AT_ONCE + 100
