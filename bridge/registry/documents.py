"""One JSON document in a file: replaced in one step, synced to disk, and checked by its checksum when it is read.

The file is `{"sha256": …, "document": …}`, where the checksum is that of the document with sorted keys. A flipped bit
in an id would have records written under the schema of another event, so a damaged file counts as none.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path

from bridge.errors import BridgeError


class DamagedFileError(BridgeError):
    """The file exists but does not hold what was written."""

    code = "damaged_file"


def write_document(path: Path, document: object) -> None:
    """Replace the file in one step that survives a kill and a power cut.

    Args:
        path: Its directory is made when missing.
        document: A JSON value.

    Raises:
        OSError: Not written; the earlier file is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sealed = json.dumps({"sha256": _checksum(document), "document": document}, indent=1)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(sealed + "\n")
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def read_document(path: Path) -> object | None:
    """Return the document, or None when there is no file.

    Raises:
        DamagedFileError: Not JSON, or the checksum differs.
        OSError: Cannot be read.
    """
    try:
        sealed = json.loads(path.read_bytes())
        stated, document = sealed["sha256"], sealed["document"]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise DamagedFileError from exc
    if stated != _checksum(document):
        raise DamagedFileError
    return document  # type: ignore[no-any-return]  # json.loads is typed Any; `object` is what it is


def _checksum(document: object) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _sync_directory(directory: Path) -> None:
    """Make the rename itself durable: POSIX lets a directory entry be lost without this."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
