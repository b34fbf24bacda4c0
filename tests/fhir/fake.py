"""A small FHIR server with the observed behaviour of HAPI 8.8.0: versions, conflicts, deletions, transactions.

Like a validating HAPI it accepts no transaction without `fullUrl`.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from consumers.fhir.capability import WRITTEN
from tests.endpoint import an_endpoint

Resource = dict[str, Any]
CONDITIONS = {"ifMatch": "if-match", "ifNoneMatch": "if-none-match", "ifNoneExist": "if-none-exist"}
_INTERACTIONS = [{"code": each} for each in ("read", "create", "update", "search-type")]
STATEMENT: Resource = {
    "resourceType": "CapabilityStatement",
    "fhirVersion": "4.0.1",
    "rest": [
        {
            "mode": "server",
            "interaction": [{"code": "transaction"}],
            "resource": [
                {
                    "type": each,
                    "interaction": _INTERACTIONS,
                    "conditionalCreate": True,
                    "searchParam": [{"name": "identifier", "type": "token"}],
                }
                for each in (*WRITTEN, "Patient")
            ],
        }
    ],
}


@dataclass
class Kept:
    """A stored resource; `resource` is None once it is deleted."""

    version: int
    resource: Resource | None


@dataclass
class _Write:
    """One PUT, or POST of a type, by itself or in a transaction."""

    path: str
    resource: Resource
    conditions: Mapping[str, str]
    full_url: str = ""

    def __post_init__(self) -> None:
        self.is_create = "/" not in self.path


@dataclass
class FakeFhir:
    """Keeps resources in memory."""

    url: str = ""
    kept: dict[str, Kept] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)  # method and path of each, pings included
    before: Callable[[web.BaseRequest], web.Response | None] = lambda _: None  # its result is the response
    token: str = ""  # without it a request gets a 401, unless empty
    # As HTTP says and HAPI does not: what exists never matches `If-None-Match: *`, and what is missing no `If-Match`.
    strict: bool = False
    careless: bool = False  # ignore all conditions
    chooses_ids: bool = False  # accept no ids of clients
    _ids: int = 1000
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def asked(self, times: int) -> None:
        """Wait until this many requests have arrived in total."""
        while len(self.requests) < times:
            self._more.clear()
            await self._more.wait()

    def put(self, resource: Resource) -> None:
        self._write(f"{resource['resourceType']}/{resource['id']}", resource, "")

    def get(self, place: str) -> Resource:
        found = self.kept[place].resource
        assert found is not None
        return found

    def delete(self, place: str) -> None:
        self.kept[place] = Kept(self.kept[place].version + 1, None)

    def all(self) -> dict[str, Resource]:
        return {place: kept.resource for place, kept in self.kept.items() if kept.resource is not None}

    @property
    def writes(self) -> int:
        return sum(method in {"POST", "PUT"} for method, _ in self.requests)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        path = request.path.removeprefix(urlsplit(self.url).path).strip("/")
        self.requests.append((request.method, path))
        self._more.set()
        named = [request.headers.get(each, "") for each in ("accept", *(["content-type"] if body else []))]
        if any("application/fhir+json" not in each for each in named):
            return web.Response(status=404, text="<OperationOutcome/>", content_type="application/fhir+xml")
        given = self.before(request)
        if given is not None:
            return given
        if self.token and request.headers.get("authorization") != f"Bearer {self.token}":
            return outcome(401, "login")
        if request.method == "DELETE":
            self.delete(path)
        if request.method in {"GET", "DELETE"}:
            return self._found(path, request.query, fresh=request.headers.get("cache-control") == "no-cache")
        conditions = {name: request.headers.get(header, "") for name, header in CONDITIONS.items()}
        if path:
            return self._done([_Write(path, json.loads(body), conditions)])[0]
        return self._transaction(json.loads(body))

    def _found(self, path: str, query: Mapping[str, str], *, fresh: bool) -> web.Response:
        if path == "metadata":
            return _json(200, STATEMENT)
        if "/" not in path:
            only = {"resourceType", *query["_elements"].split(",")} if "_elements" in query else None
            matches = [
                {"resource": {name: each[name] for name in each if only is None or name in only}}
                for each in self._matches(path, query)
                if fresh  # else what HAPI found a minute ago
            ]
            entries = matches[: int(query.get("_count", 100))]
            return _json(200, {"resourceType": "Bundle", "type": "searchset", "entry": entries})
        kept = self.kept.get(path)
        if kept is None:
            return outcome(404, "processing")
        if kept.resource is None:
            return outcome(410, "processing", location=f"{self.url}/{path}/_history/{kept.version}")
        return _json(200, kept.resource, etag=kept.version)

    def _matches(self, resource_type: str, query: Mapping[str, str]) -> list[Resource]:
        if "target" in query:
            return [each for each in self.all().values() if {"reference": query["target"]} in each.get("target", ())]
        asked = [
            [_plain(part) for part in _split(each, "|")]
            for each in _split(query.get("identifier", query.get("_tag", "")), ",")
        ]
        return [
            each
            for each in self.all().values()
            if each["resourceType"] == resource_type
            and any(
                [had.get("system"), had["value"]] in asked or [had["value"]] in asked
                for had in [
                    *each.get("identifier", []),
                    *({"system": tag["system"], "value": tag["code"]} for tag in each["meta"].get("tag", [])),
                ]
            )
        ]

    def _transaction(self, bundle: Resource) -> web.Response:
        if bundle.get("type") != "transaction":
            return outcome(400, "processing")
        for each in bundle["entry"]:
            end = f"/{each['request']['url']}" if "id" in each["resource"] else ""
            begin = "http://" if end else "urn:uuid:"
            full_url = each.get("fullUrl", "")
            if not (full_url.startswith(begin) and full_url.endswith(end)) or "//" in full_url.removeprefix(begin):
                return outcome(422, "processing")
        writes = [
            _Write(each["request"]["url"], each["resource"], each["request"], each["fullUrl"])
            for each in bundle["entry"]
        ]
        answers = self._done(writes)
        failed = next((each for each in answers if each.status >= 400), None)
        if failed is not None:
            return failed
        entries = [
            {
                "response": {
                    "status": f"{each.status} Done",
                    "etag": each.headers["ETag"][3:-1],
                    "location": each.headers["Location"].removeprefix(f"{self.url}/"),
                }
            }
            for each in answers
        ]
        return _json(200, {"resourceType": "Bundle", "type": "transaction-response", "entry": entries})

    def _done(self, writes: list[_Write]) -> list[web.Response]:
        """Do all writes or none; return a response for each, or the refusal."""
        placed: dict[str, str] = {}
        there: set[str] = set()
        for each in writes:
            if each.is_create:
                query = dict(parse_qsl(each.conditions.get("ifNoneExist", "")))
                matches = self._matches(each.path, query) if query else []
                if len(matches) > 1:
                    return [outcome(412, "multiple-matches")]
                self._ids += 1
                place = f"{each.path}/{matches[0]['id'] if matches else self._ids}"
                there |= {place} if matches else set()
                placed[each.full_url] = place
                each.path, each.resource = place, {**each.resource, "id": place.rpartition("/")[2]}
        for each in writes:
            each.resource = referring(each.resource, placed)
        coming = {each.path for each in writes}
        for each in writes:
            refused = self._refused(each, coming)
            if refused is not None:
                return [refused]
        request = f"r{len(self.requests)}"
        return [self._answered(each, request, is_there=each.path in there) for each in writes]

    def _answered(self, each: _Write, request: str, *, is_there: bool) -> web.Response:
        created = each.path not in self.kept
        version = self.kept[each.path].version if is_there else self._write(each.path, each.resource, request)
        return _json(201 if created else 200, None, etag=version, location=f"{self.url}/{each.path}/_history/{version}")

    def _refused(self, write: _Write, coming: set[str]) -> web.Response | None:
        kept, resource, conditions = self.kept.get(write.path), write.resource, write.conditions
        if f"{resource['resourceType']}/{resource['id']}" != write.path or not resource.get("status", "active"):
            return outcome(400, "invalid")
        if kept is None and self.chooses_ids and not write.is_create:
            return outcome(404, "processing")
        if_match = "" if self.careless else conditions.get("ifMatch", "")
        matched = (kept is not None or not self.strict) and if_match == f'W/"{kept.version if kept is not None else 0}"'
        if if_match and not matched:
            return outcome(412 if self.strict else 409, "processing")
        if self.strict and conditions.get("ifNoneMatch") and kept is not None and kept.resource is not None:
            return outcome(412, "processing")
        missing = [place for place in references(resource) - coming if not self._has(place)]
        return outcome(400, "processing") if missing else None

    def _has(self, place: str) -> bool:
        kept = self.kept.get(place)
        return kept is not None and kept.resource is not None

    def _write(self, path: str, resource: Resource, request: str) -> int:
        """Store it and return its version, which changes only with its content."""
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
    match value:
        case {"reference": str(place)}:
            return {place}
        case dict():
            return {place for each in value.values() for place in references(each)}
        case list():
            return {place for each in value for place in references(each)}
    return set()


def outcome(status: int, code: str, *, location: str = "") -> web.Response:
    """An OperationOutcome that quotes health information."""
    issue = {"severity": "error", "code": code, "diagnostics": "HAPI-0000: hunter2 is not known"}
    return _json(status, {"resourceType": "OperationOutcome", "issue": [issue]}, location=location)


def referring(value: Any, places: Mapping[str, str]) -> Any:
    """Resolve references to resources that the transaction creates."""
    match value:
        case {"reference": str(place)} if place in places:
            return {**value, "reference": places[place]}
        case dict():
            return {name: referring(each, places) for name, each in value.items()}
        case list():
            return [referring(each, places) for each in value]
    return value


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


def _json(status: int, body: Resource | None, *, etag: int | None = None, location: str = "") -> web.Response:
    headers = {"ETag": f'W/"{etag}"' if etag is not None else "", "Location": location}
    return web.Response(
        status=status,
        body=None if body is None else json.dumps(body).encode(),
        content_type="application/fhir+json",
        headers={name: each for name, each in headers.items() if each},
    )


@asynccontextmanager
async def a_fake() -> AsyncIterator[FakeFhir]:
    fake = FakeFhir()
    async with an_endpoint(fake.answer) as url:
        fake.url = url
        yield fake
