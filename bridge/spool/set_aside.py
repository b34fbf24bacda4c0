"""Records that Kafka refuses for good: set aside when an operator asks for it, and put back when one does.

An operator's command asks by a file in the spool's directory, since only the process that has the spool open may change
what it holds: it writes `<id>.request`, a JSON document with the fields of `Request`. The process renames that to
`<id>.taken` when it serves it, so a command that gives up either takes its request back (by removing it) or learns that
it is too late. What came of it is in `<id>.outcome`: `{"outcome": code, "names": [...]}`.

A record that is set aside is copied, as it is sealed, to `set-aside/<segment>-<number>.record`, with a note beside it
(`.json`: who wanted that, and why), and only then acknowledged. To put it back it is sealed with the current key in a
segment of its own, and only then removed here. A crash amid either leaves it in both places.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson
import structlog

from bridge.errors import NotDurableError
from bridge.spool.disk import Disk, code_of, write_whole
from bridge.spool.index import Location, Segment
from bridge.spool.keys import NO_KEY, KeyRing
from bridge.spool.segment import Entry, Partition, read_head, unseal
from bridge.spool.writer import SegmentWriter, Written

log = structlog.get_logger()

DIRECTORY = "set-aside"
RECORD, NOTE = ".record", ".json"
REQUEST, TAKEN, OUTCOME = ".request", ".taken", ".outcome"
# A reason of some sentences; and the names of a hundred records.
REQUEST_MAX_BYTES = 16_384

Verb = Literal["set_aside", "put_back"]
# What a request came to.
DONE, NOTHING_THERE, DAMAGED = "done", "nothing_there", "damaged"


class Request(NamedTuple):
    """What an operator asks for.

    Attributes:
        path: Its file.
        partition: The partition whose first record is to be set aside.
        forced: Do it although Kafka has not refused the record.
        names: What is to be put back; everything when empty.
        expires_at: Unix time after which nobody waits for it.
    """

    path: Path
    verb: Verb
    partition: Partition
    forced: bool
    names: Sequence[str]
    actor: str
    reason: str
    expires_at: float


class Restored(NamedTuple):
    """A record that is in a segment again, and not in the index yet."""

    entry: Entry
    written: Written


class SetAside:
    """The files of requests and of records that are set aside; every method runs on the writing thread."""

    def __init__(self, directory: Path, *, disk: Disk, keys: KeyRing, writer: SegmentWriter) -> None:
        self._directory = directory
        self._kept = directory / DIRECTORY
        self._disk = disk
        self._keys = keys
        self._writer = writer
        self._has_looked = False

    def requests(self) -> list[Request]:
        """Return what is asked for; expired requests and, at first, leftovers of an earlier process are removed."""
        found = []
        with contextlib.suppress(OSError):
            for name in sorted(self._disk.names(self._directory)):
                if name.endswith(REQUEST):
                    found.append(self._read(self._directory / name))
                elif name.endswith((TAKEN, OUTCOME)) and not self._has_looked:
                    self._disk.unlink(self._directory / name)
        self._has_looked = True
        return [request for request in found if request is not None]

    def claim(self, request: Request) -> bool:
        """Tell whether the request still stands, and from now on cannot be taken back."""
        try:
            self._disk.rename(request.path, request.path.with_suffix(TAKEN))
        except OSError:
            return False
        return True

    def answer(self, request: Request, outcome: str, names: Sequence[str] = ()) -> None:
        """Say what came of a request."""
        with contextlib.suppress(OSError):  # the command then says that it does not know
            content = orjson.dumps({"outcome": outcome, "names": list(names)})
            write_whole(self._disk, request.path.with_suffix(OUTCOME), content)
        with contextlib.suppress(OSError):
            self._disk.unlink(request.path.with_suffix(TAKEN))

    def names(self) -> list[str]:
        """Return the names of the records that are set aside, oldest first."""
        return names_of(self._disk, self._directory)

    def keep(
        self, request: Request, entry: Entry, segment: Segment, location: Location, refused: str
    ) -> tuple[str, str]:
        """Copy a record and the note; return the outcome and its name."""
        name = f"{segment.path.stem}-{location.number:08x}"
        try:
            sealed = self._disk.read(segment.path, location.offset, location.length)
            head = read_head(sealed)
            if head is None:
                return DAMAGED, name
            note = {
                "topic": entry.partition[0],
                "partition": entry.partition[1],
                "code": refused,
                "accepted_at_ms": entry.at_ms,
                "bytes": len(entry.payload),
                "key": head.key_id.hex(),
                "actor": request.actor,
                "reason": request.reason,
                "set_aside_at_ms": int(time.time() * 1000),
            }
            self._disk.make_directory(self._kept)
            write_whole(self._disk, self._kept / f"{name}{NOTE}", orjson.dumps(note))
            write_whole(self._disk, self._kept / f"{name}{RECORD}", sealed)
        except OSError as exc:
            return code_of(exc), name
        return DONE, name

    def restore(self, name: str) -> Restored | str:
        """Seal a record again, in a segment of its own; return the code of why it cannot be done otherwise."""
        path = self._kept / f"{name}{RECORD}"
        self._keys.load()
        try:
            sealed = self._disk.read(path, 0, self._disk.size(path))
            head = read_head(sealed)
            key = self._keys.opening.get(head.key_id) if head else None
            if key is None:
                return NO_KEY if head else DAMAGED
            entry = unseal(sealed, key)
            return DAMAGED if entry is None else Restored(entry, self._writer.write_apart(entry))
        except OSError as exc:
            return code_of(exc)
        except NotDurableError as exc:
            return exc.code

    def forget(self, name: str) -> None:
        """Remove a record that was put back."""
        with contextlib.suppress(OSError):
            for suffix in (RECORD, NOTE):
                self._disk.unlink(self._kept / f"{name}{suffix}")
            self._disk.sync_directory(self._kept)

    def _read(self, path: Path) -> Request | None:
        try:
            document = orjson.loads(self._disk.read(path, 0, REQUEST_MAX_BYTES))
            lists = {name: tuple(document[name]) for name in ("partition", "names")}
            request = Request(path=path, **document | lists)
            hash(request)  # a list in the place of a word would fail only where it is looked up
            if request.expires_at >= time.time():
                return request
        except OSError:
            return None
        except (ValueError, TypeError, KeyError):
            log.warning("worker.spool_request_refused", name=path.name)
        with contextlib.suppress(OSError):
            self._disk.unlink(path)
        return None


def names_of(disk: Disk, directory: Path) -> list[str]:
    """Return the names of the records that are set aside, oldest first."""
    try:
        return sorted(each.removesuffix(RECORD) for each in disk.names(directory / DIRECTORY) if each.endswith(RECORD))
    except OSError:
        return []


def note_of(disk: Disk, directory: Path, name: str) -> dict[str, Any]:
    """Return the note beside a record that is set aside; nothing when that is gone."""
    path = directory / DIRECTORY / f"{name}{NOTE}"
    try:
        return dict(orjson.loads(disk.read(path, 0, disk.size(path))))
    except (OSError, TypeError, ValueError):  # or damaged
        return {}
