"""A FHIR server of a few lines that answers as HAPI 8.8.0 was seen to: versions, conflicts, deletions, transactions."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from tests.endpoint import an_endpoint

Resource = dict[str, Any]


@dataclass
class Kept:
    """What is at a place: `resource` is None once it is deleted."""

    version: int
    resource: Resource | None


@dataclass
class FakeFhir:
    """Keeps resources in memory.

    Attributes:
        requests: Method and path of each, pings included.
        before: Called before each request is served; what it returns is answered instead.
        token: Without it a request is answered 401, unless empty.
    """

    url: str = ""
    kept: dict[str, Kept] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    before: Callable[[web.BaseRequest], web.Response | None] = lambda _: None
    token: str = ""
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def asked(self, times: int) -> None:
        """Wait until this many requests have come in all."""
        while len(self.requests) < times:
            self._more.clear()
            await self._more.wait()

    def put(self, resource: Resource) -> None:
        """Write as somebody else would."""
        self._write(f"{resource['resourceType']}/{resource['id']}", resource, "")

    def get(self, place: str) -> Resource:
        """Return what is at `Type/id`."""
        found = self.kept[place].resource
        assert found is not None
        return found

    def delete(self, place: str) -> None:
        """Delete as somebody else would."""
        kept = self.kept[place]
        self.kept[place] = Kept(kept.version + 1, None)

    def all(self) -> dict[str, Resource]:
        """Return everything that is there."""
        return {place: kept.resource for place, kept in self.kept.items() if kept.resource is not None}

    @property
    def writes(self) -> int:
        """How many transactions and PUTs there were."""
        return sum(method in {"POST", "PUT"} for method, _ in self.requests)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve one request."""
        body = await request.read()
        path = request.path.removeprefix(urlsplit(self.url).path).strip("/")
        self.requests.append((request.method, path))
        self._more.set()
        if "application/fhir+json" not in request.headers.get("accept", ""):
            return web.Response(status=404, text="<OperationOutcome/>", content_type="application/fhir+xml")
        given = self.before(request)
        if given is not None:
            return given
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return outcome(401, "login")
        if request.method == "GET":
            return self._found(path, request.query.get("identifier", ""))
        if request.method == "PUT":
            return self._put(path, json.loads(body), request.headers.get("if-match", ""))
        return self._transaction(json.loads(body))

    def _found(self, path: str, identifier: str) -> web.Response:
        if path == "Patient":
            asked = [[_plain(part) for part in _split(each, "|")] for each in _split(identifier, ",")]
            matches = [
                {"resource": {name: each[name] for name in ("resourceType", "id", "identifier")}}
                for each in self.all().values()
                if each["resourceType"] == "Patient"
                and any(
                    [had.get("system"), had["value"]] in asked or [had["value"]] in asked for had in each["identifier"]
                )
            ]
            return _json(200, {"resourceType": "Bundle", "type": "searchset", "entry": matches})
        kept = self.kept.get(path)
        if kept is None:
            return outcome(404, "processing")
        if kept.resource is None:
            return outcome(410, "processing")
        return _json(200, kept.resource, kept.version)

    def _put(self, path: str, resource: Resource, if_match: str) -> web.Response:
        refused = self._refused(path, resource, if_match)
        if refused is not None:
            return refused
        created = path not in self.kept
        return _json(201 if created else 200, None, self._write(path, resource, "http"))

    def _transaction(self, bundle: Resource) -> web.Response:
        if bundle.get("type") != "transaction":
            return outcome(400, "processing")
        entries = [
            (each["request"]["url"], each["resource"], each["request"].get("ifMatch", "")) for each in bundle["entry"]
        ]
        coming = {path for path, _, _ in entries}
        for path, resource, if_match in entries:
            refused = self._refused(path, resource, if_match, coming=coming)
            if refused is not None:
                return refused
        answers = [
            {"response": {"status": "200 OK", "etag": str(self._write(path, resource, "transaction"))}}
            for path, resource, _ in entries
        ]
        return _json(200, {"resourceType": "Bundle", "type": "transaction-response", "entry": answers})

    def _refused(
        self, path: str, resource: Resource, if_match: str, *, coming: set[str] | None = None
    ) -> web.Response | None:
        kept = self.kept.get(path)
        if f"{resource['resourceType']}/{resource['id']}" != path or not resource.get("status", "active"):
            return outcome(400, "invalid")
        if if_match and (kept is None or if_match != f'W/"{kept.version}"'):
            return outcome(409, "processing")
        missing = references(resource) - set(self.all()) - (coming or {path})
        return outcome(400, "processing") if missing else None

    def _write(self, path: str, resource: Resource, request: str) -> int:
        """Keep it and return its version, which only changes with its content."""
        kept = self.kept.get(path)
        said = {**resource, "meta": {**resource.get("meta", {})}}
        if kept is not None and kept.resource is not None and _content(kept.resource) == _content(said):
            return kept.version
        version = 1 if kept is None else kept.version + 1
        source = said["meta"].get("source")
        said["meta"] |= {"versionId": str(version)} | ({"source": f"{source}#{request}"} if source else {})
        self.kept[path] = Kept(version, said)
        return version


def references(value: Any) -> set[str]:
    """Return the literal references in a resource."""
    match value:
        case {"reference": str(place)}:
            return {place}
        case dict():
            return {place for each in value.values() for place in references(each)}
        case list():
            return {place for each in value for place in references(each)}
    return set()


def outcome(status: int, code: str) -> web.Response:
    """An OperationOutcome that quotes what nobody may log."""
    issue = {"severity": "error", "code": code, "diagnostics": "HAPI-0000: hunter2 is not known"}
    return _json(status, {"resourceType": "OperationOutcome", "issue": [issue]})


def _split(text: str, by: str) -> list[str]:
    """Divide a search value where `by` has no backslash before it (FHIR R4, "Escaping Search Parameters")."""
    parts = [""]
    for token in re.findall(r"\\.|.", text):
        if token == by:
            parts.append("")
        else:
            parts[-1] += token
    return parts


def _plain(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _content(resource: Resource) -> Resource:
    return {name: value for name, value in resource.items() if name != "meta"}


def _json(status: int, body: Resource | None, version: int | None = None) -> web.Response:
    return web.Response(
        status=status,
        body=None if body is None else json.dumps(body).encode(),
        content_type="application/fhir+json",
        headers={} if version is None else {"ETag": f'W/"{version}"'},
    )


@asynccontextmanager
async def a_fake() -> AsyncIterator[FakeFhir]:
    """Serve one on a free port."""
    fake = FakeFhir()
    async with an_endpoint(fake.answer) as url:
        fake.url = url
        yield fake
