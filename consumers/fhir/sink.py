"""The FHIR server that resources are written to.

Every write first reads all resources of a prescription, and ends when they match its facts. So it also repairs elements
that others changed or deleted, or that a late request of ours overwrote.

The Provenance of an event shows that it was applied before. The server then has the state of that event or a newer one,
and nothing is written. Otherwise old states would return after a restore of an older database.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import date
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import quote

from prometheus_client import CollectorRegistry, Counter

from bridge.errors import BridgeError, PermanentError, TransientError
from bridge.runtime.logging import log
from bridge.runtime.metrics import NAMESPACE
from consumers.fhir import bundle
from consumers.fhir.bundle import FHIR_JSON, BundleEntry, WriteResult
from consumers.fhir.capability import lacking
from consumers.fhir.elements import Element, Naming, reference
from consumers.fhir.mapping import PROVENANCE, Resource
from consumers.fhir.options import NAME, FhirOptions
from consumers.fhir.token import FileToken, SmartToken, Token, read_key
from consumers.http import HttpClient, HttpReply, RequestMetrics, judge, open_http

_OK, _CREATED, _REDIRECT, _BAD, _UNAUTHORIZED, _NOT_FOUND = 200, 201, 300, 400, 401, 404
_CONFLICT, _GONE, _PRECONDITION, _UNPROCESSABLE = 409, 410, 412, 422
_CONFLICTS = (_CONFLICT, _PRECONDITION)
# Statuses of a write that its OperationOutcome explains.
_EXPLAINED = (_BAD, *_CONFLICTS, _UNPROCESSABLE)
# Retries after a conflict; more conflicts mean that others write the resource all the time.
_AGAIN = 3
# The ping reads this: it never exists, and needs the same permission as every other read.
_NOTHING = "/MedicationRequest/drx-ping"
# Maximum Patients with the same identifier, including replaced ones.
_PATIENTS_MAX = 20
_MATCHES_MAX = 2
_divides, _ESCAPED = re.compile(r"[\\,|$]"), r"\\\g<0>"
# Bytes of a resource with additions of others; our notes alone may have 300 kB.
_RESPONSE_MAX_BYTES = 4 * 1024 * 1024
# The response is not FHIR: the base URL is wrong.
NOT_FHIR = "not_fhir"
_DELETED, _IN_ERROR = "deleted", "entered_in_error"
# Status of an erroneous resource (R4, in all our types but Provenance); it is final, and we never write it.
_FINAL = "entered-in-error"
# The resource must not exist: HAPI's form, and that of HTTP.
_VERSION_0, _NONE = bundle.replaces("0"), MappingProxyType({"ifNoneMatch": "*"})


class FhirMetrics(RequestMetrics):
    """Counts requests, without pings; `http_404` is normal for resources written for the first time."""

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        super().__init__(registry, name=NAME, service=service)
        counter = partial(Counter, labelnames=("service",), namespace=NAMESPACE, registry=registry)
        conflicts = counter("fhir_conflicts", "Writes to a resource with another version than our last one")
        self.conflicts = conflicts.labels(service)
        text = "Events with a change left out, since others deleted the resource or marked it as an error"
        left = Counter("fhir_left_out", text, ("service", "reason"), namespace=NAMESPACE, registry=registry)
        self.left_out = {reason: left.labels(service, reason) for reason in (_DELETED, _IN_ERROR)}


class _Conflict(Exception):  # noqa: N818 - not an error of handlers: it is handled in this module
    """A resource has another version than expected; `status` is the server's response."""

    def __init__(self, status: int) -> None:
        super().__init__()
        self.status = status


class EventOrigin(NamedTuple):
    """Where an event's changes come from."""

    provenance: Resource  # without its targets; written once and never changed
    targets: Collection[str]  # our ids of the resources that the event changes; others that are written are added


class _Current(NamedTuple):
    resource: Mapping[str, Any] | None = None  # None if it does not exist
    id: str = ""  # id on the server; empty if the server has not chosen one yet
    version: str = ""  # of the resource, or of its deletion
    deleted: bool = False


class FhirServer:
    """Writes resources; safe to share among lanes."""

    def __init__(self, http: HttpClient, options: FhirOptions, *, token: Token, metrics: FhirMetrics) -> None:
        self._http = http
        self._options = options
        self._naming: Naming = options.naming()
        self._chooses_ids = options.ids == "server"
        self._token = token
        self._metrics = metrics
        self._base_url = options.base_url.rstrip("/")
        self._absent: Mapping[str, str] = _VERSION_0
        # First resources of prescriptions whose last write got no response: the server may still execute it.
        self._unanswered: set[str] = set()

    async def patient(self, identifier: Mapping[str, str], *, born: date | str | None) -> Element | None:
        """Return a reference to the only active Patient with an identifier, or None; refuse several permanently."""
        wanted = "id,identifier,active,link,birthDate"
        found = await self._search("Patient", "identifier", identifier, f"&_elements={wanted}", most=_PATIENTS_MAX)
        current = [each for each in found if _stands(each) and _has(each, identifier)]
        if len(current) > 1:
            raise PermanentError("multiple_matches")
        if not current:
            return None
        # A FHIR date may be a day, month or year: a less precise one matches.
        birth_date = str(current[0].get("birthDate", ""))
        if born is not None and not str(born).startswith(birth_date):
            raise PermanentError("patient_mismatch")
        return reference("Patient", current[0]["id"])

    async def write(
        self, resources: Sequence[Resource], known: Mapping[str, str], *, source: str, origin: EventOrigin | None = None
    ) -> dict[str, str]:
        """Write resources that differ on the server; return our id of each resource -> its id there.

        `resources` are all of one prescription, each after those it refers to; `known` has the results of earlier
        calls. Raises `TransientError` if the server is unavailable, rejects our credentials, or others keep changing
        the resources; `PermanentError` if it refuses a resource or has another patient.
        """
        if not resources:
            return {}
        first, ids, refused = resources[0].id, dict(known), set[str]()
        late = first in self._unanswered
        for attempt in range(1 + _AGAIN):
            current = await self._look([*resources, *([origin.provenance] if origin else [])], {**known, **ids})
            ids = {each: state.id for each, state in current.items() if state.resource is not None}
            if refused and not refused & ids.keys():
                self._absent = _NONE
            left = self._left(resources, current)
            kept = [each for each in resources if each.id not in left]
            if origin is not None and origin.provenance.id in ids:
                if not attempt:
                    break
                origin = None
            places = self._places(resources, ids)
            entries = self._entries(kept, current, places, source=source)
            entries += self._provenance(origin, kept, entries, places, source=source)
            if not entries:
                break
            self._unanswered.add(first)
            try:
                await self._put(entries, ids)
            except _Conflict as conflict:
                self._metrics.conflicts.inc()
                created = {each.resource.id for each in entries if each.condition is _VERSION_0}
                refused = created if conflict.status == _PRECONDITION else set()
                continue
            if not late:
                break
            late = False  # read once more: the unanswered write may have been executed since
        else:
            raise TransientError("conflict")
        self._unanswered.discard(first)
        self._report(left, current)
        return {each.id: ids[each.id] for each in kept if each.id in ids}

    async def ping(self) -> None:
        """Read a resource that does not exist, with our token; the response shows whether the server speaks FHIR."""
        accept = {"accept": FHIR_JSON}
        response = await self._authorized("GET", _NOTHING, headers=accept, also=(_BAD, _NOT_FOUND, _GONE))
        if response.status >= _REDIRECT and not bundle.is_outcome(response.body):
            raise TransientError(NOT_FHIR, systemic=True)

    async def lacks(self) -> list[str]:
        """Return the needed capabilities that the server's CapabilityStatement does not name."""
        try:
            statement = bundle.parsed((await self._request("GET", "/metadata")).body)
        except BridgeError as exc:
            return [f"/metadata, its CapabilityStatement: {exc.code}"]
        searches, bundles = self._options.references == "search", self._options.bundle
        return lacking(statement, chooses_ids=self._chooses_ids, transactions=bundles, searches=searches)

    async def _look(self, resources: Sequence[Resource], ids: Mapping[str, str]) -> dict[str, _Current]:
        found = await asyncio.gather(*(self._read(each, ids.get(each.id, "")) for each in resources))
        return {each.id: state for each, state in zip(resources, found, strict=True)}

    async def _read(self, resource: Resource, place: str) -> _Current:
        """Read the current state of a resource; `place` is its last known id on the server."""
        place = place if self._chooses_ids else resource.id
        if place:
            response = await self._request("GET", f"/{resource.type}/{place}", also=(_NOT_FOUND, _GONE))
            if response.status == _NOT_FOUND and not bundle.is_outcome(response.body):
                raise TransientError(NOT_FHIR, systemic=True)
            if response.status == _OK:
                found = bundle.parsed(response.body)
                if (found["resourceType"], found.get("id")) != (resource.type, place):
                    raise PermanentError("answer_unreadable")
                version = bundle.version_of(response.headers.get("etag")) or found.get("meta", {}).get("versionId", "")
                return _Current(found, place, version)
            deleted = response.status == _GONE
            if not self._chooses_ids or (deleted and self._options.deleted == "skip"):
                return _Current(None, place, bundle.version_in(response.headers.get("location")), deleted)
        named = self._named(resource)
        if resource.type == PROVENANCE:  # it has no identifier
            matches = [
                each
                for each in await self._search(PROVENANCE, "_tag", named)
                if _tag(named) in each.get("meta", {}).get("tag", ())
            ]
        else:
            matches = [each for each in await self._search(resource.type, "identifier", named) if _has(each, named)]
            if len(matches) > 1:
                raise PermanentError("multiple_matches")
        if not matches:
            return _Current()
        return _Current(matches[0], matches[0]["id"], matches[0].get("meta", {}).get("versionId", ""))

    async def _search(
        self, resource_type: str, name: str, token: Mapping[str, str], more: str = "", *, most: int = _MATCHES_MAX
    ) -> list[dict[str, Any]]:
        response = await self._request(
            "GET",
            f"/{resource_type}?{_query(name, token)}{more}&_count={most + 1}",
            headers={"cache-control": "no-cache"},  # HAPI caches search results for a minute
        )
        found = [each.get("resource", {}) for each in bundle.parsed(response.body).get("entry", ())]
        if len(found) > most:
            raise PermanentError("multiple_matches")
        return [each for each in found if each.get("resourceType") == resource_type]

    def _left(self, resources: Sequence[Resource], current: Mapping[str, _Current]) -> dict[str, str]:
        """Return the id of each resource not to write -> why; also of those that refer to a deleted one."""
        left: dict[str, str] = {}
        gone: set[str] = set()
        for each in resources:
            state = current[each.id]
            if state.resource is not None and state.resource.get("status") == _FINAL:
                left[each.id] = _IN_ERROR
            elif self._options.deleted == "skip" and (state.deleted or gone & bundle.referred(each.elements)):
                left[each.id] = _DELETED
                gone.add(f"{each.type}/{each.id}")
        return left

    def _report(self, left: Mapping[str, str], current: Mapping[str, _Current]) -> None:
        """Count the event once for each reason, and name the resources that it could not change."""
        for reason in set(left.values()):
            self._metrics.left_out[reason].inc()
        for each, reason in left.items():
            log.warning("worker.resource_left_out", code=reason, resource=current[each].id)

    def _entries(
        self,
        resources: Sequence[Resource],
        current: Mapping[str, _Current],
        places: Mapping[str, str],
        *,
        source: str,
    ) -> list[BundleEntry]:
        entries: list[BundleEntry] = []
        for each in resources:
            state = current[each.id]
            placed = self._placed(each, state.id, places)
            if state.resource is None:
                if not each.partial:
                    condition = bundle.replaces(state.version) or self._creates("identifier", each)
                    entries.append(BundleEntry(each, bundle.composed(placed, {}, source=source), condition))
                continue
            if bundle.another_person(placed, state.resource):
                raise PermanentError("patient_mismatch")
            others = bundle.foreign(state.resource, self._naming)
            body = (
                bundle.patched(placed, state.resource)
                if each.partial
                else bundle.composed(placed, others, source=source)
            )
            if not bundle.same(body, state.resource):
                entries.append(BundleEntry(each, body, bundle.replaces(state.version)))
        return entries

    def _provenance(
        self,
        origin: EventOrigin | None,
        resources: Sequence[Resource],
        entries: Sequence[BundleEntry],
        places: Mapping[str, str],
        *,
        source: str,
    ) -> list[BundleEntry]:
        """Return the write of the Provenance; none if nothing changed."""
        if origin is None:
            return []
        ours, changed = origin.provenance, {*origin.targets, *(each.resource.id for each in entries)}
        targets = [reference(each.type, each.id) for each in resources if each.id in changed]
        if not targets:
            return []
        whole = ours._replace(elements={"target": targets, **ours.elements})
        placed = self._placed(whole, "" if self._chooses_ids else ours.id, places)
        body = bundle.composed(placed, {}, source=source)
        if self._chooses_ids:
            body["meta"]["tag"] = [_tag(self._named(ours))]
        return [BundleEntry(whole, body, self._creates("_tag", ours))]

    def _creates(self, name: str, resource: Resource) -> Mapping[str, str]:
        """Return the condition that a resource does not exist; `name` is the search parameter that finds it."""
        return {"ifNoneExist": _query(name, self._named(resource))} if self._chooses_ids else self._absent

    def _named(self, resource: Resource) -> dict[str, str]:
        return {"system": self._naming.system("resource"), "value": resource.id}

    def _places(self, resources: Sequence[Resource], ids: Mapping[str, str]) -> dict[str, str]:
        """Return our references -> those on the server, or temporary ones for resources to be created."""
        return {
            f"{each.type}/{each.id}": f"{each.type}/{ids[each.id]}" if each.id in ids else bundle.urn(each)
            for each in resources
        }

    def _placed(self, resource: Resource, place: str, places: Mapping[str, str]) -> Resource:
        """Return a resource with the references of the server and the identifier that finds it there."""
        if not self._chooses_ids:
            return resource
        elements = bundle.located(resource.elements, places)
        if not resource.partial and resource.type != PROVENANCE:
            elements["identifier"] = [*elements.get("identifier", ()), self._named(resource)]
        return resource._replace(id=place, elements=elements)

    async def _put(self, entries: Sequence[BundleEntry], ids: dict[str, str]) -> None:
        """Write the entries and add their ids on the server to `ids`."""
        if self._options.bundle:
            response = await self._request("POST", "", bundle.transaction(entries, self._base_url), also=_EXPLAINED)
            _judge(response.status, response.body)
            for entry, outcome in zip(entries, bundle.outcomes(response.body, len(entries)), strict=True):
                _settle(entry, outcome, ids)
            return
        created: dict[str, str] = {}
        for entry in entries:
            body = bundle.encoded(bundle.located(entry.body, created))
            response = await self._request(entry.method, f"/{entry.url}", body, headers=entry.headers, also=_EXPLAINED)
            given_id = bundle.id_in(response.headers.get("location"))
            _settle(entry, WriteResult(response.status, response.body, given_id), ids)
            created[bundle.urn(entry.resource)] = f"{entry.resource.type}/{ids[entry.resource.id]}"

    async def _request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        also: Sequence[int] = (),
    ) -> HttpReply:
        named = {
            "accept": FHIR_JSON,
            "prefer": "return=minimal",
            **({"content-type": FHIR_JSON} if body else {}),
            **(headers or {}),
        }
        with self._metrics.timed() as timed:
            response = await self._authorized(method, path, body, headers=named, also=also)
            timed.answered(response.status)
        return response

    async def _authorized(
        self, method: str, path: str, body: bytes = b"", *, headers: Mapping[str, str], also: Sequence[int]
    ) -> HttpReply:
        """Send a request with our token; repeat it once with a new token after a 401."""
        token = await self._token.headers()
        once = (*also, _UNAUTHORIZED)
        response = await self._http.request(method, path, body, headers={**headers, **token}, also=once)
        if response.status == _UNAUTHORIZED and self._token.forget():
            token = await self._token.headers()
            response = await self._http.request(method, path, body, headers={**headers, **token}, also=also)
        elif response.status == _UNAUTHORIZED:
            judge(response.status)
        return response


def _judge(status: int, body: bytes) -> None:
    """Raise the error that a status means, of a request or of one entry."""
    if _OK <= status < _REDIRECT:
        return
    code = bundle.refusal(body)
    if code == "multiple_matches":
        raise PermanentError(code)
    if not status or status in _CONFLICTS:
        raise _Conflict(status)
    if status in _EXPLAINED:
        raise PermanentError(code)
    judge(status)


def _settle(entry: BundleEntry, outcome: WriteResult, ids: dict[str, str]) -> None:
    """Record the id of a written resource on the server."""
    _judge(outcome.status, outcome.body)
    place = entry.body.get("id") or outcome.id
    # A resource that existed already was not written.
    if "id" not in entry.body and entry.resource.type != PROVENANCE and (outcome.status != _CREATED or not place):
        raise _Conflict(outcome.status)
    ids[entry.resource.id] = place


def _query(name: str, token: Mapping[str, str]) -> str:
    """Return a search for a token (FHIR R4, "Search", "Escaping Search Parameters")."""
    return f"{name}={quote('|'.join(_divides.sub(_ESCAPED, token[part]) for part in ('system', 'value')), safe='')}"


def _has(resource: Mapping[str, Any], identifier: Mapping[str, str]) -> bool:
    """Return whether a resource has an identifier; some servers unescape differently and find others."""
    return any(
        (each.get("system"), each.get("value")) == (identifier["system"], identifier["value"])
        and each.get("use") != "old"
        for each in resource.get("identifier", ())
    )


def _tag(identifier: Mapping[str, str]) -> dict[str, str]:
    return {"system": identifier["system"], "code": identifier["value"]}


def _stands(patient: Mapping[str, Any]) -> bool:
    """Return whether a Patient is active and not replaced by another."""
    replaced = any(each.get("type") == "replaced-by" for each in patient.get("link", ()))
    return patient.get("active") is not False and not replaced


@asynccontextmanager
async def open_server(options: FhirOptions, metrics: FhirMetrics) -> AsyncIterator[FhirServer]:
    """Open the session; `ConfigError` if a URL or a file cannot be used."""
    async with AsyncExitStack() as stack:
        token = await stack.enter_async_context(_open_token(options))
        http = await stack.enter_async_context(
            open_http(
                options.base_url,
                # A first write reads several resources at once; one more is for the ping.
                connections=2 * options.lanes + 1,
                response_max_bytes=_RESPONSE_MAX_BYTES,
                **options.session(NAME),
            )
        )
        yield FhirServer(http, options, token=token, metrics=metrics)


@asynccontextmanager
async def _open_token(options: FhirOptions) -> AsyncIterator[Token]:
    if options.smart_key_file is None:
        yield FileToken(options.token_file)
        return
    key = read_key(options.smart_key_file)
    async with open_http(options.smart_token_url, connections=1, **options.session(NAME)) as http:
        yield SmartToken(http, options, key=key)
