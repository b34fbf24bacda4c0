"""Calls to the embedded registry as its component tests make them, and a foreign schema to call it with."""

import json
from typing import Any

from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient

from bridge.registry.loader import bundled

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


async def read(response: ClientResponse) -> Any:
    """Return the body, having checked the content type that every answer has."""
    assert response.headers["Content-Type"].split(";")[0] == CONTENT_TYPE
    return json.loads(await response.read())


async def get(client: Client, path: str, **headers: str) -> Any:
    """Return the body of a 200."""
    response = await client.get(path, headers=headers)
    assert response.status == 200, await response.text()
    return await read(response)


async def post(client: Client, path: str, schema: str, **more: Any) -> Any:
    """Return the body of a 200."""
    response = await client.post(path, json={"schema": schema, **more})
    assert response.status == 200, await response.text()
    return await read(response)


async def refused(response: ClientResponse) -> tuple[int, int]:
    """Return status and error code."""
    body = await read(response)
    assert body.keys() == {"error_code", "message"}
    return response.status, body["error_code"]
