"""Read the schemas and their lock from the package, or from the work tree that it is installed from."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from bridge.errors import ConfigError
from bridge.registry.lock import Lock, format_lock, parse_lock
from bridge.registry.schemas import Schema, full_name, resolve
from bridge.runtime.files import replace_file

LOCK_NAME = "schemas.lock.json"


def schemas_root() -> Path:
    """Return the folder with `events`, `common` and the lock: in the wheel, else next to the package."""
    package = Path(str(files("bridge")))
    shipped = package / "schemas"
    return shipped if shipped.is_dir() else package.parent / "schemas"


def read_files(root: Path) -> dict[str, Schema]:
    """Return every type under `root` as in its file, by full name."""
    named: dict[str, Schema] = {}
    for path in sorted(root.glob("*/*.avsc")):
        schema = _read_json(path)
        if not isinstance(schema, dict) or schema.get("name") != path.stem:
            raise ConfigError(f"{path}: must hold the type {path.stem}")
        named[full_name(schema)] = schema
    return named


def read_schemas(root: Path) -> dict[str, Schema]:
    """Return the self-contained schema of every record in `events`, by full name."""
    named = read_files(root)
    records = {path.stem for path in (root / "events").glob("*.avsc")}
    return {name: resolve(schema, named) for name, schema in named.items() if schema["name"] in records}


def read_lock(root: Path) -> Lock:
    """Return the lock under `root`; empty if there is no file yet."""
    path = root / LOCK_NAME
    return parse_lock(_read_json(path)) if path.exists() else Lock()


def write_lock(root: Path, lock: Lock) -> None:
    """Replace the lock under `root` atomically."""
    replace_file(root / LOCK_NAME, format_lock(lock).encode(), mode=0o644)


@cache
def bundled() -> Lock:
    """Return the bundled lock; `ConfigError` if it is missing or was changed by hand."""
    lock = read_lock(schemas_root())
    if not lock.entries:
        raise ConfigError(f"{schemas_root() / LOCK_NAME}: no such file; reinstall the package")
    return lock


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}: not JSON") from exc
