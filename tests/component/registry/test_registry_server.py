"""The registry of the lock over a real socket, with requests of real clients."""

import json
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient

from bridge.registry.loader import bundled

CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
LOCKED = bundled().entries[0]
OURS = f"/subjects/{LOCKED.subject}"

Client = TestClient[Any, Any]


async def read(response: ClientResponse) -> Any:
    """Return the body, having checked the content type that every answer has."""
    assert response.headers["Content-Type"].split(";")[0] == CONTENT_TYPE
    return json.loads(await response.read())


async def get(client: Client, path: str, **headers: str) -> Any:
    response = await client.get(path, headers=headers)
    assert response.status == 200, await response.text()
    return await read(response)


async def refused(response: ClientResponse) -> tuple[int, int]:
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
        ("/config", {"compatibilityLevel": "FULL_TRANSITIVE"}),
        (f"/config/{LOCKED.subject}", {"compatibilityLevel": "FULL_TRANSITIVE"}),
        ("/config/nobody?defaultToGlobal=True", {"compatibilityLevel": "FULL_TRANSITIVE"}),
        ("/mode", {"mode": "READONLY"}),
        (f"/mode/{LOCKED.subject}?defaultToGlobal=", {"mode": "READONLY"}),
        (f"/apis/registry/v2/ids/contentIds/{LOCKED.id}", LOCKED.schema),
        (f"/apis/registry/v2/ids/contentIds/{LOCKED.id}/references", []),
        (f"{OURS}/versions", [1]),
        (f"{OURS}/versions?deleted=True&offset=0&limit=-1", [1]),
    ],
)
async def test_reads(registry: Client, path: str, expected: object) -> None:
    assert await get(registry, path) == expected


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/associations/resources/-/drx.prescriptions.v1", (404, 404)),
        ("GET", "/nowhere", (404, 404)),
        ("GET", "/schemas/ids/abc", (404, 404)),
        ("GET", "/schemas/ids/99999999999999999999", (404, 404)),
        ("GET", "/schemas/ids/999", (404, 40403)),
        ("GET", "/schemas/guids/00000000-0000-0000-0000-000000000000", (404, 40403)),
        ("GET", "/subjects/nobody/versions", (404, 40401)),
        ("GET", f"{OURS}/versions/2", (404, 40402)),
        ("GET", f"{OURS}/versions/0", (422, 42202)),
        ("GET", f"{OURS}/versions/one", (422, 42202)),
        ("GET", f"{OURS}/versions/2147483648", (422, 42202)),
        ("POST", f"{OURS}", (404, 404)),
        ("POST", f"{OURS}/versions", (405, 405)),
        ("PATCH", "/subjects", (405, 405)),
    ],
)
async def test_what_is_not_there_is_refused_as_json(
    registry: Client, method: str, path: str, expected: tuple[int, int]
) -> None:
    assert await refused(await registry.request(method, path)) == expected
