"""What the doctors of ingress and consumers say of the keys that hash ids in the log."""

from __future__ import annotations

from pathlib import Path

from bridge.errors import ConfigError
from bridge.runtime.findings import Finding
from bridge.runtime.log_ids import read_id_keys


def check_id_keys(directory: Path | None, *, setting: str) -> Finding:
    """Look at the keys in `directory`, which the variable `setting` names."""
    if directory is None:
        says = "ids are hashed with a key of each process that nobody knows, so no line is found by an id"
        return Finding("log", "warning", says, f"set {setting}, the same for every process")
    try:
        keys = read_id_keys(directory)
    except ConfigError as exc:
        return Finding("log", "failed", str(exc), f"mend it, or point {setting} at another directory")
    return Finding("log", "ok", f"ids are hashed; `hash-id` knows the keys {', '.join(key.name for key in keys)}")
