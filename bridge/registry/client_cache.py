"""Schemas fetched from a registry, kept on disk: ids never change their meaning, so nothing here expires."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from bridge.registry.store_file import DamagedFileError, read_document, write_document


@dataclass(frozen=True, slots=True)
class Fetched:
    """A schema as a registry has it.

    Attributes:
        id: Its id there; None where it was asked for by GUID and the registry did not say.
        guid: Its GUID there, or None where the registry has none.
        schema: Self-contained record.
    """

    id: int | None
    guid: UUID | None
    schema: Mapping[str, Any] = field(repr=False)


class DiskCache:
    """One file per schema, in a folder of its own for each registry, whose ids mean something else elsewhere."""

    def __init__(self, directory: Path, url: str) -> None:
        """Use a folder under `directory` that is named after `url`."""
        self._directory = directory / hashlib.sha256(url.encode()).hexdigest()[:16]

    def load(self, key: int | UUID) -> Fetched | None:
        """Return what was kept; None if nothing was, or if it is damaged and must be fetched again."""
        try:
            kept = read_document(self._path(key))
        except (DamagedFileError, OSError):
            return None
        if not isinstance(kept, dict) or not isinstance(kept.get("schema"), dict):
            return None
        guid = kept.get("guid")
        return Fetched(kept.get("id"), UUID(guid) if guid else None, kept["schema"])

    def keep(self, key: int | UUID, fetched: Fetched) -> None:
        """Write a schema; a full or unwritable disk costs a fetch after the next start and nothing else."""
        guid = None if fetched.guid is None else str(fetched.guid)
        try:
            write_document(self._path(key), {"id": fetched.id, "guid": guid, "schema": dict(fetched.schema)})
        except OSError:
            return

    def _path(self, key: int | UUID) -> Path:
        return self._directory / f"{key}.json"
