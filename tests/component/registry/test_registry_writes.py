"""What may be registered with the embedded registry, and what is refused."""

import io
import json
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from bridge.registry.loader import bundled
from bridge.registry.server import EmbeddedRegistry, registry_app
from tests.component.registry.registry_calls import (
    COMPATIBILITY,
    LOCKED,
    ORDER,
    OURS,
    THEIRS,
    WITH_NOTE,
    Client,
    an_order,
    get,
    post,
    refused,
)


async def test_a_schema_keeps_its_id_whatever_its_spelling_and_subject(registry: Client) -> None:
    first = await post(registry, f"{THEIRS}/versions?normalize=False", ORDER)
    respelled = json.dumps(
        {
            "fields": [{"type": {"type": "long"}, "name": "id"}],
            "name": "Order",
            "type": "record",
        },
        indent=4,
    )
    again = await post(registry, f"{THEIRS}/versions?normalize=True", respelled)
    elsewhere = await post(registry, "/subjects/other-value/versions", respelled)
    looked_up = await post(registry, f"{THEIRS}?normalize=False&deleted=False", respelled)

    assert first == again == looked_up
    assert first.keys() == {"id", "version", "guid", "schema", "subject"}
    assert (elsewhere["id"], elsewhere["guid"], elsewhere["version"]) == (first["id"], first["guid"], 1)
    assert await get(registry, f"/schemas/ids/{first['id']}/subjects") == ["orders-value", "other-value"]


async def test_a_foreign_id_is_above_the_lock_and_the_same_in_every_registry(registry: Client) -> None:
    here = await post(registry, f"{THEIRS}/versions", ORDER)
    async with TestClient(TestServer(registry_app(EmbeddedRegistry(bundled())))) as other:
        await post(other, "/subjects/first-value/versions", WITH_NOTE)
        there = await post(other, f"{THEIRS}/versions", ORDER)

    assert here["id"] == there["id"]
    assert 2**30 <= here["id"] < 2**31


async def test_our_schema_under_another_subject_keeps_the_locked_id(registry: Client) -> None:
    registered = await post(registry, "/subjects/mirror-value/versions", json.dumps(LOCKED.schema))

    assert (registered["id"], registered["guid"]) == (LOCKED.id, LOCKED.guid)


async def test_a_subject_may_hold_any_character(registry: Client) -> None:
    await post(registry, "/subjects/a%2Fb%20%C3%A9/versions", ORDER)

    assert "a/b é" in await get(registry, "/subjects")
    assert await get(registry, "/subjects/a%2Fb%20%C3%A9/versions") == [1]


BAD_SCHEMAS = [
    "{",
    "1",
    '"strng"',
    '{"type": "record", "name": "X"}',
    an_order({"name": "id", "type": "long"}, {"name": "id", "type": "long"}),
    an_order({"name": "id", "type": "long", "default": "nine"}),
    an_order({"name": "id", "type": "elsewhere.Address"}),
    an_order({"name": "1d", "type": "long"}),
    an_order({"name": "id", "type": ["null", "null"]}),
    an_order({"name": "id", "type": ["null", ["long"]]}),
    an_order({"name": "id", "type": "long", "aliases": "x"}),
    an_order(name="or der"),
    an_order(fields={"id": "long"}),
    '{"type": "enum", "name": "E", "symbols": ["A", "A"]}',
    '{"type": "enum", "name": "E", "symbols": ["A"], "default": "B"}',
    '{"type": "fixed", "name": "F", "size": "8"}',
    "[" * 100_000,
    '"\ud800"',
    "",
    "  ",
]


@pytest.mark.parametrize("schema", BAD_SCHEMAS, ids=range(len(BAD_SCHEMAS)))
@pytest.mark.parametrize("path", [f"{THEIRS}/versions", OURS, f"{COMPATIBILITY}/latest", COMPATIBILITY])
async def test_what_is_no_schema_is_42201(registry: Client, path: str, schema: str) -> None:
    assert await refused(await registry.post(path, json={"schema": schema})) == (422, 42201)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", (400, 400)),
        (b"{", (400, 400)),
        (b"\xff\xfe", (400, 400)),
        (b"[" * 100_000, (400, 400)),
        (b'["schema"]', (400, 400)),
        (b"{}", (422, 42201)),
        (b'{"schema": {"type": "string"}}', (422, 42201)),
        (b'{"schema": null}', (422, 42201)),
        (b'{"schema": "\\"string\\"", "schemaType": "JSON"}', (422, 42201)),
        (b'{"schema": "\\"string\\"", "schemaType": "PROTOBUF"}', (422, 42201)),
        (b'{"schema": "\\"string\\"", "references": [{"name": "a", "subject": "a", "version": 1}]}', (422, 42201)),
        (b'{"schema": "\\"string\\"", "ruleSet": {"domainRules": [{"name": "seal"}]}}', (422, 42201)),
        (b'{"schema": "\\"string\\"", "metadata": {"tags": {"a": ["PII"]}}}', (422, 42201)),
        (b'{"schema": "\\"string\\"", "id": 7}', (422, 42205)),
    ],
)
async def test_bodies_that_cannot_be_registered(registry: Client, body: bytes, expected: tuple[int, int]) -> None:
    assert await refused(await registry.post(f"{THEIRS}/versions", data=body)) == expected
    assert "orders-value" not in await get(registry, "/subjects")


async def test_a_body_over_one_mebibyte_is_413(registry: Client) -> None:
    assert await refused(await registry.post(f"{THEIRS}/versions", data=io.BytesIO(b" " * 2**20 + b"{}"))) == (413, 413)


async def test_empty_extras_of_a_body_are_ignored(registry: Client) -> None:
    extras: dict[str, Any] = {
        "schemaType": None,
        "references": [],
        "metadata": None,
        "ruleSet": None,
        "id": -1,
        "unheard-of": 1,
    }
    registered = await post(registry, f"{THEIRS}/versions", ORDER, **extras)
    named = await post(registry, f"{THEIRS}/versions", ORDER, schemaType="AVRO")

    assert registered == named


async def test_look_up_tells_a_missing_subject_from_a_missing_schema(registry: Client) -> None:
    assert await refused(await registry.post("/subjects/nobody", json={"schema": ORDER})) == (404, 40401)
    assert await refused(await registry.post(OURS, json={"schema": ORDER})) == (404, 40403)


async def test_read_only_answers_what_is_known_and_refuses_the_rest(frozen: Client) -> None:
    known = await post(frozen, f"{OURS}/versions", json.dumps(LOCKED.schema))
    unknown = await frozen.post(f"{THEIRS}/versions", json={"schema": ORDER})
    level = await frozen.put("/config/orders-value", json={"compatibility": "BACKWARD"})

    assert (known["id"], known["version"]) == (LOCKED.id, 1)
    assert await refused(unknown) == (422, 42205)
    assert await refused(level) == (422, 42205)
    assert await get(frozen, "/mode") == {"mode": "READONLY"}
