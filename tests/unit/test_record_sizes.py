"""The largest records of a body: as an event, and as a parked delivery."""

import json

import pytest

from bridge.avro.schema_ids import RECORDS
from bridge.event import ParkReason
from bridge.ingress.parking import safe_headers
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
from bridge.mapping.profile import Mapped
from bridge.proof.scheme import Scheme
from bridge.proof.schemes.presets import configure
from bridge.proof.schemes.standard_webhooks import StandardWebhooks
from bridge.settings import HttpSettings
from tests.builders import a_delivery, a_growing_body, an_event, codec
from tests.unit.profile_documents import SAMPLES, leaves, map_body

BODY_MAX_BYTES: int = HttpSettings.model_fields["body_max_bytes"].default
# Of an unknown member with a name of two bytes, of which there are a few thousand, at the longest path of the contract.
GROWTH_MAX = 6
LONG_TEXT = "x" * 255


def test_the_largest_body_becomes_an_event_that_fits() -> None:
    """Unknown members grow by the path of their object, and no object of the contract has a longer one."""
    paths = {
        pointer.rpartition("/")[0]
        for sample in SAMPLES.glob("native/*.json")
        for pointer, _ in leaves(json.loads(sample.read_bytes()))
    }
    assert max(map(len, paths)) == len("/data/medications_requested/0")
    body = a_growing_body(BODY_MAX_BYTES)
    outcome = map_body(body)
    assert isinstance(outcome, Mapped)
    (event,) = outcome.events
    schema = RECORDS[event.type]
    value = codec().encode(schema, event.value)
    record = event_record(event, a_delivery(body), topic="t", partition=0, value=value, schema=schema, ordinal=b"i:1")

    # What brokers take unless told otherwise is too little.
    assert MESSAGE_MAX_LEAST_BYTES < message_bytes(record) <= GROWTH_MAX * BODY_MAX_BYTES < MESSAGE_MAX_BYTES


# No scheme keeps more: of all others at most the id and the time.
LONGEST = configure(
    "standard_webhooks+body_hmac+secret_header",
    {"header": "h" * 100, "id_header": "i" * 100, "timestamp_header": "t" * 100, "template": "{id}.{timestamp}.{body}"},
    tolerance_s=300,
)


@pytest.mark.parametrize("scheme", [StandardWebhooks(), LONGEST], ids=lambda scheme: scheme.name)
def test_the_largest_head_of_a_parked_delivery_is_within_its_bound(scheme: Scheme) -> None:
    heads = dict.fromkeys((b"content-type", b"content-length", b"user-agent", *scheme.safe), b"\xff" * 100_000)
    delivery = a_delivery(
        b"",
        id="i" * 200 + "~01234567",
        headers=safe_headers({**heads, b"authorization": b"x", b"h" * 100: b"x"}, scheme),
    )
    assert not {"authorization", "h" * 100} & set(delivery.headers)
    park = ParkReason("environment_mismatch", LONG_TEXT, LONG_TEXT, "k" * 128)
    value = codec().encode(UNRECOGNIZED_SCHEMA, unrecognized_value(delivery, park))

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
