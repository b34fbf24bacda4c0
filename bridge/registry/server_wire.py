"""Read the requests of registry clients, whatever they put into them, and shape the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web

from bridge.registry.store_model import Registration, RegistryFaultError

CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
# Avro has no references of its own and clients differ in resolving them; rules and metadata would be promises that
# nothing here keeps. Each is refused when it says something, and ignored when it is null or empty.
_UNSUPPORTED: Final = ("references", "metadata", "ruleSet")
# The bound that Confluent's message names; also the largest id, since the wire format's four bytes are read signed.
_INT_MAX: Final = 2**31 - 1
_INVALID_VERSION: Final = (
    'The specified version is not a valid version id. Allowed values are between [1, 2^31-1] and the string "latest"'
)


def answer(document: object) -> web.Response:
    """Answer 200 with a document."""
    return web.Response(text=json.dumps(document), content_type=CONTENT_TYPE)


def schema_text(text: str) -> web.Response:
    """Answer 200 with a schema, bare."""
    return web.Response(text=text, content_type=CONTENT_TYPE)


def failure(error_code: int, message: str, *, headers: Mapping[str, str] | None = None) -> web.Response:
    """Answer an error; the first three digits of Confluent's code are the status."""
    body = json.dumps({"error_code": error_code, "message": message})
    return web.Response(status=int(str(error_code)[:3]), text=body, content_type=CONTENT_TYPE, headers=headers)


def page(request: web.Request, items: Sequence[object]) -> web.Response:
    """Answer the part of a list that `offset` and `limit` ask for; a client that pages must come to an end."""
    offset = max(_number(request, "offset", default=0), 0)
    limit = _number(request, "limit", default=-1)
    return answer(items[offset:] if limit < 0 else items[offset : offset + limit])


def row(registration: Registration) -> dict[str, object]:
    """Shape a registration; `schemaType` and `references` are left out, as for any Avro schema without them."""
    return {
        "subject": registration.subject,
        "version": registration.version,
        "id": registration.id,
        "guid": registration.guid,
        "schema": registration.schema,
    }


async def body(request: web.Request) -> dict[str, Any]:
    """Read a JSON object, whatever the content type says."""
    try:
        document = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise RegistryFaultError(400, "The body is not JSON.") from None
    if not isinstance(document, dict):
        raise RegistryFaultError(400, "The body is not a JSON object.")
    return document


def posted_schema(document: Mapping[str, Any]) -> str:
    """Take the text of the Avro schema out of a body; RegistryFaultError 42201 for any other kind."""
    if (document.get("schemaType") or "AVRO") != "AVRO":
        raise RegistryFaultError(42201, "Invalid schema type; this registry takes AVRO.")
    for name in _UNSUPPORTED:
        if document.get(name):
            raise RegistryFaultError(42201, f"Invalid schema: {name} is not supported; write the types out.")
    text = document.get("schema")
    if not isinstance(text, str) or not text.strip():
        raise RegistryFaultError(42201, "Empty schema")
    return text


def schema_id(request: web.Request) -> int:
    """Read the id of a path; what is no number is no path of ours."""
    text = request.match_info["id"]
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_INT_MAX))):
        raise web.HTTPNotFound
    return int(text)


def version(request: web.Request) -> int | None:
    """Read the version of a path, None for the latest; RegistryFaultError 42202."""
    text = request.match_info["version"]
    if text.lower() in ("latest", "-1"):
        return None
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(_INT_MAX)) else 0
    if not 1 <= number <= _INT_MAX:
        raise RegistryFaultError(42202, _INVALID_VERSION)
    return number


def flag(request: web.Request, name: str) -> bool:
    """Read a yes or no of the query; clients write `true`, `True`, or nothing after the `=`."""
    return request.query.get(name, "").lower() == "true"


def _number(request: web.Request, name: str, *, default: int) -> int:
    try:
        return int(request.query[name])
    except (KeyError, ValueError):
        return default
