"""The lock: every schema that was ever published, with the id it keeps for ever.

`schemas.lock.json` is a list of versions in the order of their ids, one attribute a line, so that a new version shows
as an addition in a diff. A version is never changed or removed: everything in it but `version` and `id` is derived from
its schema, and `parse_lock` refuses a file in which it is not. Only `drx-bridge schemas lock` writes it.
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

# Where a record goes unless a site routes it elsewhere (docs/contract.md §4); subjects are named after it.
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
    id: int  # unique over all records; never given twice
    guid: str  # derived from `digest`, so that it is the same wherever the schema is
    fingerprint: str  # SHA-256 of the parsing canonical form, as any Avro library computes it
    digest: str  # SHA-256 of the whole schema; the canonical form leaves out logical types, defaults, docs and `phi`
    schema: Schema = field(repr=False, hash=False)  # self-contained

    @property
    def record(self) -> str:
        """Full name of the record."""
        return full_name(self.schema)


@dataclass(frozen=True, slots=True)
class Lock:
    """Every locked schema, in the order of the ids."""

    entries: tuple[LockedSchema, ...] = ()

    def latest(self) -> dict[str, LockedSchema]:
        """Return record full name -> its newest version."""
        return {entry.record: entry for entry in self.entries}

    def history(self, record: str) -> tuple[LockedSchema, ...]:
        """Return every version of a record, oldest first."""
        return tuple(entry for entry in self.entries if entry.record == record)

    def schemas(self) -> dict[str, Schema]:
        """Return record full name -> its newest schema."""
        return {record: entry.schema for record, entry in self.latest().items()}

    def ids(self) -> dict[str, int]:
        """Return record full name -> id of its newest schema."""
        return {record: entry.id for record, entry in self.latest().items()}

    def drift(self, schemas: Mapping[str, Schema]) -> list[str]:
        """Return the records whose newest locked schema is not the one in `schemas`, or that only one side has."""
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
    """Return the subject of a record on a topic, its default one if none is given (TopicRecordNameStrategy)."""
    return f"{topic or _TOPICS.get(record, _TOPIC)}-{record}"


def parse_lock(document: Mapping[str, Any]) -> Lock:
    """Read what `format_lock` wrote."""
    try:
        entries = tuple(LockedSchema(**each) for each in document["schemas"])
        whole = all(entry == _entry(entry.schema, version=entry.version, schema_id=entry.id) for entry in entries)
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigError("schemas.lock.json: not a lock; take it from version control again") from exc
    ordered = all(earlier.id < later.id for earlier, later in pairwise(entries))
    versions: dict[str, int] = {}
    for entry in entries:
        versions[entry.record] = versions.get(entry.record, 0) + 1
        whole = whole and entry.version == versions[entry.record]
    if not (whole and ordered):
        raise ConfigError("schemas.lock.json: edited by hand; take it from version control again")
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
