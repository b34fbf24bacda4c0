"""The lock: every schema ever published, with its permanent id.

`schemas.lock.json` is a list of versions in the order of their ids, one attribute per line, so that a diff shows a new
version as an addition. A version is never changed or removed. All its attributes except `version` and `id` are derived
from its schema, and `parse_lock` refuses a file where they do not match. Only `schemas check --lock` writes it.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from bridge.errors import ConfigError
from bridge.registry.schemas import Schema, digest, fingerprint, full_name

NAMESPACE = "drx.v1"

# Default topic of a record (docs/contract.md §4); subjects are named after it.
_TOPIC = "drx.prescriptions.v1"
_TOPICS = {
    f"{NAMESPACE}.PrescriberEnrollmentChanged": "drx.accounts.v1",
    f"{NAMESPACE}.SystemPing": "drx.accounts.v1",
    f"{NAMESPACE}.UnrecognizedDelivery": "drx.unrecognized.v1",
}

_FIRST_ID = 1


@dataclass(frozen=True, slots=True)
class LockedSchema:
    """One version of one record."""

    subject: str  # `<default topic>-<record>`
    version: int  # from 1, per record
    id: int  # unique across all records; never reused
    guid: str  # derived from `digest`, so that it is the same everywhere
    fingerprint: str  # SHA-256 of the parsing canonical form, as computed by Avro libraries
    digest: str  # SHA-256 of the whole schema; the canonical form leaves out logical types, defaults, docs and `phi`
    schema: Schema = field(repr=False, hash=False)  # self-contained

    @property
    def record(self) -> str:
        """Full name of the record."""
        return full_name(self.schema)


@dataclass(frozen=True, slots=True)
class Lock:
    """All locked schemas, in the order of ids."""

    entries: tuple[LockedSchema, ...] = ()

    def latest(self) -> dict[str, LockedSchema]:
        """Return the newest version by full record name."""
        return {entry.record: entry for entry in self.entries}

    def history(self, record: str) -> tuple[LockedSchema, ...]:
        """Return every version of a record, oldest first."""
        return tuple(entry for entry in self.entries if entry.record == record)

    def schemas(self) -> dict[str, Schema]:
        """Return the newest schema by full record name."""
        return {record: entry.schema for record, entry in self.latest().items()}

    def ids(self) -> dict[str, int]:
        """Return the id of the newest schema by full record name."""
        return {record: entry.id for record, entry in self.latest().items()}

    def drift(self, schemas: Mapping[str, Schema]) -> list[str]:
        """Return the records whose newest locked schema differs from `schemas`, or that only one side has."""
        locked = self.latest()
        return sorted(
            record
            for record in locked.keys() | schemas.keys()
            if record not in locked or record not in schemas or locked[record].digest != digest(schemas[record])
        )

    def extended(self, schemas: Mapping[str, Schema]) -> "Lock":
        """Return a lock with a new version and id for each new schema; `ConfigError` if it equals an older version."""
        entries = list(self.entries)
        latest = self.latest()
        for record in self.drift(schemas):
            if record not in schemas:
                continue
            entry = _entry(
                schemas[record],
                version=latest[record].version + 1 if record in latest else 1,
                schema_id=max((each.id for each in entries), default=_FIRST_ID - 1) + 1,
            )
            if any(entry.digest == old.digest for old in self.history(record)):
                raise ConfigError(f"{record}: equals an older version of itself; change its doc so that the two differ")
            entries.append(entry)
        return Lock(tuple(entries))


def subject(record: str, topic: str | None = None) -> str:
    """Return the subject of a record on a topic, by default its own (TopicRecordNameStrategy)."""
    return f"{topic or _TOPICS.get(record, _TOPIC)}-{record}"


def parse_lock(document: Mapping[str, Any]) -> Lock:
    """Parse the text of `schemas.lock.json`."""
    try:
        entries = tuple(LockedSchema(**each) for each in document["schemas"])
        whole = all(entry == _entry(entry.schema, version=entry.version, schema_id=entry.id) for entry in entries)
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigError("schemas.lock.json: not a lock; restore it from version control") from exc
    ordered = all(earlier.id < later.id for earlier, later in pairwise(entries))
    versions: dict[str, int] = {}
    for entry in entries:
        versions[entry.record] = versions.get(entry.record, 0) + 1
        whole = whole and entry.version == versions[entry.record]
    if not (whole and ordered):
        raise ConfigError("schemas.lock.json: edited by hand; restore it from version control")
    return Lock(entries)


def format_lock(lock: Lock) -> str:
    """Return the text of `schemas.lock.json`."""
    entries = ",\n".join(f"{{\n{_attributes(entry)}\n}}" for entry in lock.entries)
    return f'{{"schemas": [\n{entries}\n]}}\n'


def _attributes(entry: LockedSchema) -> str:
    names: Iterable[str] = LockedSchema.__slots__
    return ",\n".join(f"  {json.dumps(name)}: {json.dumps(getattr(entry, name))}" for name in names)


def _entry(schema: Schema, *, version: int, schema_id: int) -> LockedSchema:
    full_digest = digest(schema)
    return LockedSchema(
        subject=subject(full_name(schema)),
        version=version,
        id=schema_id,
        guid=str(uuid5(NAMESPACE_OID, full_digest)),
        fingerprint=fingerprint(schema),
        digest=full_digest,
        schema=schema,
    )
