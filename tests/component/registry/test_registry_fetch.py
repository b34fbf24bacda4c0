"""Schemas met while reading: memory, disk, then the registry, once for all readers."""

import asyncio
from pathlib import Path
from uuid import UUID

import pytest

from bridge.registry.client import (
    RegistryClient,
    SchemaUnknownError,
)
from bridge.registry.loader import bundled
from bridge.registry.server import registry_app
from tests.component.registry.registry_fakes import ORDER, Connector, FakeRegistry, shown

LOCKED = bundled().entries[0]


async def test_a_schema_is_fetched_by_id_and_by_guid(embedded: RegistryClient) -> None:
    by_id = await embedded.fetch(LOCKED.id)
    by_guid = await embedded.fetch(UUID(LOCKED.guid))

    assert by_id == by_guid
    assert (by_id.id, by_id.guid, by_id.schema) == (LOCKED.id, UUID(LOCKED.guid), LOCKED.schema)


async def test_many_readers_ask_once(connect: Connector, fake: FakeRegistry) -> None:
    fake.answers["GET /schemas/ids/7"] = [shown(ORDER)]
    client = await connect(fake.app())
    fetched = await asyncio.gather(*(client.fetch(7) for _ in range(50)))
    await client.fetch(7)

    assert [each.schema for each in fetched] == [ORDER] * 50
    assert fake.asked == {"GET /schemas/ids/7": 1}


async def test_a_reader_that_gives_up_does_not_take_the_answer_from_the_others(
    connect: Connector, fake: FakeRegistry
) -> None:
    fake.answers["GET /schemas/ids/7"] = [shown(ORDER)]
    fake.hangs = True
    client = await connect(fake.app())
    first, second = asyncio.create_task(client.fetch(7)), asyncio.create_task(client.fetch(7))
    await fake.arrived.wait()
    first.cancel()
    fake.release.set()

    assert (await second).schema == ORDER
    assert first.cancelled()


async def test_a_fetched_schema_outlives_process_and_registry(
    connect: Connector, fake: FakeRegistry, tmp_path: Path
) -> None:
    guid = "215a2544-f05e-5cd5-869c-8466459ff1d8"
    fake.answers["GET /schemas/ids/7"] = [shown(ORDER, guid=guid), (500, {})]
    client = await connect(fake.app(), cache_dir=tmp_path)
    fetched = await client.fetch(7)
    restarted = connect.client(client.url, cache_dir=tmp_path)

    assert await restarted.fetch(7) == fetched
    assert fetched.guid == UUID(guid)
    assert fake.asked == {"GET /schemas/ids/7": 1}


async def test_the_cache_of_one_registry_is_none_for_another(
    connect: Connector, fake: FakeRegistry, tmp_path: Path
) -> None:
    """Ids mean something else elsewhere."""
    fake.answers["GET /schemas/ids/1"] = [shown(ORDER)]
    theirs = await connect(fake.app(), cache_dir=tmp_path)
    ours = await connect(registry_app(bundled()), cache_dir=tmp_path)

    assert (await theirs.fetch(1)).schema == ORDER
    assert (await ours.fetch(1)).schema == LOCKED.schema


def kept_file(cache_dir: Path) -> Path:
    (kept,) = cache_dir.glob("*/7.json")
    return kept


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b'{"sha256": "0", "document": {"id": 7}}'])
async def test_a_damaged_cache_file_is_fetched_anew(
    connect: Connector, fake: FakeRegistry, tmp_path: Path, damage: bytes
) -> None:
    fake.answers["GET /schemas/ids/7"] = [shown(ORDER)]
    client = await connect(fake.app(), cache_dir=tmp_path)
    await client.fetch(7)
    kept = kept_file(tmp_path)
    whole = kept.read_bytes()
    kept.write_bytes(damage)
    fetched = await connect.client(client.url, cache_dir=tmp_path).fetch(7)

    assert fetched.schema == ORDER
    assert fake.asked == {"GET /schemas/ids/7": 2}
    assert kept.read_bytes() == whole


async def test_an_unwritable_cache_costs_nothing_but_the_cache(
    connect: Connector, fake: FakeRegistry, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    fake.answers["GET /schemas/ids/7"] = [shown(ORDER)]
    client = await connect(fake.app(), cache_dir=in_the_way)

    assert (await client.fetch(7)).schema == ORDER


async def test_an_id_that_is_not_known_yet_is_asked_for_again(connect: Connector, fake: FakeRegistry) -> None:
    """Replicas of a registry lag behind its writers."""
    fake.answers["GET /schemas/ids/7"] = [(404, {"error_code": 40403}), shown(ORDER)]
    client = await connect(fake.app())
    with pytest.raises(SchemaUnknownError):
        await client.fetch(7)

    assert (await client.fetch(7)).schema == ORDER
