"""The embedded registry over a real socket: every endpoint, every refusal, and what real clients put into requests."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from bridge.errors import ConfigError
from bridge.registry.loader import bundled
from bridge.registry.server import registry_app
from bridge.registry.store_open import open_store

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
LOCKED = bundled().entries[0]
OURS = f"/subjects/{LOCKED.subject}"
THEIRS = "/subjects/orders-value"
COMPATIBILITY = "/compatibility/subjects/orders-value/versions"

Client = TestClient[Any, Any]


def an_order(*fields: dict[str, Any], **attributes: Any) -> str:
    """Spell a foreign record; by default with one field."""
    return json.dumps(
        {"type": "record", "name": "Order", "fields": list(fields) or [{"name": "id", "type": "long"}], **attributes}
    )


ORDER = an_order()
WITH_NOTE = an_order({"name": "id", "type": "long"}, {"name": "note", "type": "string", "default": ""})
WITH_REQUIRED = an_order({"name": "id", "type": "long"}, {"name": "note", "type": "string"})
RENUMBERED = an_order({"name": "id", "type": "string"})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "registry.json"


@pytest.fixture
async def registry(file: Path) -> AsyncIterator[Client]:
    async with TestClient(TestServer(registry_app(open_store(bundled(), path=file)))) as client:
        yield client


@pytest.fixture
async def frozen() -> AsyncIterator[Client]:
    async with TestClient(TestServer(registry_app(open_store(bundled(), read_only=True)))) as client:
        yield client


async def read(response: ClientResponse) -> Any:
    """Return the body, having checked the content type that every answer has."""
    assert response.headers["Content-Type"].split(";")[0] == CONTENT_TYPE
    return json.loads(await response.read())


async def get(client: Client, path: str, **headers: str) -> Any:
    response = await client.get(path, headers=headers)
    assert response.status == 200, await response.text()
    return await read(response)


async def post(client: Client, path: str, schema: str, **more: Any) -> Any:
    response = await client.post(path, json={"schema": schema, **more})
    assert response.status == 200, await response.text()
    return await read(response)


async def refused(response: ClientResponse) -> tuple[int, int]:
    """Return status and error code."""
    body = await read(response)
    assert body.keys() == {"error_code", "message"}
    return response.status, body["error_code"]


async def test_every_locked_schema_has_its_subject_version_id_and_guid(registry: Client) -> None:
    subjects = await get(registry, "/subjects")
    shown = [await get(registry, f"/subjects/{subject}/versions/latest") for subject in subjects]

    newest = bundled().latest().values()
    assert {(row["subject"], row["version"], row["id"], row["guid"]) for row in shown} == {
        (entry.subject, entry.version, entry.id, entry.guid) for entry in newest
    }
    assert all("schemaType" not in row and "references" not in row for row in shown)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", {}),
        ("/schemas/types", ["AVRO"]),
        ("/contexts", ["."]),
        ("/contexts?offset=0&limit=-1", ["."]),
        ("/config", {"compatibilityLevel": "FULL_TRANSITIVE"}),
        (f"/config/{LOCKED.subject}", {"compatibilityLevel": "FULL_TRANSITIVE"}),
        ("/config/nobody?defaultToGlobal=True", {"compatibilityLevel": "FULL_TRANSITIVE"}),
        ("/mode", {"mode": "READWRITE"}),
        (f"/mode/{LOCKED.subject}?defaultToGlobal=", {"mode": "READWRITE"}),
        (f"{OURS}/versions", [1]),
        (f"{OURS}/versions?deleted=True&offset=0&limit=-1", [1]),
        (f"{OURS}/versions/1/schema", LOCKED.schema),
        (f"{OURS}/versions/1/referencedby", []),
        ("/subjects?subjectPrefix=nobody&deleted=False", []),
        (f"/subjects?subjectPrefix={LOCKED.subject}&deleted=", [LOCKED.subject]),
        (f"/subjects?subjectPrefix=:*:{LOCKED.subject}", [LOCKED.subject]),
        (f"/schemas/ids/{LOCKED.id}/schema", LOCKED.schema),
        (f"/schemas/ids/{LOCKED.id}/subjects?deleted=False", [LOCKED.subject]),
        (f"/schemas/ids/{LOCKED.id}/subjects?offset=1&limit=10", []),
        (f"/schemas/ids/{LOCKED.id}/versions?limit=nonsense", [{"subject": LOCKED.subject, "version": 1}]),
    ],
)
async def test_reads(registry: Client, path: str, expected: object) -> None:
    assert await get(registry, path) == expected


@pytest.mark.parametrize(
    "path",
    [
        f"{OURS}/versions/1",
        f"{OURS}/versions/latest?deleted=false",
        f"{OURS}/versions/-1?format=",
        f"/schemas/ids/{LOCKED.id}",
        f"/schemas/ids/{LOCKED.id}?subject=",
        f"/schemas/ids/{LOCKED.id}?subject=of-another&fetchMaxId=False",
        f"/schemas/ids/{LOCKED.id}?subject={LOCKED.subject}",
        f"/schemas/guids/{LOCKED.guid}",
        f"/schemas/guids/{LOCKED.guid.upper()}?format=",
    ],
)
async def test_a_schema_is_found_by_version_id_and_guid(registry: Client, path: str) -> None:
    shown = await get(registry, path)

    assert (shown["id"], shown["guid"], shown["subject"], shown["version"]) == (
        LOCKED.id,
        LOCKED.guid,
        LOCKED.subject,
        1,
    )
    assert json.loads(shown["schema"]) == LOCKED.schema


async def test_lists_are_paged_to_their_end(registry: Client) -> None:
    whole = await get(registry, "/subjects")
    pages = [await get(registry, f"/subjects?offset={start}&limit=10") for start in (0, 10, 20, 30)]

    assert [subject for page in pages for subject in page] == whole


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


async def test_a_foreign_id_is_above_the_lock_and_the_same_in_every_registry(registry: Client, tmp_path: Path) -> None:
    here = await post(registry, f"{THEIRS}/versions", ORDER)
    async with TestClient(TestServer(registry_app(open_store(bundled(), path=tmp_path / "other.json")))) as other:
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


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/associations/resources/-/drx.prescriptions.v1", (404, 404)),
        ("GET", "/associations/resources/-/a%2Fb?resourceType=topic&associationType=value", (404, 404)),
        ("POST", "/associations", (404, 404)),
        ("DELETE", "/associations/resources/-", (404, 404)),
        ("GET", "/nowhere", (404, 404)),
        ("GET", "/schemas/ids/abc", (404, 404)),
        ("GET", "/schemas/ids/99999999999999999999", (404, 404)),
        ("GET", "/schemas/ids/%D9%A1", (404, 404)),
        ("GET", "/schemas/ids/999", (404, 40403)),
        ("GET", "/schemas/ids/999/schema", (404, 40403)),
        ("GET", "/schemas/ids/999/subjects", (404, 40403)),
        ("GET", "/schemas/ids/999/versions", (404, 40403)),
        ("GET", "/schemas/guids/00000000-0000-0000-0000-000000000000", (404, 40403)),
        ("GET", "/schemas/guids/nonsense", (404, 40403)),
        ("GET", "/subjects/nobody/versions", (404, 40401)),
        ("GET", "/subjects/nobody/versions/1", (404, 40401)),
        ("GET", "/subjects/nobody/versions/latest/schema", (404, 40401)),
        ("GET", f"{OURS}/versions/2", (404, 40402)),
        ("GET", f"{OURS}/versions/2/referencedby", (404, 40402)),
        ("GET", f"{OURS}/versions/0", (422, 42202)),
        ("GET", f"{OURS}/versions/-2", (422, 42202)),
        ("GET", f"{OURS}/versions/one", (422, 42202)),
        ("GET", f"{OURS}/versions/2147483648", (422, 42202)),
        ("GET", "/config/nobody", (404, 40408)),
        ("DELETE", f"{OURS}", (405, 405)),
        ("DELETE", f"{OURS}/versions/1", (405, 405)),
        ("PUT", "/mode", (405, 405)),
        ("PATCH", "/subjects", (405, 405)),
    ],
)
async def test_what_is_not_there_is_refused_as_json(
    registry: Client, method: str, path: str, expected: tuple[int, int]
) -> None:
    assert await refused(await registry.request(method, path)) == expected


@pytest.mark.parametrize(("path", "status"), [("/subjects", 200), (OURS, 405), ("/nowhere", 404)])
async def test_head_has_the_heads_of_get_and_no_body(registry: Client, path: str, status: int) -> None:
    response = await registry.head(path)

    assert (response.status, await response.read()) == (status, b"")
    assert response.headers["Content-Type"].startswith(CONTENT_TYPE)


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
    extras: dict[str, Any] = {"schemaType": None, "references": [], "metadata": None, "ruleSet": None, "id": -1, "unheard-of": 1}
    registered = await post(registry, f"{THEIRS}/versions", ORDER, **extras)
    named = await post(registry, f"{THEIRS}/versions", ORDER, schemaType="AVRO")

    assert registered == named


async def test_look_up_tells_a_missing_subject_from_a_missing_schema(registry: Client) -> None:
    assert await refused(await registry.post("/subjects/nobody", json={"schema": ORDER})) == (404, 40401)
    assert await refused(await registry.post(OURS, json={"schema": ORDER})) == (404, 40403)


async def test_an_incompatible_schema_is_40901_and_names_the_field(registry: Client) -> None:
    await post(registry, f"{THEIRS}/versions", ORDER)
    response = await registry.post(f"{THEIRS}/versions", json={"schema": WITH_REQUIRED})
    message = (await response.json(content_type=None))["message"]

    assert await refused(response) == (409, 40901)
    assert "note" in message
    assert await get(registry, f"{THEIRS}/versions") == [1]


async def test_our_own_subjects_are_held_to_the_stricter_rules(registry: Client) -> None:
    """Avro's own check does not see a changed logical type; the lint of this project does."""
    text = json.dumps(LOCKED.schema)
    changed = text.replace("timestamp-micros", "timestamp-millis", 1)
    answer = await post(registry, f"/compatibility{OURS}/versions/latest?verbose=true", changed)

    assert changed != text
    assert answer["is_compatible"] is False
    assert "logicalType" in answer["messages"][0]
    assert await refused(await registry.post(f"{OURS}/versions", json={"schema": changed})) == (409, 40901)


@pytest.mark.parametrize(
    ("level", "schema", "compatible"),
    [
        ("NONE", RENUMBERED, True),
        ("BACKWARD", WITH_NOTE, True),
        ("BACKWARD", WITH_REQUIRED, False),
        ("BACKWARD", RENUMBERED, False),
        ("FORWARD", WITH_REQUIRED, True),
        ("FORWARD", RENUMBERED, False),
        ("FULL", WITH_NOTE, True),
        ("FULL", WITH_REQUIRED, False),
        ("full_transitive", WITH_REQUIRED, False),
        ("BACKWARD", an_order({"name": "id", "type": "double"}), True),
        ("FORWARD", an_order({"name": "id", "type": "double"}), False),
        ("BACKWARD", an_order({"name": "id", "type": ["null", "long"]}), True),
        ("FORWARD", an_order({"name": "id", "type": ["null", "long"]}), False),
        ("BACKWARD", an_order({"name": "number", "aliases": ["id"], "type": "long"}), True),
        ("BACKWARD", an_order(name="Purchase"), False),
        ("BACKWARD", an_order(name="Purchase", aliases=["Order"]), True),
    ],
)
async def test_levels_decide_what_may_follow(registry: Client, level: str, schema: str, *, compatible: bool) -> None:
    await post(registry, f"{THEIRS}/versions", ORDER)
    await registry.put("/config/orders-value", json={"compatibility": level})
    answers = [await post(registry, f"{COMPATIBILITY}/{which}?verbose=True", schema) for which in ("latest", "1", "-1")]
    answers.append(await post(registry, f"{COMPATIBILITY}?verbose=true", schema))

    assert [answer["is_compatible"] for answer in answers] == [compatible] * 4
    assert [bool(answer["messages"]) for answer in answers] == [not compatible] * 4


async def test_only_a_transitive_level_looks_past_the_latest_version(registry: Client) -> None:
    with_number = an_order({"name": "id", "type": "long"}, {"name": "note", "type": "int", "default": 0})
    await registry.put("/config/orders-value", json={"compatibility": "BACKWARD"})
    for schema in (WITH_NOTE, ORDER):
        await post(registry, f"{THEIRS}/versions", schema)

    assert await post(registry, COMPATIBILITY, with_number) == {"is_compatible": True}
    await registry.put("/config/orders-value", json={"compatibility": "BACKWARD_TRANSITIVE"})
    assert await post(registry, COMPATIBILITY, with_number) == {"is_compatible": False}
    assert await post(registry, f"{COMPATIBILITY}/2", with_number) == {"is_compatible": True}


async def test_records_that_contain_themselves_are_compared(registry: Client) -> None:
    tree = an_order({"name": "id", "type": "long"}, {"name": "next", "type": ["null", "Order"], "default": None})
    grown = an_order(*json.loads(tree)["fields"], {"name": "note", "type": "string", "default": ""})
    await post(registry, f"{THEIRS}/versions", tree)

    assert (await post(registry, f"{THEIRS}/versions", grown))["version"] == 2


async def test_anything_may_follow_nothing(registry: Client) -> None:
    assert await post(registry, f"{COMPATIBILITY}/latest", ORDER) == {"is_compatible": True}
    assert await post(registry, f"{COMPATIBILITY}?verbose=true", ORDER) == {"is_compatible": True, "messages": []}
    assert await refused(await registry.post(f"{COMPATIBILITY}/1", json={"schema": ORDER})) == (404, 40401)
    assert await refused(await registry.post(f"{COMPATIBILITY}/zero", json={"schema": ORDER})) == (422, 42202)


async def test_levels_are_set_for_one_and_for_all(registry: Client) -> None:
    response = await registry.put("/config/orders-value", json={"compatibility": "backward"})
    assert await read(response) == {"compatibility": "BACKWARD"}
    await registry.put("/config", json={"compatibility": "NONE"})

    assert await get(registry, "/config/orders-value") == {"compatibilityLevel": "BACKWARD"}
    assert await get(registry, "/config") == {"compatibilityLevel": "NONE"}
    assert await get(registry, f"/config/{LOCKED.subject}") == {"compatibilityLevel": "FULL_TRANSITIVE"}


@pytest.mark.parametrize("body", [{"compatibility": "SIDEWAYS"}, {"compatibility": None}, {}])
async def test_an_unknown_level_is_42203(registry: Client, body: dict[str, object]) -> None:
    assert await refused(await registry.put("/config", json=body)) == (422, 42203)


async def test_read_only_answers_what_is_known_and_refuses_the_rest(frozen: Client) -> None:
    known = await post(frozen, f"{OURS}/versions", json.dumps(LOCKED.schema))
    unknown = await frozen.post(f"{THEIRS}/versions", json={"schema": ORDER})
    level = await frozen.put("/config/orders-value", json={"compatibility": "BACKWARD"})

    assert (known["id"], known["version"]) == (LOCKED.id, 1)
    assert await refused(unknown) == (422, 42205)
    assert await refused(level) == (422, 42205)
    assert await get(frozen, "/mode") == {"mode": "READONLY"}


async def test_an_anonymous_client_and_odd_heads_are_welcome(registry: Client) -> None:
    heads = {"Authorization": "Basic Og==", "Content-Length": "0", "Accept": "text/html", "Expect": ""}

    assert await get(registry, "/schemas/types", **heads) == ["AVRO"]


async def test_an_offer_to_speak_http_2_is_passed_over(registry: Client) -> None:
    """Java's client offers it with every first request, and goes on in HTTP/1.1 on the same connection."""
    body = json.dumps({"schema": json.dumps(LOCKED.schema)}).encode()
    offer = b"Host: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
    reader, writer = await asyncio.open_connection(registry.host, registry.port)
    writer.write(b"GET /schemas/types HTTP/1.1\r\n" + offer + b"Content-Length: 0\r\n\r\n")
    first = await reader.readuntil(b'["AVRO"]')
    writer.write(f"POST {OURS} HTTP/1.1\r\n".encode() + offer + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
    second = await reader.readuntil(b"\r\n")
    writer.close()

    assert first.startswith(b"HTTP/1.1 200")
    assert second.startswith(b"HTTP/1.1 200")


async def test_what_was_registered_is_there_after_a_restart(registry: Client, file: Path) -> None:
    """Nothing is closed or flushed in between, as after a kill."""
    before = await post(registry, f"{THEIRS}/versions", ORDER)
    await registry.put("/config/orders-value", json={"compatibility": "NONE"})
    await post(registry, f"{THEIRS}/versions", RENUMBERED)
    async with TestClient(TestServer(registry_app(open_store(bundled(), path=file)))) as restarted:
        assert await get(restarted, f"/schemas/ids/{before['id']}") == before
        assert await get(restarted, f"{THEIRS}/versions") == [1, 2]
        assert await get(restarted, "/config/orders-value") == {"compatibilityLevel": "NONE"}
        assert len(await get(restarted, "/subjects")) == len(bundled().latest()) + 1


async def test_what_a_release_brings_wins_over_the_file(file: Path) -> None:
    """Someone registered the next version before the release that has it: both ids stay readable."""
    lock = bundled()
    doc = {**LOCKED.schema, "doc": "Said better."}
    other = {**LOCKED.schema, "doc": "Said otherwise."}
    async with TestClient(TestServer(registry_app(open_store(lock, path=file)))) as before:
        early = await post(before, f"{OURS}/versions", json.dumps(doc))
        later = await post(before, f"{OURS}/versions", json.dumps(other))
    release = lock.extended({**lock.schemas(), LOCKED.record: doc})
    async with TestClient(TestServer(registry_app(open_store(release, path=file)))) as after:
        looked_up = await post(after, OURS, json.dumps(doc))

        assert (looked_up["version"], looked_up["id"]) == (2, release.ids()[LOCKED.record])
        assert json.loads((await get(after, f"/schemas/ids/{early['id']}"))["schema"]) == doc
        assert await get(after, f"{OURS}/versions") == [1, 2, 3]
        assert (await get(after, f"{OURS}/versions/3"))["id"] == later["id"]


async def test_a_file_that_cannot_be_written_refuses_and_changes_nothing(tmp_path: Path) -> None:
    in_the_way = tmp_path / "folder"
    in_the_way.write_text("no folder")
    store = open_store(bundled())
    store._path = in_the_way / "registry.json"
    async with TestClient(TestServer(registry_app(store))) as registry:
        assert await refused(await registry.post(f"{THEIRS}/versions", json={"schema": ORDER})) == (500, 50001)
        assert "orders-value" not in await get(registry, "/subjects")


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"sha256": "00", "document": {}}'])
def test_a_damaged_file_stops_the_start_and_is_named(file: Path, damage: bytes) -> None:
    file.write_bytes(damage)
    with pytest.raises(ConfigError, match=r"registry\.json: damaged"):
        open_store(bundled(), path=file)


def test_one_flipped_letter_in_the_file_is_noticed(file: Path) -> None:
    open_store(bundled(), path=file).register("orders-value", ORDER)
    file.write_bytes(file.read_bytes().replace(b"orders-value", b"orders-valve"))
    with pytest.raises(ConfigError, match="damaged"):
        open_store(bundled(), path=file)
