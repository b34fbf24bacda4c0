"""How a consumer decodes a record: an event, a schema to request from the registry, or the reason for a failure."""

from uuid import UUID

import pytest

from bridge.avro.codec import Codec
from bridge.avro.event_decoder import EventDecoder
from bridge.errors import DecodeError, TransientError, UnknownRecordError
from bridge.event import UNRECOGNIZED_TYPE, Event
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.record import UNRECOGNIZED_SCHEMA
from bridge.registry.loader import bundled
from bridge.registry.schemas import WriterSchema
from tests.builders import WHEN, a_ping, codec
from tests.component.registry.registry_fakes import ORDER, Answer, Connect, FakeRegistry, shown

LOCK = bundled()
SCHEMAS = LOCK.schemas()
PING = "drx.v1.SystemPing"
ID = LOCK.ids()[PING]
VALUE = a_ping()
PAYLOAD = codec().encode(PING, VALUE)


def a_record(value: bytes | None = PAYLOAD, *, key: bytes | None = b"rx_1") -> ConsumedRecord:
    return ConsumedRecord("drx.prescriptions.v1", 0, 0, 0, key, value, [])


def by_the_lock() -> EventDecoder:
    writers = [WriterSchema(entry.id, UUID(entry.guid), entry.schema) for entry in LOCK.entries]
    return EventDecoder(Codec(schemas=SCHEMAS, ids={}, writers=writers), registry=None)


def test_an_event_comes_back_as_it_was_written() -> None:
    event = by_the_lock().decode(a_record())

    assert event == Event("evt_1", "system.ping", "drx", "rx_1", WHEN, VALUE["received_at"], VALUE)


def test_a_delivery_that_was_no_event_is_one_of_its_own_type() -> None:
    value = {
        "webhook_id": "msg_1",
        "source": "drx",
        "received_at": WHEN,
        "reason": "malformed_json",
        "detail": "",
        "field": "",
        "headers": {},
        "body": b"{",
    }

    event = by_the_lock().decode(a_record(codec().encode(UNRECOGNIZED_SCHEMA, value)))

    assert (event.id, event.type, event.source) == ("msg_1", UNRECOGNIZED_TYPE, "drx")
    assert (event.occurred_at, event.received_at, event.value["body"]) == (WHEN, WHEN, b"{")


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (a_record(None), "tombstone"),
        (a_record(key=None), "no_key"),
        (a_record(key=b"\xff"), "bad_key"),
        (a_record(b"\0\0\xff\xff\xff\0"), "unknown_schema_id"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_record_that_is_none_of_ours_says_why(record: ConsumedRecord, code: str) -> None:
    with pytest.raises(DecodeError, match=f"^{code}$"):
        by_the_lock().decode(record)


def test_a_record_that_names_another_type_than_its_schema_is_foreign() -> None:
    foreign = codec().encode(PING, VALUE | {"event_type": "desk.opened"})

    with pytest.raises(UnknownRecordError):
        by_the_lock().decode(a_record(foreign))


def test_a_sound_record_of_another_type_is_told_from_a_broken_one() -> None:
    decoder = EventDecoder(Codec(schemas=SCHEMAS, ids={}, writers=[WriterSchema(7, None, ORDER)]), registry=None)

    with pytest.raises(UnknownRecordError):
        decoder.decode(a_record(b"\0\0\0\0\x07\x02"))


@pytest.fixture
async def decoder(connect: Connect, fake: FakeRegistry) -> EventDecoder:
    return EventDecoder(Codec(schemas=SCHEMAS, ids={}), registry=await connect(fake.app()))


def answering(fake: FakeRegistry, *answers: Answer) -> None:
    fake.answers[f"GET /schemas/ids/{ID}"] = list(answers)


async def test_what_the_registry_knows_is_learned_once(decoder: EventDecoder, fake: FakeRegistry) -> None:
    answering(fake, shown(dict(LOCK.latest()[PING].schema)))

    with pytest.raises(DecodeError, match="unknown_schema_id"):
        decoder.decode(a_record())
    await decoder.learn(a_record())
    await decoder.learn(a_record())

    assert (decoder.decode(a_record()).id, fake.asked.total()) == ("evt_1", 1)


@pytest.mark.parametrize(
    ("status", "code"), [(503, "registry_unreachable"), (401, "registry_refused"), (403, "registry_refused")]
)
async def test_a_registry_that_does_not_help_says_nothing_about_the_record(
    decoder: EventDecoder, fake: FakeRegistry, status: int, code: str
) -> None:
    answering(fake, (status, {"error_code": 0, "message": ""}))

    with pytest.raises(TransientError) as caught:
        await decoder.learn(a_record())

    assert (caught.value.code, caught.value.systemic) == (code, True)


async def test_people_see_any_record(decoder: EventDecoder, fake: FakeRegistry) -> None:
    """`inspect` learns by itself, and takes records that are no events."""
    fake.answers["GET /schemas/ids/7"] = [shown(ORDER)]

    decoded = await decoder.inspect(a_record(b"\0\0\0\0\x07\x02", key=None))

    assert (decoded.record, decoded.value) == ("shop.Order", {"id": 1})
