"""A read-only schema registry: the GET half of Confluent's REST API over the lock, for development.

Clients look up schemas by id or GUID, and ids of our schemas by subject, as in any registry. Nothing can be registered:
the schemas come with the release. Every response is JSON, and every failure is `{"error_code", "message"}`, where the
first three digits of the code are the HTTP status, since clients fail on any other form. An unknown path is a 404,
never a 405 or 501, which would stop Confluent's clients at `/associations`. Query parameters are ignored.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

from bridge.errors import BridgeError
from bridge.registry.lock import Lock, LockedSchema

CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
# Compatibility level of all subjects (docs/adr/0003-schema-evolution.md).
LEVEL: Final = "FULL_TRANSITIVE"

# Path prefix used by Apicurio's clients, such as its Kafka Connect converter.
_APICURIO: Final = "/apis/registry/v2/ids/contentIds"

# Maximum id and version, as in Confluent's message.
_INT_MAX: Final = 2**31 - 1
_INVALID_VERSION: Final = (
    'The specified version is not a valid version id. Allowed values are between [1, 2^31-1] and the string "latest"'
)


class RegistryFaultError(BridgeError):
    """A request gets an error as its response."""

    code = "registry_fault"

    def __init__(self, error_code: int, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.message = message


class _Answers:
    """The response of each path; `match` has its parts."""

    def __init__(self, lock: Lock) -> None:
        self._entries = lock.entries

    def subjects(self, _match: Mapping[str, str]) -> object:
        return sorted({each.subject for each in self._entries})

    def versions(self, match: Mapping[str, str]) -> object:
        return [each.version for each in self._of(match["subject"])]

    def version(self, match: Mapping[str, str]) -> object:
        return _row(self._version(match))

    def id(self, match: Mapping[str, str]) -> dict[str, Any]:
        number = _natural(match["id"])
        if number is None:  # no path of ours
            raise web.HTTPNotFound
        return _row(self._one(f"Schema {number} not found", lambda each: each.id == number))

    def guid(self, match: Mapping[str, str]) -> object:
        return _row(self._one("Schema not found", lambda each: each.guid == match["guid"].lower()))

    def _of(self, subject: str) -> list[LockedSchema]:
        # By record name only: a record may have several topics, and a site may route it to others.
        found = [each for each in self._entries if subject.endswith(f"-{each.record}")]
        if not found:
            raise RegistryFaultError(40401, f"Subject '{subject}' not found.")
        return found

    def _version(self, match: Mapping[str, str]) -> LockedSchema:
        versions, text = self._of(match["subject"]), match["version"]
        if text.lower() in ("latest", "-1"):
            return versions[-1]
        number = _natural(text)
        if not number:
            raise RegistryFaultError(42202, _INVALID_VERSION)
        if number > len(versions):  # versions count from 1
            raise RegistryFaultError(40402, f"Version {number} not found.")
        return versions[number - 1]

    def _one(self, missing: str, wanted: Callable[[LockedSchema], bool]) -> LockedSchema:
        found = next(filter(wanted, self._entries), None)
        if found is None:
            raise RegistryFaultError(40403, missing)
        return found


def _row(entry: LockedSchema) -> dict[str, Any]:
    """Return a schema's attributes, without `schemaType` and `references`, as for any such Avro schema."""
    return {
        "subject": entry.subject,
        "version": entry.version,
        "id": entry.id,
        "guid": entry.guid,
        "schema": json.dumps(entry.schema, separators=(",", ":")),
    }


def _natural(text: str) -> int | None:
    """Parse ASCII digits from 0 to the maximum; None for anything else."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_INT_MAX))) or int(text) > _INT_MAX:
        return None
    return int(text)


def registry_app(lock: Lock) -> web.Application:
    """Return an application that serves a lock; the caller binds its port and stops it."""
    answers = _Answers(lock)
    level, mode = {"compatibilityLevel": LEVEL}, {"mode": "READONLY"}
    routes: dict[str, Callable[[Mapping[str, str]], object]] = {
        "/": lambda _: {},
        "/subjects": answers.subjects,
        "/subjects/{subject}/versions": answers.versions,
        "/subjects/{subject}/versions/{version}": answers.version,
        "/schemas/types": lambda _: ["AVRO"],
        "/schemas/ids/{id}": answers.id,
        "/schemas/guids/{guid}": answers.guid,
        f"{_APICURIO}/{{id}}": lambda match: json.loads(answers.id(match)["schema"]),
        f"{_APICURIO}/{{id}}/references": lambda _: [],
        **dict.fromkeys(("/config", "/config/{subject}"), lambda _: level),
        **dict.fromkeys(("/mode", "/mode/{subject}"), lambda _: mode),
    }
    app = web.Application(middlewares=[_failures_as_json])
    for path, show in routes.items():
        app.router.add_get(path, partial(_answer, show))
    return app


async def _answer(show: Callable[[Mapping[str, str]], object], request: web.Request) -> web.StreamResponse:
    return web.Response(text=json.dumps(show(request.match_info)), content_type=CONTENT_TYPE)


@web.middleware
async def _failures_as_json(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except RegistryFaultError as fault:
        return _failure(fault.error_code, fault.message)
    except web.HTTPException as exc:
        headers = {"Allow": exc.headers["Allow"]} if "Allow" in exc.headers else {}
        return _failure(exc.status, f"HTTP {exc.status} {HTTPStatus(exc.status).phrase}", headers)


def _failure(error_code: int, message: str, headers: Mapping[str, Any] | None = None) -> web.Response:
    body = json.dumps({"error_code": error_code, "message": message})
    return web.Response(status=int(str(error_code)[:3]), text=body, content_type=CONTENT_TYPE, headers=headers)
