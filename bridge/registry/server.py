"""The embedded schema registry: Confluent's REST API over the lock, for development and tests.

It serves every locked schema under its subject, version, id and GUID, and takes the schemas of others into memory: they
are gone at the next start. Their ids are derived from the schema alone, so a client that registers again after a
restart gets the same id. One schema has one id and one GUID under every subject, whatever its spelling.

What may follow what: a subject has a compatibility level, FULL_TRANSITIVE unless set, which is decided by Apache Avro's
own checker; subjects of the lock obey the stricter `rules.compatibility` besides. Nothing is ever deleted. Only
self-contained Avro is taken: no references, metadata or rule sets, no contexts but the default one.

Every answer is JSON, and every failure `{"error_code", "message"}`, where the first three digits of the code are the
HTTP status: clients stop reading when they meet another shape. An unknown path is a 404 and never a 405 or 501, which
would stop Confluent's clients at `/associations`. A list is paged by `offset` and `limit`. Other parameters of a query
are ignored unless named below.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType  # noqa: TID251 -- a door
from avro.errors import AvroException  # noqa: TID251 -- a door
from avro.schema import Schema as AvroSchema  # noqa: TID251 -- a door
from avro.schema import parse as parse_avro  # noqa: TID251 -- a door

from bridge.errors import BridgeError
from bridge.registry.lock import Lock
from bridge.registry.rules import compatibility, records
from bridge.registry.schemas import NotAvroError, expand, full_form

CONTENT_TYPE: Final = "application/vnd.schemaregistry.v1+json"
# Confluent's own bound on the text of a schema; ours are under 20 KiB.
BODY_MAX_BYTES: Final = 1_048_576
# What the lock's subjects are held to (docs/adr/0003-schema-evolution.md), and any other until its level is set.
LEVEL_DEFAULT: Final = "FULL_TRANSITIVE"
LEVELS: Final = frozenset(
    {"NONE", *(f"{way}{reach}" for way in ("BACKWARD", "FORWARD", "FULL") for reach in ("", "_TRANSITIVE"))}
)
# Ids of the lock are small and count up; ids of other schemas start here, so that no later release's lock meets one.
# The upper end is the largest signed 32-bit integer: the wire format has four bytes and Java reads them signed.
FOREIGN_ID_FIRST: Final = 2**30
FOREIGN_ID_COUNT: Final = 2**30

# Of an id and of a version: the bound that Confluent's message names.
_INT_MAX: Final = 2**31 - 1
_INVALID_VERSION: Final = (
    'The specified version is not a valid version id. Allowed values are between [1, 2^31-1] and the string "latest"'
)
# Avro has no references of its own and clients differ in resolving them; rules and metadata would be promises that
# nothing here keeps. Each is refused when it says something, and ignored when it is null or empty.
_UNSUPPORTED: Final = ("references", "metadata", "ruleSet")
_FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class RegistryFaultError(BridgeError):
    """A request that cannot be met."""

    code = "registry_fault"

    def __init__(self, error_code: int, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code
        self.message = message


@dataclass(frozen=True, slots=True)
class Parsed:
    """A valid schema.

    Attributes:
        value: JSON value of its text.
        form: The same for every text that says this schema.
        avro: The same as Avro's checker takes it.
    """

    value: Any
    form: str
    avro: AvroSchema


# Clients ask for the same few again and again, and one takes 5 ms; the lock has 21.
@lru_cache(maxsize=64)
def parse(text: str) -> Parsed:
    """Return the schema that a text says; RegistryFaultError 42201 if it is no valid self-contained Avro schema."""
    try:
        text.encode()  # ids are made from these bytes; a lone surrogate is no text
        value = json.loads(text)
        form = full_form(value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about logical types that the library does not know
            avro = parse_avro(form)
        # What Avro's library lets pass: names of fields, and defaults, which fastavro checks.
        names = [each["name"] for _, record in records(expand(value)) for each in record["fields"]]
        valid = all(map(_FIELD_NAME.fullmatch, names)) and not compatibility(value, [])
    except (AvroException, NotAvroError, ValueError, TypeError, AttributeError, KeyError, RecursionError):
        valid = False
    if not valid:
        raise RegistryFaultError(42201, "Invalid schema: no valid self-contained Avro schema")
    return Parsed(value, form, avro)


def unreadable(reader: Parsed, writer: Parsed) -> list[str]:
    """Say what of the writer's schema the reader's cannot read; empty when it reads all (Avro, "Schema Resolution")."""
    checker = ReaderWriterCompatibilityChecker()  # type: ignore[no-untyped-call]  # avro types half of itself
    found = checker.get_compatibility(reader.avro, writer.avro)
    if found.compatibility is SchemaCompatibilityType.compatible:
        return []
    places = (_path(location, json.loads(reader.form)) for location in sorted(found.locations))
    return [f"{', '.join(places)}: {', '.join(sorted(found.messages))}"]


def _path(location: str, schema: Any) -> str:
    """Turn Avro's `/fields/0/type` into the path of a field by its name, as in our own findings."""
    names = []
    for step in filter(None, location.split("/")):
        if isinstance(schema, list) and step.isdigit():
            # Into a union the step counts the writer's branches, of which there may be more.
            schema = schema[int(step)] if int(step) < len(schema) else None
            names += [schema["name"]] if isinstance(schema, dict) and "name" in schema else []
        else:
            schema = schema.get(step) if isinstance(schema, dict) else None
    return ".".join(names) or "the schema"


@dataclass(frozen=True, slots=True)
class Registration:
    """One schema as one version of one subject; versions count from 1 within the subject."""

    subject: str
    version: int
    id: int
    guid: str
    text: str = field(repr=False)
    schema: Parsed = field(repr=False)

    def row(self) -> dict[str, object]:
        """As answers show it; `schemaType` and `references` are left out, as for any Avro schema without them."""
        return {
            "subject": self.subject,
            "version": self.version,
            "id": self.id,
            "guid": self.guid,
            "schema": self.text,
        }


class EmbeddedRegistry:
    """Subjects, versions, ids and compatibility levels."""

    def __init__(self, lock: Lock, *, read_only: bool = False) -> None:
        """Hold what is locked; a read-only registry answers what it knows and takes nothing new."""
        self.read_only = read_only
        self._subjects: dict[str, list[Registration]] = {}
        self._levels: dict[str, str] = {}
        for entry in lock.entries:
            text = json.dumps(entry.schema, separators=(",", ":"))
            self._add(Registration(entry.subject, entry.version, entry.id, entry.guid, text, parse(text)))
        self._locked = frozenset(self._subjects)

    def subjects(self) -> list[str]:
        """Names of all subjects, sorted."""
        return sorted(self._subjects)

    def versions(self, subject: str) -> Sequence[Registration]:
        """All versions of a subject, oldest first; RegistryFaultError 40401 when there is none."""
        if subject not in self._subjects:
            raise RegistryFaultError(40401, f"Subject '{subject}' not found.")
        return self._subjects[subject]

    def version(self, subject: str, version: int | None) -> Registration:
        """One version of a subject, or its latest for None; RegistryFaultError 40401 or 40402."""
        versions = self.versions(subject)
        if version is None:
            return versions[-1]
        for each in versions:
            if each.version == version:
                return each
        raise RegistryFaultError(40402, f"Version {version} not found.")

    def holders(self, schema_id: int) -> list[Registration]:
        """Every registration of the schema that has this id; RegistryFaultError 40403."""
        return self._registered(lambda each: each.id == schema_id, f"Schema {schema_id} not found")

    def by_guid(self, guid: str) -> Registration:
        """The first registration of a GUID; RegistryFaultError 40403."""
        return self._registered(lambda each: each.guid == guid.lower(), "Schema not found")[0]

    def find(self, subject: str, text: str) -> Registration:
        """The version of a subject that says the same schema; RegistryFaultError 40401, 40403 or 42201."""
        versions, form = self.versions(subject), parse(text).form
        for each in versions:
            if each.schema.form == form:
                return each
        raise RegistryFaultError(40403, "Schema not found")

    def level(self, subject: str | None = None, *, inherit: bool = True) -> str:
        """Level of a subject, or the one for all; RegistryFaultError 40408 if it has none and may not inherit it."""
        own = self._levels.get(subject or "", LEVEL_DEFAULT if not subject or subject in self._locked else None)
        if own is None and not inherit:
            raise RegistryFaultError(40408, f"Subject '{subject}' does not have subject-level compatibility configured")
        return own or self.level()

    def set_level(self, subject: str | None, level: str) -> str:
        """Set a level; RegistryFaultError 42203 for no level, 42205 when read-only."""
        if level.upper() not in LEVELS:
            known = ", ".join(sorted(LEVELS))
            raise RegistryFaultError(42203, f"Invalid compatibility level. Valid values are {known}")
        self._refuse_when_read_only()
        self._levels[subject or ""] = level.upper()
        return level.upper()

    def incompatibilities(self, subject: str, text: str, against: Sequence[Registration] | None = None) -> list[str]:
        """Say why a schema may not follow versions of a subject under its level; empty when it may.

        Args:
            subject: It need not exist.
            text: Of the new schema; RegistryFaultError 42201 if it is none.
            against: By default all versions of the subject, or the latest alone if the level is not transitive.
        """
        new, level = parse(text), self.level(subject)
        if against is None:
            against = self._subjects.get(subject, [])[0 if level.endswith("_TRANSITIVE") else -1 :]
        olds = [each.schema for each in against if each.schema.form != new.form]
        if level == "NONE":
            return []
        reasons: list[str] = []
        if subject in self._locked:
            reasons += map(str, compatibility(new.value, [old.value for old in olds]))
        for old in olds:
            if not level.startswith("FORWARD"):
                reasons += [f"the new schema cannot read the old: {reason}" for reason in unreadable(new, old)]
            if not level.startswith("BACKWARD"):
                reasons += [f"the old schema cannot read the new: {reason}" for reason in unreadable(old, new)]
        return list(dict.fromkeys(reasons))

    def register(self, subject: str, text: str) -> Registration:
        """Return the version that says the same schema, or append one.

        Raises:
            RegistryFaultError: 42201 no schema, 40901 not compatible, 42205 unknown and read-only.
        """
        schema, earlier = parse(text), self._subjects.get(subject, [])
        for each in earlier:
            if each.schema.form == schema.form:
                return each
        self._refuse_when_read_only()
        reasons = self.incompatibilities(subject, text)
        if reasons:
            said = f"Schema being registered is incompatible with an earlier schema for subject '{subject}', details: "
            raise RegistryFaultError(40901, said + "; ".join(reasons))
        same = next((each for each in self._all() if each.schema.form == schema.form), None)
        schema_id = same.id if same else self._free_id(schema.form)
        guid = same.guid if same else str(uuid.uuid5(uuid.NAMESPACE_OID, schema.form))
        registration = Registration(subject, len(earlier) + 1, schema_id, guid, text, schema)
        self._add(registration)
        return registration

    def _free_id(self, form: str) -> int:
        """Derive an id from the schema alone, so that registries that never met agree; step on past a collision."""
        taken = {each.id for each in self._all()}
        offset = int.from_bytes(hashlib.sha256(form.encode()).digest()[:4]) % FOREIGN_ID_COUNT
        while FOREIGN_ID_FIRST + offset in taken:
            offset = (offset + 1) % FOREIGN_ID_COUNT
        return FOREIGN_ID_FIRST + offset

    def _refuse_when_read_only(self) -> None:
        if self.read_only:
            raise RegistryFaultError(42205, "This registry is read-only; its schemas come with the release.")

    def _add(self, registration: Registration) -> None:
        self._subjects.setdefault(registration.subject, []).append(registration)

    def _all(self) -> Iterator[Registration]:
        return (each for subject in self.subjects() for each in self._subjects[subject])

    def _registered(self, wanted: Callable[[Registration], bool], missing: str) -> list[Registration]:
        found = [each for each in self._all() if wanted(each)]
        if not found:
            raise RegistryFaultError(40403, missing)
        return found


@dataclass(frozen=True, slots=True)
class Call:
    """One request: what its path, query and body say."""

    request: web.Request
    body: Mapping[str, Any]

    @property
    def subject(self) -> str:
        """Of the path."""
        return self.request.match_info["subject"]

    @property
    def subject_or_all(self) -> str | None:
        """Of the path; None where it names none, which means all."""
        return self.request.match_info.get("subject")

    @property
    def version(self) -> int | None:
        """Of the path, None for the latest; RegistryFaultError 42202."""
        text = self.request.match_info["version"]
        if text.lower() in ("latest", "-1"):
            return None
        number = _natural(text)
        if not number:
            raise RegistryFaultError(42202, _INVALID_VERSION)
        return number

    @property
    def schema_id(self) -> int:
        """Of the path; what is no number is no path of ours."""
        number = _natural(self.request.match_info["id"])
        if number is None:
            raise web.HTTPNotFound
        return number

    @property
    def text(self) -> str:
        """Of the Avro schema in the body; RegistryFaultError 42201 for any other kind."""
        if (self.body.get("schemaType") or "AVRO") != "AVRO":
            raise RegistryFaultError(42201, "Invalid schema type; this registry takes AVRO.")
        for name in _UNSUPPORTED:
            if self.body.get(name):
                raise RegistryFaultError(42201, f"Invalid schema: {name} is not supported; write the types out.")
        text = self.body.get("schema")
        if not isinstance(text, str) or not text.strip():
            raise RegistryFaultError(42201, "Empty schema")
        return text

    def flag(self, name: str) -> bool:
        """Of the query; clients write `true`, `True`, or nothing after the `=`."""
        return self.request.query.get(name, "").lower() == "true"

    def number(self, name: str, default: int) -> int:
        """Of the query."""
        try:
            return int(self.request.query[name])
        except (KeyError, ValueError):
            return default


def _natural(text: str) -> int | None:
    """Return a number from 0 to the largest there is, in ASCII digits; None for anything else."""
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_INT_MAX))) or int(text) > _INT_MAX:
        return None
    return int(text)


def _subjects(registry: EmbeddedRegistry, call: Call) -> object:
    # `:*:` is all contexts and `:.:` the default one; there is no other.
    prefix = call.request.query.get("subjectPrefix", "").removeprefix(":*:").removeprefix(":.:")
    return [name for name in registry.subjects() if name.startswith(prefix)]


def _by_id(registry: EmbeddedRegistry, call: Call) -> object:
    """Show the schema of an id as `subject` has it; a subject that does not is ignored, as clients send a guess."""
    holders, wanted = registry.holders(call.schema_id), call.request.query.get("subject")
    return next((each for each in holders if each.subject == wanted), holders[0]).row()


def _referenced_by(registry: EmbeddedRegistry, call: Call) -> object:
    """Nothing refers to a schema here, since references are refused."""
    registry.version(call.subject, call.version)
    return []


def _register(registry: EmbeddedRegistry, call: Call) -> object:
    if call.body.get("id") not in (None, -1):
        raise RegistryFaultError(42205, "Subject is not in import mode; the registry chooses the id.")
    return registry.register(call.subject, call.text).row()


def _compatible_with_one(registry: EmbeddedRegistry, call: Call) -> object:
    """Anything may follow the latest version of a subject that does not exist."""
    version = call.version
    if version is None and call.subject not in registry.subjects():
        return _compatible(registry, call, [])
    return _compatible(registry, call, [registry.version(call.subject, version)])


def _compatible(registry: EmbeddedRegistry, call: Call, against: Sequence[Registration] | None = None) -> object:
    reasons = registry.incompatibilities(call.subject, call.text, against)
    return {"is_compatible": not reasons, **({"messages": reasons} if call.flag("verbose") else {})}


def _level(registry: EmbeddedRegistry, call: Call) -> object:
    return {"compatibilityLevel": registry.level(call.subject_or_all, inherit=call.flag("defaultToGlobal"))}


def _set_level(registry: EmbeddedRegistry, call: Call) -> object:
    return {"compatibility": registry.set_level(call.subject_or_all, str(call.body.get("compatibility") or ""))}


def _mode(registry: EmbeddedRegistry, _call: Call) -> object:
    """A subject has no mode of its own."""
    return {"mode": "READONLY" if registry.read_only else "READWRITE"}


# Method and path -> what is shown: a text as it is, all else as JSON.
_ROUTES: Final[Mapping[tuple[str, str], Callable[[EmbeddedRegistry, Call], object]]] = {
    ("GET", "/"): lambda _registry, _call: {},
    ("GET", "/subjects"): _subjects,
    ("POST", "/subjects/{subject}"): lambda registry, call: registry.find(call.subject, call.text).row(),
    ("GET", "/subjects/{subject}/versions"): lambda registry, call: [
        each.version for each in registry.versions(call.subject)
    ],
    ("POST", "/subjects/{subject}/versions"): _register,
    ("GET", "/subjects/{subject}/versions/{version}"): lambda registry, call: registry.version(
        call.subject, call.version
    ).row(),
    ("GET", "/subjects/{subject}/versions/{version}/schema"): lambda registry, call: (
        registry.version(call.subject, call.version).text
    ),
    ("GET", "/subjects/{subject}/versions/{version}/referencedby"): _referenced_by,
    ("GET", "/schemas/types"): lambda _registry, _call: ["AVRO"],
    ("GET", "/schemas/ids/{id}"): _by_id,
    ("GET", "/schemas/ids/{id}/schema"): lambda registry, call: registry.holders(call.schema_id)[0].text,
    ("GET", "/schemas/ids/{id}/subjects"): lambda registry, call: [
        each.subject for each in registry.holders(call.schema_id)
    ],
    ("GET", "/schemas/ids/{id}/versions"): lambda registry, call: [
        {"subject": each.subject, "version": each.version} for each in registry.holders(call.schema_id)
    ],
    ("GET", "/schemas/guids/{guid}"): lambda registry, call: registry.by_guid(call.request.match_info["guid"]).row(),
    ("POST", "/compatibility/subjects/{subject}/versions"): _compatible,
    ("POST", "/compatibility/subjects/{subject}/versions/{version}"): _compatible_with_one,
    ("GET", "/config"): _level,
    ("PUT", "/config"): _set_level,
    ("GET", "/config/{subject}"): _level,
    ("PUT", "/config/{subject}"): _set_level,
    ("GET", "/mode"): _mode,
    ("GET", "/mode/{subject}"): _mode,
    ("GET", "/contexts"): lambda _registry, _call: ["."],
}


def registry_app(registry: EmbeddedRegistry) -> web.Application:
    """Serve a registry; the caller owns the application's port and its end."""
    app = web.Application(middlewares=[_failures_as_json], client_max_size=BODY_MAX_BYTES)
    for (method, path), show in _ROUTES.items():
        add = app.router.add_get if method == "GET" else partial(app.router.add_route, method)
        add(path, partial(_answer, registry, show))
    return app


async def _answer(
    registry: EmbeddedRegistry, show: Callable[[EmbeddedRegistry, Call], object], request: web.Request
) -> web.StreamResponse:
    call = Call(request, await _body(request) if request.method in ("POST", "PUT") else {})
    shown = show(registry, call)
    if isinstance(shown, list):
        start, limit = max(call.number("offset", 0), 0), call.number("limit", -1)
        shown = shown[start:] if limit < 0 else shown[start : start + limit]
    return web.Response(text=shown if isinstance(shown, str) else json.dumps(shown), content_type=CONTENT_TYPE)


async def _body(request: web.Request) -> dict[str, Any]:
    """Read a JSON object, whatever the content type says."""
    try:
        document = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise RegistryFaultError(400, "The body is not JSON.") from None
    if not isinstance(document, dict):
        raise RegistryFaultError(400, "The body is not a JSON object.")
    return document


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


def _failure(error_code: int, message: str, headers: Mapping[str, str] | None = None) -> web.Response:
    body = json.dumps({"error_code": error_code, "message": message})
    return web.Response(status=int(str(error_code)[:3]), text=body, content_type=CONTENT_TYPE, headers=headers)
