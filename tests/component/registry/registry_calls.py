"""Calls to the registry of the lock as its component tests make them."""

import json
from typing import Any

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
    """Return the body of a 200."""
    response = await client.get(path, headers=headers)
    assert response.status == 200, await response.text()
    return await read(response)


async def refused(response: ClientResponse) -> tuple[int, int]:
    """Return status and error code."""
    body = await read(response)
    assert body.keys() == {"error_code", "message"}
    return response.status, body["error_code"]
