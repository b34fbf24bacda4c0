"""Ids of our schemas in an external registry, cached in a file that is valid for that registry only.

With the file a start does not need the registry, so an outage of the registry cannot stop a bridge that once had its
ids. The file maps the digest of a schema to its id: a new release looks up only new schemas.
"""

import asyncio
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bridge.contract.events import EVENT_MODELS
from bridge.errors import BridgeError
from bridge.registry.address import plain_url
from bridge.registry.client import RegistryClient
from bridge.registry.lock import NAMESPACE, Lock, LockedSchema, subject
from bridge.registry.schemas import Schema
from bridge.runtime.files import replace_file


class IdsMissingError(BridgeError):
    """The registry does not have our schemas; after `drx-bridge schemas push` the same call succeeds."""

    code = "registry_ids_missing"
    retriable = True


@dataclass(frozen=True, slots=True)
class Wanted:
    """One of our schemas, with its subjects `<topic>-<record>`."""

    record: str
    subject: str
    digest: str
    schema: Schema = field(repr=False)


def wanted(entries: Sequence[LockedSchema], topics_of_type: Callable[[str], Iterable[str]]) -> list[Wanted]:
    """Return each entry with the subjects of its event type's topics; routing affects events only."""
    types = {f"{NAMESPACE}.{model.__name__}": event_type for event_type, model in EVENT_MODELS.items()}
    return [
        Wanted(entry.record, subject(entry.record, topic), entry.digest, entry.schema)
        for entry in entries
        for topic in (topics_of_type(types[entry.record]) if entry.record in types else [None])
    ]


def newest(lock: Lock) -> list[LockedSchema]:
    """Return the entries that records are written with, in lock order."""
    return sorted(lock.latest().values(), key=lambda entry: entry.id)


async def resolve_ids(schemas: Sequence[Wanted], *, registry: RegistryClient, path: Path | None) -> dict[str, int]:
    """Return full record name -> id in this registry, for every schema.

    Ids that the file lacks are looked up and added to it; nothing is registered. `RegistryUnavailableError` and
    `IdsMissingError` are retriable, `RegistryRefusedError` is not.
    """
    known = read_ids(path, registry.url)
    missing = [each for each in schemas if each.digest not in known]
    for each in missing:
        schema_id = await registry.look_up(each.subject, each.schema)
        if schema_id is None:
            raise IdsMissingError(f"{registry.url} does not hold {each.subject}; run `drx-bridge schemas push`")
        known[each.digest] = schema_id
    if missing and path is not None:
        with suppress(OSError):  # the next start looks the ids up again
            await asyncio.to_thread(write_ids, path, registry.url, known)
    return {each.record: known[each.digest] for each in schemas}


async def wrong_ids(schemas: Sequence[Wanted], ids: Mapping[str, int], *, registry: RegistryClient) -> list[str]:
    """Return the records whose id has another schema in the registry now, as after a restore of another backup."""
    return [each.record for each in schemas if not await registry.holds(ids[each.record], each.schema)]


def read_ids(path: Path | None, url: str) -> dict[str, int]:
    """Return digest -> id for the registry at `url`; empty if the file is for another one or damaged."""
    try:
        document = json.loads(path.read_bytes()) if path else None
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(document, dict) or document.get("registry") != plain_url(url):
        return {}
    ids = document.get("ids")
    return ids if isinstance(ids, dict) and document.get("crc32") == _checksum(ids) else {}


def write_ids(path: Path, url: str, ids: Mapping[str, int]) -> None:
    """Replace the file with the ids (digest -> id) of the registry at `url`; OSError if it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"registry": plain_url(url), "ids": dict(ids), "crc32": _checksum(ids)}
    replace_file(path, f"{json.dumps(document, indent=1)}\n".encode(), mode=0o644)


def _checksum(ids: Mapping[str, int]) -> int:
    return zlib.crc32(json.dumps(ids, sort_keys=True).encode())
