"""The FHIR server that resources are written to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import quote

from bridge.errors import BridgeError, PermanentError, TransientError
from consumers.fhir.bundle import (
    FHIR_JSON,
    Entry,
    composed,
    encoded,
    foreign,
    has_digits,
    is_outcome,
    owned_sha256,
    parsed,
    patched,
    refusal,
    same,
    transaction,
    version_of,
    versions,
)
from consumers.fhir.elements import Element, Naming
from consumers.fhir.mapping import PROVENANCE, Resource
from consumers.fhir.metrics import FhirMetrics
from consumers.fhir.options import NAME, FhirOptions
from consumers.fhir.token import FileToken, SmartToken, Token, read_key
from consumers.http import Answer, Http, judge, open_http
from consumers.options import variable

_REDIRECT, _BAD, _UNAUTHORIZED, _NOT_FOUND, _GONE, _UNPROCESSABLE = 300, 400, 401, 404, 410, 422
_CONFLICTS = (409, 412)
# After the first attempt; a resource that changes faster than this is written to by others all the time.
_AGAIN = 3
# What the ping asks for: never there, and with the same right as everything else that is read.
_NOTHING = "/MedicationRequest/drx-ping"
_MATCHES_MAX = 2
_divides = re.compile(r"[\\,|$]")
# A resource with what others have added to it; notes of ours alone may have 300 kB.
_ANSWER_MAX_BYTES = 4 * 1024 * 1024
# The answer is none of FHIR: the base URL leads somewhere else.
NOT_FHIR = "not_fhir"


class _Conflict(Exception):  # noqa: N818 - no error of a handler: it ends in here
    """A resource is not the version that it was thought to be."""


class Written(NamedTuple):
    """A resource as last written, or as found to say the same already.

    Attributes:
        version: What the server calls it; empty if it has to be read before the next write.
        sha256: Of our elements.
        others: What others say in it.
    """

    version: str
    sha256: str
    others: Element


class _Current(NamedTuple):
    """What is at a place: None if nothing ever was, and a deleted resource has nothing to keep."""

    resource: Mapping[str, Any] | None = None
    version: str = ""
    deleted: bool = False


class FhirServer:
    """Writes resources; safe to share among lanes."""

    def __init__(self, http: Http, options: FhirOptions, *, token: Token, metrics: FhirMetrics) -> None:
        self._http = http
        self._options = options
        self._naming: Naming = options.naming
        self._token = token
        self._metrics = metrics

    async def patient(self, identifier: Mapping[str, str]) -> Element | None:
        """Return a reference to the one Patient with an identifier; None if there is none.

        Raises:
            PermanentError: There are several.
            TransientError: As `write`.
        """
        asked = quote(f"{_escaped(identifier['system'])}|{_escaped(identifier['value'])}", safe="")
        answer = await self._request(
            "GET",
            f"/Patient?identifier={asked}&_elements=id,identifier&_count={_MATCHES_MAX}",
            headers={"cache-control": "no-cache"},  # HAPI keeps what a search has found for a minute
        )
        found = [
            each["resource"]["id"]
            for each in parsed(answer.body).get("entry", ())
            # A server that reads the escapes in another way may have found somebody else.
            if each.get("resource", {}).get("resourceType") == "Patient" and _has(each["resource"], identifier)
        ]
        if len(found) > 1:
            raise PermanentError("multiple_matches")
        return {"reference": f"Patient/{found[0]}"} if found else None

    async def write(
        self, resources: Sequence[Resource], known: Mapping[str, Written], *, source: str
    ) -> dict[str, Written] | None:
        """Write what is not as it was last written; return each resource that was, by its id.

        Args:
            resources: Each after what it refers to.
            known: As last written, by id.
            source: Where they come from.

        Returns:
            None where one was deleted by somebody and `deleted` is `skip`.

        Raises:
            TransientError: The server is away, refuses us, or others change the resources all the time.
            PermanentError: It does not take them.
        """
        changed = [each for each in resources if each.id not in known or known[each.id].sha256 != owned_sha256(each)]
        current: dict[str, _Current | Written] = {
            each.id: known[each.id]
            for each in changed
            if each.id in known and known[each.id].version and not each.partial
        }
        done: dict[str, Written] = {}
        for _ in range(1 + _AGAIN):
            await self._look(changed, current)
            if self._options.deleted == "skip" and any(
                isinstance(each, _Current) and each.deleted for each in current.values()
            ):
                self._metrics.deleted.inc()
                return None
            entries = self._entries(changed, current, done, source=source)
            try:
                found = await self._put(entries)
            except _Conflict:
                self._metrics.conflicts.inc()
                current.clear()
                done.clear()
                continue
            for entry, version in zip(entries, found, strict=True):
                if entry.resource.type != PROVENANCE:
                    done[entry.resource.id] = self._written(entry, version, current)
            return done
        raise TransientError("conflict")

    async def ping(self) -> None:
        """Ask for a resource that is not there, with our token.

        Raises:
            TransientError: The server is away, refuses us, or is no FHIR server.
        """
        answer = await self._authorized("GET", _NOTHING, headers={"accept": FHIR_JSON}, also=(_BAD, _NOT_FOUND, _GONE))
        if answer.status >= _REDIRECT and not is_outcome(answer.body):
            raise TransientError(NOT_FHIR, systemic=True)

    async def _look(self, resources: Sequence[Resource], current: dict[str, _Current | Written]) -> None:
        """Read what is not known."""
        unknown = [each for each in resources if each.id not in current and each.type != PROVENANCE]
        found = await asyncio.gather(*(self._read(each) for each in unknown))
        current.update({each.id: state for each, state in zip(unknown, found, strict=True)})

    async def _read(self, resource: Resource) -> _Current:
        answer = await self._request("GET", f"/{resource.type}/{resource.id}", also=(_NOT_FOUND, _GONE))
        if answer.status == _GONE:
            return _Current(deleted=True)
        if answer.status == _NOT_FOUND:
            if not is_outcome(answer.body):
                raise TransientError(NOT_FHIR, systemic=True)
            return _Current()
        found = parsed(answer.body)
        if (found["resourceType"], found.get("id")) != (resource.type, resource.id):
            raise PermanentError("answer_unreadable")
        return _Current(found, version_of(answer.headers.get("etag")) or found.get("meta", {}).get("versionId", ""))

    def _entries(
        self,
        resources: Sequence[Resource],
        current: Mapping[str, _Current | Written],
        done: dict[str, Written],
        *,
        source: str,
    ) -> list[Entry]:
        """Return what has to be written; what is there already goes to `done`."""
        entries: list[Entry] = []
        for each in resources:
            if each.type == PROVENANCE:
                entries.append(Entry(each, composed(each, {}, source=source)))
                continue
            state = current[each.id]
            if isinstance(state, Written):
                entries.append(Entry(each, composed(each, state.others, source=source), state.version))
                continue
            if state.resource is None:
                if not each.partial:
                    entries.append(Entry(each, composed(each, {}, source=source)))
                continue
            others = foreign(state.resource, self._naming)
            body = patched(each, state.resource) if each.partial else composed(each, others, source=source)
            if same(body, state.resource):
                done[each.id] = _remembered(each, state.version, others)
            else:
                entries.append(Entry(each, body, state.version))
        return entries

    def _written(self, entry: Entry, version: str, current: Mapping[str, _Current | Written]) -> Written:
        state = current[entry.resource.id]
        if isinstance(state, Written):
            others = state.others
        else:
            others = {} if state.resource is None else foreign(state.resource, self._naming)
        return _remembered(entry.resource, version, others)

    async def _put(self, entries: Sequence[Entry]) -> list[str]:
        if not entries:
            return []
        if self._options.bundle:
            answer = await self._request("POST", "", transaction(entries), also=(_BAD, *_CONFLICTS, _UNPROCESSABLE))
            self._judge(answer)
            return versions(answer.body, len(entries))
        found: list[str] = []
        for entry in entries:
            headers = {"if-match": f'W/"{entry.if_match}"'} if entry.if_match else {}
            answer = await self._request(
                "PUT",
                f"/{entry.url}",
                encoded(entry.body),
                headers=headers,
                also=(_BAD, *_CONFLICTS, _UNPROCESSABLE),
            )
            self._judge(answer)
            found.append(version_of(answer.headers.get("etag")))
        return found

    def _judge(self, answer: Answer) -> None:
        if answer.status < _REDIRECT:
            return
        code = refusal(answer.body)
        if code == "multiple_matches":
            raise PermanentError(code)
        if answer.status in _CONFLICTS:
            raise _Conflict
        raise PermanentError(code)

    async def _request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        also: Sequence[int] = (),
    ) -> Answer:
        loop = asyncio.get_running_loop()
        began, code = loop.time(), "cancelled"
        named = {
            "accept": FHIR_JSON,
            "prefer": "return=minimal",
            **({"content-type": FHIR_JSON} if body else {}),
            **(headers or {}),
        }
        try:
            answer = await self._authorized(method, path, body, headers=named, also=also)
            code = "ok" if answer.status < _REDIRECT else f"http_{answer.status}"
        except BridgeError as exc:
            code = exc.code
            raise
        finally:
            self._metrics.requests.observe(code, loop.time() - began)
        return answer

    async def _authorized(
        self, method: str, path: str, body: bytes = b"", *, headers: Mapping[str, str], also: Sequence[int]
    ) -> Answer:
        """Send a request with our token, and once more with a new one where the old one is not taken any more."""
        token = await self._token.headers()
        answer = await self._http.request(method, path, body, headers={**headers, **token}, also=(*also, _UNAUTHORIZED))
        if answer.status == _UNAUTHORIZED and self._token.forget():
            token = await self._token.headers()
            answer = await self._http.request(method, path, body, headers={**headers, **token}, also=also)
        elif answer.status == _UNAUTHORIZED:
            judge(answer.status)
        return answer


def _remembered(resource: Resource, version: str, others: Element) -> Written:
    """Return what is stored; digits of others' decimals would be lost there, so such a resource is read anew."""
    if has_digits(others):
        version, others = "", {}
    return Written(version, owned_sha256(resource), others)


def _escaped(text: str) -> str:
    r"""Write text as a part of a search value, where `,`, `|` and `$` divide.

    Source: FHIR R4, "Search", "Escaping Search Parameters".
    """
    return _divides.sub(r"\\\g<0>", text)


def _has(patient: Mapping[str, Any], identifier: Mapping[str, str]) -> bool:
    return any(
        (each.get("system"), each.get("value")) == (identifier["system"], identifier["value"])
        for each in patient.get("identifier", ())
    )


@asynccontextmanager
async def open_server(options: FhirOptions, metrics: FhirMetrics) -> AsyncIterator[FhirServer]:
    """Open the session.

    Raises:
        ConfigError: A URL or a file cannot be used.
    """
    async with AsyncExitStack() as stack:
        token = await stack.enter_async_context(_open_token(options))
        http = await stack.enter_async_context(
            open_http(
                options.base_url,
                # A first write looks at several places at once; one more is for the ping.
                connections=2 * options.lanes + 1,
                answer_max_bytes=_ANSWER_MAX_BYTES,
                **_connection(options),
            )
        )
        yield FhirServer(http, options, token=token, metrics=metrics)


@asynccontextmanager
async def _open_token(options: FhirOptions) -> AsyncIterator[Token]:
    if options.smart is None:
        yield FileToken(options.token_file)
        return
    url, client, key_file = options.smart
    key = read_key(key_file)
    async with open_http(url, connections=1, **_connection(options)) as http:
        yield SmartToken(http, url=url, client=client, key=key, key_id=options.smart_key_id, scope=options.smart_scope)


def _connection(options: FhirOptions) -> dict[str, Any]:
    return {
        "timeout_s": options.timeout_s,
        "allow_http": options.allow_http,
        "allowed_by": f"{variable(NAME, 'allow_http')}=true",
        "ca_file": options.ca_file,
        "cert_file": options.cert_file,
        "key_file": options.key_file,
    }
