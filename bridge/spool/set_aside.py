"""Records that Kafka permanently refuses: each is kept, still encrypted, in a file until an operator puts it back.

The drain copies such a record to `set-aside/<segment>-<number>.<code of the refusal>`, and then acknowledges it.
`drx-bridge spool aside` writes it to Kafka, and then removes the file. A crash in between leaves it in both places.
"""

import errno
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from bridge.spool.disk import Disk, write_whole
from bridge.spool.index import Location, Segment
from bridge.spool.segment import Entry, Key, decrypt, read_header

DIRECTORY = "set-aside"
# Maximum records, 200 MiB at 2 MiB each: with more, the topic is wrong, so its partitions wait.
FILES_MAX = 100

_is_record = re.compile(r"[0-9a-f]{16}-[0-9a-f]{8}\.([a-z_]+)").fullmatch


class Aside(NamedTuple):
    """A record that is set aside."""

    name: str
    code: str  # code of Kafka's refusal
    key_id: bytes  # id of the key that encrypted it; empty if the file is damaged
    at_ms: int  # when it was accepted, Unix milliseconds; 0 if the file is damaged
    entry: Entry | Literal["no_key", "damaged"]  # its entry, or why it cannot be decrypted


def names_of(disk: Disk, directory: Path) -> list[str]:
    """Return the names of records set aside, oldest first; empty if they cannot be listed."""
    try:
        return sorted(filter(_is_record, disk.names(directory / DIRECTORY)))
    except OSError:
        return []


def keep(disk: Disk, segment: Segment, location: Location, code: str) -> str:
    """Copy an encrypted record; return its name. `OSError` if it cannot be written or there are too many."""
    directory = segment.path.parent
    if len(names_of(disk, directory)) >= FILES_MAX:
        raise OSError(errno.EDQUOT, DIRECTORY)
    name = f"{segment.path.stem}-{location.number:08x}.{code}"
    disk.make_directory(directory / DIRECTORY)
    write_whole(disk, directory / DIRECTORY / name, disk.read(segment.path, location.offset, location.length))
    return name


def read_aside(disk: Disk, directory: Path, name: str, keys: Mapping[bytes, Key]) -> Aside:
    """Return a record set aside; `OSError` if it cannot be read."""
    path = directory / DIRECTORY / name
    encrypted = disk.read(path, 0, disk.size(path))
    header, code = read_header(encrypted), path.suffix[1:]
    if header is None:
        return Aside(name, code, b"", 0, "damaged")
    key = keys.get(header.key_id)
    return Aside(name, code, header.key_id, header.at_ms, (decrypt(encrypted, key) or "damaged") if key else "no_key")


def forget(disk: Disk, directory: Path, name: str) -> None:
    """Remove a record that is in Kafka; `OSError` if it cannot be removed."""
    disk.unlink(directory / DIRECTORY / name)
    disk.sync_directory(directory / DIRECTORY)
