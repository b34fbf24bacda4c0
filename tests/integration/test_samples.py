import asyncio
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any

import aiohttp
import pytest
from confluent_kafka import Producer
from confluent_kafka.schema_registry import dual_schema_id_deserializer
from confluent_kafka.schema_registry.serde import SchemaId
from confluent_kafka.serialization import MessageField, SerializationContext

from bridge.avro.codec import Decoded
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.registry.loader import bundled
from tests.builders import SAMPLES, codec
from tests.cluster import Cluster, Topics
from tests.integration.ingress_process import IngressProcess, Reply, deliver, header
from tests.integration.service_process import HANG_S

pytestmark = pytest.mark.kafka


def rows() -> Iterator[dict[str, Any]]:
    for row in json.loads((SAMPLES / "manifest.json").read_bytes()):
        if row["profile"] == "drx_standard":
            yield row


ROWS = {row["file"]: row for row in rows()}
PUBLISHED = [file for file, row in ROWS.items() if row["topic"] is not None]
ACCEPTED = [file for file, row in ROWS.items() if row["outcome"] == "accepted"]
PARKED = [file for file, row in ROWS.items() if row["outcome"] == "parked"]


@dataclass(frozen=True, slots=True)
class Sent:
    id: str
    body: bytes
    reply: Reply
    records: Sequence[ConsumedRecord] = ()

    @property
    def record(self) -> ConsumedRecord:
        (record,) = self.records
        return record

    @property
    def decoded(self) -> Decoded:
        assert self.record.value is not None
        return codec().decode(self.record.value, self.record.headers)


@dataclass(frozen=True, slots=True)
class Played:
    """Everything sent by one sender, one after the other, to one process, and everything it wrote."""

    samples: Mapping[str, Sent]
    records: Sequence[ConsumedRecord]
    ingress: IngressProcess


@pytest.fixture(scope="module")
def played(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Played]:
    Topics(cluster.bootstrap_servers).standard()
    with IngressProcess(tmp_path_factory.mktemp("ingress"), cluster.bootstrap_servers) as ingress:
        ingress.ready()
        yield asyncio.run(_play(ingress))


async def _play(ingress: IngressProcess) -> Played:
    async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
        samples = {file: await _send_sample(session, ingress, file) for file in ROWS}
        records = await ingress.records()
    found: dict[tuple[str, str], list[ConsumedRecord]] = {}
    for record in records:
        found.setdefault((header(record, "ce_id"), header(record, "drx_body_sha256")), []).append(record)
    for file, sent in samples.items():
        samples[file] = Sent(sent.id, sent.body, sent.reply, found.get((sent.id, sha256(sent.body).hexdigest()), ()))
    return Played(samples, records, ingress)


async def _send_sample(session: aiohttp.ClientSession, ingress: IngressProcess, file: str) -> Sent:
    body = (SAMPLES / file).read_bytes()
    if "form_encoded" in file:
        return await _send(session, ingress, f"dlv_{file}", body, content_type="application/x-www-form-urlencoded")
    return await _send(session, ingress, body_id(body) or f"dlv_{file}", body)


async def _send(
    session: aiohttp.ClientSession, ingress: IngressProcess, webhook_id: str, body: bytes, **headers: str
) -> Sent:
    return Sent(webhook_id, body, await deliver(session, ingress, body, webhook_id=webhook_id, **headers))


def body_id(body: bytes) -> str | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    found = document.get("id") if isinstance(document, dict) else None
    return found if isinstance(found, str) and found else None


@pytest.mark.parametrize("file", ROWS)
def test_a_sample_is_answered_as_the_contract_says(played: Played, file: str) -> None:
    row, sent = ROWS[file], played.samples[file]

    answer = sent.reply.json

    assert (sent.reply.status, answer["outcome"]) == (row["http"], row["outcome"])
    identified = {"outcome", "id"}
    expected = {
        "accepted": identified,
        "duplicate": identified,
        "parked": {"outcome", "id", "reason"},
        "refused": {"outcome", "code"},
    }
    assert set(answer) - {"field"} == expected[row["outcome"]]
    assert answer.get("reason") == row.get("reason")
    assert answer.get("id", sent.id) == sent.id


@pytest.mark.parametrize("file", ROWS)
def test_a_sample_leaves_one_record_where_the_contract_says_or_none(played: Played, file: str) -> None:
    row, sent = ROWS[file], played.samples[file]
    key = sent.id if row["kafka_key"] == "<webhook-id>" else row["kafka_key"]

    places = [(record.topic, record.key) for record in sent.records]

    # A repeat has the id and the body of the delivery that it repeats, and so its one record.
    topic = "drx.prescriptions.v1" if row["outcome"] == "duplicate" else row["topic"]
    assert places == ([] if topic is None else [(topic, key.encode())])


def named(sent: Sent) -> dict[str, str]:
    return {name: content.decode() for name, content in sent.record.headers}


def of_any(sent: Sent, played: Played) -> dict[str, str]:
    assert sent.record.key is not None
    return {
        "ce_specversion": "1.0",
        "ce_id": sent.id,
        "ce_source": played.ingress.source,
        "ce_subject": sent.record.key.decode(),
        "content-type": "application/avro",
        "drx_received_at": rfc3339(sent.decoded.value["received_at"]),
        "drx_key_slot": "current",
        "drx_body_sha256": sha256(sent.body).hexdigest(),
    }


@pytest.mark.parametrize("file", ACCEPTED)
def test_the_headers_of_an_event_are_those_of_the_contract(played: Played, file: str) -> None:
    sent = played.samples[file]

    headers = named(sent)

    trace, ordinal = headers.pop("traceparent"), headers.pop("drx_ordinal")
    assert [len(part) for part in trace.split("-")] == [2, 32, 16, 2]
    assert ordinal.startswith(f"{played.ingress.instance}:")
    assert headers == {
        **of_any(sent, played),
        "ce_type": ROWS[file].get("event_type", json.loads(sent.body)["type"]),
        "ce_time": rfc3339(sent.decoded.value["occurred_at"]),
        "drx_schema": sent.decoded.record,
    }


@pytest.mark.parametrize("file", PARKED)
def test_a_parked_delivery_is_kept_byte_for_byte_with_its_reason(played: Played, file: str) -> None:
    sent = played.samples[file]
    value = sent.decoded.value

    assert named(sent) == {
        **of_any(sent, played),
        "ce_type": "drx.unrecognized",
        "ce_time": rfc3339(value["received_at"]),
        "drx_reason": ROWS[file]["reason"],
        "drx_schema": "drx.v1.UnrecognizedDelivery",
    }
    assert (value["body"], value["webhook_id"], value["reason"]) == (sent.body, sent.id, ROWS[file]["reason"])
    assert sent.reply.json.get("field", "") == value["field"]
    assert "webhook-signature" not in value["headers"]


@pytest.mark.parametrize("file", PUBLISHED)
def test_confluents_reader_finds_the_schema_that_ours_finds(played: Played, file: str) -> None:
    record, decoded = played.samples[file].record, played.samples[file].decoded
    assert record.value is not None
    context = SerializationContext(record.topic, MessageField.VALUE, list(record.headers))
    found = SchemaId("AVRO")

    body = dual_schema_id_deserializer(record.value, context, found)

    assert found.id == decoded.schema_id == bundled().ids()[decoded.record]
    assert body.read() == record.value[5:]


def test_every_key_lies_where_confluents_murmur2_puts_it(played: Played, topics: Topics) -> None:
    """The `murmur2_random` of librdkafka is the partitioner of the Java client."""
    topic = topics.fresh()
    placed: dict[bytes | None, int | None] = {}
    producer = Producer({"bootstrap.servers": topics.bootstrap_servers, "partitioner": "murmur2_random"})
    for key in {record.key for record in played.records}:
        producer.produce(
            topic, key=key, on_delivery=lambda _, record: placed.update({record.key(): record.partition()})
        )
    assert producer.flush(HANG_S) == 0

    assert {record.key: record.partition for record in played.records} == placed


def test_ordinals_rise_in_the_order_of_acceptance(played: Played) -> None:
    ordinals = [int(header(played.samples[file].record, "drx_ordinal").rpartition(":")[2]) for file in ACCEPTED]

    assert all(earlier < later for earlier, later in itertools.pairwise(ordinals))


def rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
