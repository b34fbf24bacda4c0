"""The data directory of an embedded stack, its lock against a second stack, and its files."""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bridge.errors import ConfigError
from bridge.runtime.files import replace_file


class DataDirectory:
    """Paths of the data of each part."""

    def __init__(self, path: Path) -> None:
        """`path` must be absolute, since child processes run in other directories."""
        self.path = path
        self.kafka = path / "kafka"
        self.postgres = path / "postgres"
        self.spool = path / "spool"
        self.lake = path / "lake"
        self.logs = path / "logs"
        self.secrets = path / "secrets"
        self.endpoints = path / "endpoints.json"
        self.env = path / "env.sh"
        self.ports = path / "ports.json"

    def secret_dir(self, name: str, *, make: Callable[[], str] | None = None) -> Path:
        """Create the secrets directory of a source, or of logs, with a `current` secret that stays the same.

        Without `make` it stays empty: the ingress creates the first key of the spool.
        """
        directory = self.secrets / name
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        slot = directory / "current"
        if make is not None and not slot.exists():
            write_text(slot, f"{make()}\n")
        return directory


@contextlib.contextmanager
def claim(path: Path) -> Iterator[DataDirectory]:
    """Create the directory and lock it for this process until the context or the process ends."""
    directory = DataDirectory(path.absolute())
    with contextlib.ExitStack() as stack:
        try:
            for place in (directory.path, directory.kafka, directory.logs, directory.secrets):
                place.mkdir(parents=True, exist_ok=True)
            # Not truncated: until the file is locked, its content belongs to another process.
            lock = stack.enter_context((directory.path / "dev.lock").open("a+"))
        except OSError as exc:
            raise ConfigError(f"--data-dir {path}: cannot be written ({exc.strerror})") from exc
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            lock.seek(0)
            msg = f"--data-dir {path}: in use by another `drx-bridge dev`, pid {lock.read().strip() or 'unknown'}"
            raise ConfigError(msg) from exc
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield directory


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if the file is absent or unreadable, since its content can be recreated."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with `write_text`."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file atomically, readable only by its owner: it may hold a secret or a password."""
    replace_file(path, text.encode())
