"""The client with the project's and other registries: schemas are compared by content, not by their text."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

from bridge.errors import ConfigError
from bridge.kafka.routing import RoutingTable
from bridge.registry.address import RegistryAddress, plain_url
from bridge.registry.client import (
    RegistryClient,
    RegistryRefusedError,
    RegistryUnavailableError,
    SchemaUnknownError,
    open_client,
)
from bridge.registry.ids import newest, wanted
from bridge.registry.loader import bundled
from bridge.registry.schemas import meaning
from bridge.registry.server import registry_app
from tests.component.registry.registry_fakes import ORDER, Answer, Connect, FakeRegistry, shown

LOCKED = bundled().entries[0]
OURS = wanted(newest(bundled()), RoutingTable().topics_of_type)
REQUIRED = {**ORDER, "fields": [*ORDER["fields"], {"name": "note", "type": "string"}]}


async def test_an_id_that_is_not_known_yet_is_asked_for_again(client: RegistryClient, fake: FakeRegistry) -> None:
    """Replicas of a registry lag behind its writers."""
    fake.answers["GET /schemas/ids/7"] = [(404, {"error_code": 40403}), shown(ORDER)]
    with pytest.raises(SchemaUnknownError):
        await client.fetch(7)

    assert (await client.fetch(7)).schema == ORDER


async def test_a_guid_for_which_no_id_is_named_is_unknown(connect: Connect, fake: FakeRegistry) -> None:
    fake.answers[f"GET /schemas/guids/{UUID(int=7)}"] = [shown(ORDER)]
    client = await connect(fake.app())
    with pytest.raises(SchemaUnknownError):
        await client.fetch(UUID(int=7))


def respelled(schema: Any) -> Any:
    """Spell a schema as Karapace may: other order, full names, no documentation."""
    if isinstance(schema, list):
        return [respelled(branch) for branch in schema]
    if isinstance(schema, dict):
        kept = {name: respelled(each) for name, each in reversed(schema.items()) if name not in ("doc", "namespace")}
        return {**kept, "name": f"{schema['namespace']}.{schema['name']}"} if "namespace" in schema else kept
    return schema


async def test_every_locked_schema_is_looked_up(connect: Connect) -> None:
    """Also under the second topic of a record that has two, and under one to which a site routes it."""
    embedded, ids = await connect(registry_app(bundled())), bundled().ids()
    assert [await embedded.look_up(each.subject, each.schema) for each in OURS] == [ids[each.record] for each in OURS]
    assert await embedded.look_up(f"clinic.rx-{LOCKED.record}", LOCKED.schema) == LOCKED.id
    assert await embedded.look_up("nobody", LOCKED.schema) is None
    assert await embedded.look_up(LOCKED.subject, ORDER) is None


async def test_a_rewritten_schema_is_the_same_schema(client: RegistryClient, fake: FakeRegistry) -> None:
    path = f"/subjects/{LOCKED.subject}"
    fake.answers[f"POST {path}"] = [shown(respelled(LOCKED.schema), id=4711, subject=LOCKED.subject, version=3)]

    assert await client.look_up(LOCKED.subject, LOCKED.schema) == 4711


async def test_a_schema_that_only_its_spelling_hides_is_found_among_the_versions(
    client: RegistryClient, fake: FakeRegistry
) -> None:
    """Some registries look up by text."""
    path = f"/subjects/{LOCKED.subject}"
    fake.answers = {
        f"GET {path}/versions": [(200, [1, 2])],
        f"GET {path}/versions/1": [shown(respelled(LOCKED.schema), id=5)],
        f"GET {path}/versions/2": [shown(ORDER, id=6)],
    }

    assert await client.look_up(LOCKED.subject, LOCKED.schema) == 5


async def test_an_id_given_for_another_schema_is_not_taken(client: RegistryClient, fake: FakeRegistry) -> None:
    fake.answers = {"POST /subjects/x/versions": [(200, {"id": 9})], "GET /schemas/ids/9": [shown(REQUIRED)]}
    with pytest.raises(RegistryUnavailableError, match="another schema"):
        await client.register("x", ORDER)


async def test_credentials_are_read_from_files_and_never_part_of_the_address(
    fake: FakeRegistry, tmp_path: Path
) -> None:
    fake.answers["GET /apis/ccompat/v7/schemas/ids/7"] = [shown(ORDER)]
    user, password = tmp_path / "user", tmp_path / "password"
    user.write_text("ann\n")
    password.write_text("p:w\n")
    async with TestServer(fake.app()) as server:
        url = str(server.make_url("/apis/ccompat/v7/"))
        address = RegistryAddress(url=url, username_file=user, password_file=password)
        async with open_client(address) as client:
            await client.fetch(7)

    assert fake.authorizations == {"Basic YW5uOnA6dw=="}
    assert client.url.endswith("/apis/ccompat/v7")
    assert plain_url("https://ann:secret@registry.example/base/?x=1") == "https://registry.example/base"
    password.unlink()
    with pytest.raises(ConfigError, match=f"^{password}: cannot be read"):
        address.credentials()


@pytest.mark.parametrize(
    "trouble",
    [
        (500, {"error_code": 50003, "message": "Error while forwarding the request to the master"}),
        (503, "<html>"),
        (429, {"error_code": 429}),
    ],
)
async def test_passing_trouble_is_outlived(
    client: RegistryClient, fake: FakeRegistry, pauses: list[float], trouble: Answer
) -> None:
    """Karapace answers 500/50003 until it has elected a primary."""
    fake.answers["GET /schemas/ids/7"] = [trouble, trouble, shown(ORDER)]

    assert (await client.fetch(7)).schema == ORDER
    assert pauses == [pytest.approx(0.075), pytest.approx(0.15)]


async def test_nobody_listening_is_unavailable() -> None:
    async with aiohttp.ClientSession() as session:
        client = RegistryClient(session, "http://ann:secret@127.0.0.1:9", sleep=lambda _: asyncio.sleep(0))
        with pytest.raises(RegistryUnavailableError, match=r"^registry http://127\.0\.0\.1:9: no response in 4 tries;"):
            await client.fetch(7)


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (RegistryUnavailableError, (200, "<html>Log in</html>")),
        (RegistryUnavailableError, (200, [])),
        (RegistryUnavailableError, (200, {"id": 7})),
        (RegistryUnavailableError, (200, {"schema": "{"})),
        (RegistryUnavailableError, (200, {"schema": 7})),
        (RegistryUnavailableError, shown(ORDER, guid="nonsense")),
        # No self-contained Avro record, and never will be.
        (SchemaUnknownError, shown("string")),
        (SchemaUnknownError, (200, {"schema": "message X {}", "schemaType": "PROTOBUF"})),
        (SchemaUnknownError, shown(ORDER, schemaType="JSON")),
        (SchemaUnknownError, shown(ORDER, references=[{"name": "x", "subject": "x", "version": 1}])),
    ],
)
async def test_an_answer_that_shows_no_schema_of_a_record_is_told_from_none(
    client: RegistryClient, fake: FakeRegistry, error: type[Exception], answer: Answer
) -> None:
    fake.answers["GET /schemas/ids/7"] = [answer]
    with pytest.raises(error):
        await client.fetch(7)


@pytest.mark.parametrize("status", [401, 403])
async def test_no_access_is_refused_with_the_status(client: RegistryClient, fake: FakeRegistry, status: int) -> None:
    fake.answers["GET /schemas/ids/7"] = [(status, "Unauthorized")]
    with pytest.raises(RegistryRefusedError) as refused:
        await client.fetch(7)

    assert (refused.value.status, refused.value.retriable) == (status, False)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("timestamp-micros", "timestamp-millis"),
        ('"precision": ', '"precision": 1'),
        ('"default": null', '"default_": null'),
        ('"UNKNOWN"', '"UNSEEN"'),
    ],
)
def test_what_changes_the_reading_changes_the_meaning(one: str, other: str) -> None:
    texts = [json.dumps(schema) for schema in bundled().schemas().values() if one in json.dumps(schema)]

    assert texts
    assert all(meaning(json.loads(text)) != meaning(json.loads(text.replace(one, other))) for text in texts)


def test_a_type_means_the_same_in_either_spelling() -> None:
    field = {"name": "a", "type": ["null", "string"]}
    short = {"type": "record", "name": "x.R", "fields": [field]}
    long = {"type": "record", "name": "R", "namespace": "x", "fields": [field | {"type": ["null", {"type": "string"}]}]}

    assert meaning(short) == meaning(long)
