"""Looking up and registering our schemas: what counts is what a schema says, never its text."""

import json
from typing import Any

import pytest

from bridge.kafka.routing import RoutingTable
from bridge.registry.client import (
    RegistryClient,
    RegistryRefusedError,
    RegistryUnavailableError,
    plain_url,
)
from bridge.registry.ids import newest, wanted
from bridge.registry.loader import bundled
from tests.component.registry.registry_fakes import ORDER, Connector, FakeRegistry, shown
from tests.foreign_registry import ForeignRegistry

LOCKED = bundled().entries[0]
OURS = wanted(newest(bundled()), RoutingTable().topics_of)
REQUIRED = {**ORDER, "fields": [*ORDER["fields"], {"name": "note", "type": "string"}]}


def respelled(schema: Any) -> Any:
    """Spell a schema as Karapace may: other order, full names, no documentation."""
    if isinstance(schema, list):
        return [respelled(branch) for branch in schema]
    if isinstance(schema, dict):
        kept = {name: respelled(each) for name, each in reversed(schema.items()) if name not in ("doc", "namespace")}
        return {**kept, "name": f"{schema['namespace']}.{schema['name']}"} if "namespace" in schema else kept
    return schema


async def test_every_locked_schema_is_looked_up(embedded: RegistryClient) -> None:
    """Also under the second topic of a record that has two, and under one to which a site routes it."""
    ids = bundled().ids()
    assert [await embedded.look_up(each.subject, each.schema) for each in OURS] == [ids[each.record] for each in OURS]
    assert await embedded.look_up(f"clinic.rx-{LOCKED.record}", LOCKED.schema) == LOCKED.id
    assert await embedded.look_up("nobody", LOCKED.schema) is None
    assert await embedded.look_up(LOCKED.subject, ORDER) is None


async def test_a_rewritten_schema_is_the_same_schema(connect: Connector, fake: FakeRegistry) -> None:
    path = f"/subjects/{LOCKED.subject}"
    fake.answers[f"POST {path}"] = [shown(respelled(LOCKED.schema), id=4711, subject=LOCKED.subject, version=3)]
    client = await connect(fake.app())

    assert await client.look_up(LOCKED.subject, LOCKED.schema) == 4711


async def test_a_schema_that_only_its_spelling_hides_is_found_among_the_versions(
    connect: Connector, fake: FakeRegistry
) -> None:
    """Some registries look up by text."""
    path = f"/subjects/{LOCKED.subject}"
    fake.answers = {
        f"GET {path}/versions": [(200, [1, 2])],
        f"GET {path}/versions/1": [shown(respelled(LOCKED.schema), id=5)],
        f"GET {path}/versions/2": [shown(ORDER, id=6)],
    }
    client = await connect(fake.app())

    assert await client.look_up(LOCKED.subject, LOCKED.schema) == 5


async def test_another_logical_type_is_another_schema(connect: Connector, fake: FakeRegistry) -> None:
    """Avro's parsing canonical form, and so its fingerprint, would not tell them apart."""
    changed = json.loads(json.dumps(LOCKED.schema).replace("timestamp-micros", "timestamp-millis"))
    fake.answers[f"POST /subjects/{LOCKED.subject}"] = [shown(changed, id=5)]
    client = await connect(fake.app())

    assert await client.look_up(LOCKED.subject, LOCKED.schema) is None


async def test_registering_gives_an_id_that_has_been_read_back(connect: Connector) -> None:
    client = await connect(ForeignRegistry().app())
    first = await client.register("shop/orders", ORDER)

    assert await client.register("shop/orders", ORDER) == first
    assert await client.look_up("shop/orders", ORDER) == first
    assert await client.holds(first, ORDER)
    assert not await client.holds(first, REQUIRED)
    assert not await client.holds(999, ORDER)


async def test_an_incompatible_schema_is_refused_with_the_registrys_reason(connect: Connector) -> None:
    client = await connect(ForeignRegistry().app())
    await client.register("shop/orders", ORDER)
    with pytest.raises(RegistryRefusedError, match="another schema") as refused:
        await client.register("shop/orders", REQUIRED)

    assert (refused.value.status, refused.value.error_code) == (409, 40901)


async def test_an_id_given_for_another_schema_is_not_taken(connect: Connector, fake: FakeRegistry) -> None:
    fake.answers = {"POST /subjects/x/versions": [(200, {"id": 9})], "GET /schemas/ids/9": [shown(REQUIRED)]}
    client = await connect(fake.app())
    with pytest.raises(RegistryUnavailableError, match="another schema"):
        await client.register("x", ORDER)


@pytest.mark.parametrize("content_type", ["application/json", "application/vnd.schemaregistry.v1+json", "text/plain"])
async def test_content_types_decide_nothing(connect: Connector, fake: FakeRegistry, content_type: str) -> None:
    fake.content_type = content_type
    fake.answers["GET /schemas/ids/7"] = [shown(ORDER)]

    assert (await (await connect(fake.app())).fetch(7)).schema == ORDER


async def test_credentials_are_sent_and_never_part_of_the_address(connect: Connector, fake: FakeRegistry) -> None:
    fake.answers["GET /apis/ccompat/v7/schemas/ids/7"] = [shown(ORDER)]
    client = await connect(fake.app(), credentials=("ann", "p:w"), path="apis/ccompat/v7/")
    await client.fetch(7)

    assert fake.authorizations == {"Basic YW5uOnA6dw=="}
    assert client.url.endswith("/apis/ccompat/v7")
    assert plain_url("https://ann:secret@registry.example/base/?x=1") == "https://registry.example/base"
