"""What a body can become: as an event, and as a delivery that is kept as it came."""

import itertools
import json
import string
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.avro.codec import Codec
from bridge.avro.schema_ids import RECORDS
from bridge.event import ParkReason
from bridge.ingress.headers import safe_headers
from bridge.ingress.profiles.profile import Mapped
from bridge.ingress.proof import Scheme
from bridge.ingress.schemes.presets import configure
from bridge.ingress.schemes.standard_webhooks import StandardWebhooks
from bridge.kafka.record import (
    HEADERS_MAX_BYTES,
    MESSAGE_MAX_BYTES,
    MESSAGE_MAX_LEAST_BYTES,
    RAW_HEAD_MAX_BYTES,
    UNRECOGNIZED_SCHEMA,
    event_record,
    fits,
    message_bytes,
    unrecognized_record,
    unrecognized_value,
)
from bridge.registry.loader import bundled
from bridge.settings import HttpSettings
from tests.builders import a_delivery, a_growing_body, an_event
from tests.unit.profile_documents import SAMPLES, map_body

BODY_MAX_BYTES: int = HttpSettings.model_fields["body_max_bytes"].default
# Of what is added to a body, by an unknown member with a name of two bytes, of which there are a few thousand, and the
# longest path of the contract.
GROWTH_MAX = 6
MEMBERS = 2_000
LONG_TEXT = "x" * 255
CODEC = Codec(schemas=bundled().schemas(), ids=bundled().ids())


def event_bytes(body: bytes) -> int:
    outcome = map_body(body)
    assert isinstance(outcome, Mapped), outcome
    (event,) = outcome.events
    schema = RECORDS[event.type]
    value = CODEC.encode(schema, event.value)
    record = event_record(event, a_delivery(body), topic="t", partition=0, value=value, schema=schema, ordinal=b"i:1")
    return message_bytes(record)


def objects(value: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if isinstance(value, dict):
        yield way
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield from objects(inner, (*way, step))


def ways() -> dict[tuple[str | int, ...], str]:
    """Every object in a sample, however it is nested, and one sample that has it."""
    found = {}
    for sample in sorted((SAMPLES / "native").glob("*.json")):
        if isinstance(map_body(sample.read_bytes()), Mapped):
            found.update(dict.fromkeys(objects(json.loads(sample.read_bytes())), sample.name))
    return found


WAYS = ways()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "/".join(map(str, way)))
def test_unknown_members_grow_to_six_times_at_most_wherever_they_stand(way: tuple[str | int, ...]) -> None:
    document = json.loads((SAMPLES / "native" / WAYS[way]).read_bytes())
    plain = json.dumps(document, separators=(",", ":")).encode()
    holder = document
    for step in way:
        holder = holder[step]
    names = ("".join(each) for each in itertools.product(string.printable[:62], repeat=2))
    value = "" if way[-1:] == ("validated",) else 0  # a map of strings
    holder |= {name: value for name in itertools.islice(names, MEMBERS) if name not in holder}
    filled = json.dumps(document, separators=(",", ":")).encode()

    assert event_bytes(filled) - event_bytes(plain) <= GROWTH_MAX * (len(filled) - len(plain))


def test_the_largest_body_becomes_an_event_that_fits() -> None:
    size = event_bytes(a_growing_body(BODY_MAX_BYTES))

    # What brokers take unless told otherwise is too little.
    assert MESSAGE_MAX_LEAST_BYTES < size <= GROWTH_MAX * BODY_MAX_BYTES < MESSAGE_MAX_BYTES


# No scheme keeps more: of all others at most the id and the time.
LONGEST = configure(
    "standard_webhooks+body_hmac+secret_header",
    {"header": "h" * 100, "id_header": "i" * 100, "timestamp_header": "t" * 100, "template": "{id}.{timestamp}.{body}"},
    tolerance_s=300,
)


@pytest.mark.parametrize("scheme", [StandardWebhooks(), LONGEST], ids=lambda scheme: scheme.name)
def test_the_largest_head_of_a_parked_delivery_is_within_its_bound(scheme: Scheme) -> None:
    names = (b"content-type", b"content-length", b"user-agent", *scheme.safe)
    heads = dict.fromkeys(names, b"\xff" * 100_000)
    delivery = a_delivery(
        b"",
        id="i" * 200 + "~01234567",
        headers=safe_headers({**heads, b"authorization": b"x", b"h" * 100: b"x"}, scheme),
    )
    assert not {"authorization", "h" * 100} & set(delivery.headers)
    park = ParkReason("environment_mismatch", LONG_TEXT, LONG_TEXT, "k" * 128)
    value = CODEC.encode(UNRECOGNIZED_SCHEMA, unrecognized_value(delivery, park))

    assert message_bytes(unrecognized_record(delivery, park, partition=0, value=value)) < RAW_HEAD_MAX_BYTES


def test_key_and_headers_of_an_event_are_within_their_bound() -> None:
    delivery = a_delivery(b"")._replace(source="s" * 64, key_slot="k" * 255)
    event = an_event(id="i" * 200 + "~01234567/99999", key="k" * 128)._replace(source="s" * 64, mapping="0" * 12)
    schema, ordinal = max(RECORDS.values(), key=len), b"i" * 128 + b":" + b"9" * 20
    record = event_record(event, delivery, topic="t", partition=0, value=b"", schema=schema, ordinal=ordinal)

    assert message_bytes(record) < HEADERS_MAX_BYTES / 4


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_a_record_fits_up_to_the_last_byte(off: int) -> None:
    empty = event_record(an_event(), a_delivery(b""), topic="t", partition=0, value=b"", schema="x", ordinal=b"i:1")
    record = empty._replace(value=b"v" * (MESSAGE_MAX_LEAST_BYTES + off - message_bytes(empty)))

    assert fits(record, MESSAGE_MAX_LEAST_BYTES) is (off <= 0)
    assert fits(empty, MESSAGE_MAX_LEAST_BYTES)
