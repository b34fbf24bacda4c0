"""confluent-kafka: the client and the Avro (de)serializer of most Python services, over the registry as a process."""

import json
import signal
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from bridge.avro.codec import Codec
from bridge.registry.loader import bundled
from bridge.registry.schemas import WriterSchema
from tests.integration.registry.registry_parts import Sample, Served

PRESCRIPTIONS = SerializationContext("drx.prescriptions.v1", MessageField.VALUE, [])


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    return serve()


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    with SchemaRegistryClient({"url": served.url}) as opened:
        yield opened


def test_the_deserializer_reads_every_record_as_it_was_mapped(client: Any, samples: list[Sample]) -> None:
    deserialize = AvroDeserializer(client)

    for sample in samples:
        assert deserialize(sample.payload, PRESCRIPTIONS) == sample.value, sample.name


def test_a_reader_of_its_own_gets_only_what_it_asks_for(client: Any, samples: list[Sample]) -> None:
    wanted = {
        "type": "record",
        "name": "PrescriptionSent",
        "namespace": "drx.v1",
        "fields": [
            {"name": "prescription_id", "type": ["null", "string"]},
            {"name": "region", "type": "string", "default": "none"},
        ],
    }
    deserialize = AvroDeserializer(client, json.dumps(wanted))
    sample = next(each for each in samples if each.record == "drx.v1.PrescriptionSent")

    assert deserialize(sample.payload, PRESCRIPTIONS) == {
        "prescription_id": sample.value["prescription_id"],
        "region": "none",
    }


def test_the_latest_version_serves_who_carries_no_schema(client: Any, samples: list[Sample]) -> None:
    sample = samples[0]
    entry = bundled().latest()[sample.record]
    latest = client.get_latest_version(entry.subject)
    serialize = AvroSerializer(
        client,
        latest.schema.schema_str,
        conf={
            "auto.register.schemas": False,
            "use.latest.version": True,
            "subject.name.strategy": lambda _ctx, _name: entry.subject,
        },
    )

    assert serialize(sample.value, PRESCRIPTIONS) == sample.payload


def test_a_record_in_the_header_form_is_read_by_guid(client: Any, samples: list[Sample]) -> None:
    sample = samples[0]
    entry = bundled().latest()[sample.record]
    header: list[tuple[str, Any]] = [("__value_schema_id", b"\x01" + UUID(entry.guid).bytes)]
    ctx = SerializationContext("drx.prescriptions.v1", MessageField.VALUE, header)

    assert AvroDeserializer(client)(sample.payload[5:], ctx) == sample.value
    codec = Codec(schemas=bundled().schemas(), ids={}, writers=[WriterSchema(entry.id, UUID(entry.guid), entry.schema)])
    assert codec.decode(sample.payload[5:], header).value == sample.value


def test_the_service_stops_on_sigterm_with_exit_code_0(served: Served) -> None:
    served.process.send_signal(signal.SIGTERM)

    assert served.process.wait(timeout=10) == 0
