import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from bridge.avro.codec import Codec
from bridge.registry.loader import bundled
from bridge.registry.schemas import WriterSchema
from tests.integration.registry.samples import samples

PRESCRIPTIONS = SerializationContext("drx.prescriptions.v1", MessageField.VALUE, [])


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    command = [sys.executable, "-m", "bridge", "schemas", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own command
        assert process.stderr is not None
        with SchemaRegistryClient({"url": process.stderr.readline().removeprefix("registry at ").strip()}) as opened:
            yield opened
        process.terminate()
        assert process.wait(timeout=10) == 0


def test_the_deserializer_reads_every_record_as_it_was_mapped(client: Any) -> None:
    deserialize = AvroDeserializer(client)

    for sample in samples():
        assert deserialize(sample.payload, PRESCRIPTIONS) == sample.value, sample.name


def test_the_latest_version_serves_who_carries_no_schema(client: Any) -> None:
    sample = samples()[0]
    entry = bundled().latest()[sample.record]
    serialize = AvroSerializer(
        client,
        client.get_latest_version(entry.subject).schema.schema_str,
        conf={
            "auto.register.schemas": False,
            "use.latest.version": True,
            "subject.name.strategy": lambda _ctx, _name: entry.subject,
        },
    )

    assert serialize(sample.value, PRESCRIPTIONS) == sample.payload


def test_a_record_in_the_header_form_is_read_by_guid(client: Any) -> None:
    sample = samples()[0]
    entry = bundled().latest()[sample.record]
    header: list[tuple[str, Any]] = [("__value_schema_id", b"\x01" + UUID(entry.guid).bytes)]
    ctx = SerializationContext("drx.prescriptions.v1", MessageField.VALUE, header)

    assert AvroDeserializer(client)(sample.payload[5:], ctx) == sample.value
    codec = Codec(schemas=bundled().schemas(), ids={}, writers=[WriterSchema(entry.id, UUID(entry.guid), entry.schema)])
    assert codec.decode(sample.payload[5:], header).value == sample.value
