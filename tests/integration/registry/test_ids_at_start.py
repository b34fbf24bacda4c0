"""The whole way of a foreign registry: pushed by the command, ids learned by the bridge, records read by a client."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from prometheus_client import CollectorRegistry, Counter

from bridge.avro.schema_ids import SchemaIds
from bridge.errors import NotDurableError
from bridge.kafka.routing import RoutingTable
from bridge.registry.address import RegistryAddress
from bridge.registry.client import open_client
from bridge.registry.ids import wanted
from bridge.registry.loader import bundled
from bridge.settings import Registry
from tests.foreign_registry import ForeignRegistry
from tests.integration.registry.registry_parts import Sample

LEARN_TIMEOUT_S = 20


@pytest.fixture
async def foreign() -> AsyncIterator[TestServer]:
    """A registry that has never heard of us, and whose ids are its own."""
    server = TestServer(ForeignRegistry().app())
    async with server:
        yield server


async def push(url: str, routing: RoutingTable) -> None:
    async with open_client(RegistryAddress(url=url)) as client:
        for each in wanted(bundled().entries, routing.topics_of):
            await client.register(each.subject, each.schema)


def some_ids(registry: Registry, routing: RoutingTable) -> SchemaIds:
    requests = Counter("requests", "Calls.", ["result"], registry=CollectorRegistry())
    return SchemaIds(registry, ids_file=registry.ids_file, routing=routing, requests=requests)


async def learned(ids: SchemaIds) -> SchemaIds:
    stop = asyncio.Event()
    running = asyncio.create_task(ids.run(stop))
    async with asyncio.timeout(LEARN_TIMEOUT_S):
        while not ids.known:  # noqa: ASYNC110 - the worker has no event for it
            await asyncio.sleep(0.01)
    stop.set()
    await running
    return ids


async def test_records_carry_the_ids_of_that_registry_also_without_it(
    foreign: TestServer, samples: list[Sample], tmp_path: Path
) -> None:
    url, routing = str(foreign.make_url("")).rstrip("/"), RoutingTable({"prescription.*": "clinic.rx"})
    await push(url, routing)
    settings = Registry(url=url, ids_file=tmp_path / "ids.json")
    first = await learned(some_ids(settings, routing))
    written = [first.encode(sample.record, sample.value) for sample in samples]
    read = await asyncio.to_thread(read_all, url, written)
    await foreign.close()
    second = await learned(some_ids(settings, routing))

    assert read == [sample.value for sample in samples]
    assert all(payload[1:5] != sample.payload[1:5] for payload, sample in zip(written, samples, strict=True))
    assert [second.encode(sample.record, sample.value) for sample in samples] == written


async def test_before_the_push_nothing_is_written_and_after_it_everything(
    foreign: TestServer, samples: list[Sample]
) -> None:
    url, routing = str(foreign.make_url("")).rstrip("/"), RoutingTable()
    ids = some_ids(Registry(url=url), routing)
    with pytest.raises(NotDurableError):
        ids.encode(samples[0].record, samples[0].value)
    learning = asyncio.create_task(learned(ids))
    await push(url, routing)

    assert (await learning).encode(samples[0].record, samples[0].value)[5:] == samples[0].payload[5:]


def read_all(url: str, payloads: list[bytes]) -> list[object]:
    with SchemaRegistryClient({"url": url}) as client:
        deserialize = AvroDeserializer(client)
        ctx = SerializationContext("clinic.rx", MessageField.VALUE, [])
        return [deserialize(payload, ctx) for payload in payloads]
