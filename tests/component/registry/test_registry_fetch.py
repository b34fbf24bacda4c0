"""Schemas met while reading: from memory, else from the registry."""

from uuid import UUID

import pytest

from bridge.registry.client import (
    RegistryClient,
    SchemaUnknownError,
)
from bridge.registry.loader import bundled
from tests.component.registry.registry_fakes import ORDER, Connector, FakeRegistry, shown

LOCKED = bundled().entries[0]


async def test_a_schema_is_fetched_by_id_and_by_guid(embedded: RegistryClient) -> None:
    by_id = await embedded.fetch(LOCKED.id)
    by_guid = await embedded.fetch(UUID(LOCKED.guid))

    assert by_id == by_guid
    assert (by_id.id, by_id.guid, by_id.schema) == (LOCKED.id, UUID(LOCKED.guid), LOCKED.schema)


async def test_a_fetched_schema_is_not_asked_for_again(connect: Connector, fake: FakeRegistry) -> None:
    fake.answers["GET /schemas/ids/7"] = [shown(ORDER)]
    client = await connect(fake.app())
    for _ in range(2):
        assert (await client.fetch(7)).schema == ORDER

    assert fake.asked == {"GET /schemas/ids/7": 1}


async def test_an_id_that_is_not_known_yet_is_asked_for_again(connect: Connector, fake: FakeRegistry) -> None:
    """Replicas of a registry lag behind its writers."""
    fake.answers["GET /schemas/ids/7"] = [(404, {"error_code": 40403}), shown(ORDER)]
    client = await connect(fake.app())
    with pytest.raises(SchemaUnknownError):
        await client.fetch(7)

    assert (await client.fetch(7)).schema == ORDER
