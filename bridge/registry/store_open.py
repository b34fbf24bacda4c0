"""Open the embedded registry's store over the schemas this package ships."""

from __future__ import annotations

import json
from pathlib import Path

from bridge.registry.lock import Lock
from bridge.registry.store import Store
from bridge.registry.store_form import full_form
from bridge.registry.store_model import Registration
from bridge.registry.store_rules import AvroRules


def open_store(lock: Lock, *, path: Path | None = None, read_only: bool = False) -> Store:
    """Return a store that holds every locked schema under its subject, version, id and GUID.

    Args:
        lock: What the package ships.
        path: File that keeps what others register; None keeps it in memory only.
        read_only: Take nothing new.

    Raises:
        ConfigError: The file is damaged or cannot be read.
    """
    bundled = [
        Registration(
            subject=entry.subject,
            version=entry.version,
            id=entry.id,
            guid=entry.guid,
            schema=json.dumps(entry.schema, separators=(",", ":")),
            form=full_form(entry.schema),
        )
        for entry in lock.entries
    ]
    return Store(bundled, rules=AvroRules(), path=path, read_only=read_only)
