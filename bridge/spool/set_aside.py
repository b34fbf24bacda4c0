"""Records that Kafka refuses for good: set aside when an operator asks for it, and put back when one does.

An operator's command asks by a file in the spool's directory, since only the process that has the spool open may touch
what it holds. The file is claimed by a rename, so that a command that gives up takes its request back or learns that it
is too late.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import orjson
import structlog

from bridge.errors import NotDurableError
from bridge.runtime.hand import Hand
from bridge.spool.disk import Disk, code_of
from bridge.spool.index import Index, Place
from bridge.spool.keys import NO_KEY, KeyRing
from bridge.spool.reader import Reader
from bridge.spool.recovery import Finder, write_whole
from bridge.spool.segment import Entry, Lane, read_head, segment_name, unseal
from bridge.spool.writer import Writer

if TYPE_CHECKING:
    from bridge.spool.store import Removal

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
        lane: Whose first record is to be set aside.
        forced: True when it is to be done although Kafka has not refused the record.
        names: What is to be put back; everything when empty.
        expires_at: Unix time after which nobody waits for it.
    """

    path: Path
    verb: Verb
    lane: Lane
    forced: bool
    names: Sequence[str]
    actor: str
    reason: str
    expires_at: float


class Aside:
    """Serves the requests of operators; on the loop's thread, but for the disk.

    Attributes:
        count: Records that are set aside.
    """

    def __init__(
        self,
        directory: Path,
        *,
        disk: Disk,
        hand: Hand,
        keys: KeyRing,
        index: Index,
        writer: Writer,
        reader: Reader,
        removal: Removal,
        finder: Finder,
    ) -> None:
        self._directory = directory
        self._kept = directory / DIRECTORY
        self._disk = disk
        self._hand = hand
        self._keys = keys
        self._index = index
        self._writer = writer
        self._reader = reader
        self._removal = removal
        self._finder = finder
        self._wanted: dict[Lane, Request] = {}
        self._has_looked = False
        self.count = 0

    async def look(self, found: Callable[[Entry], None]) -> None:
        """Take up what was asked for since; what is put back is passed to `found`."""
        requests = await self._hand.do(self._requests)
        self._wanted = {}
        for request in requests:
            if request.verb == "put_back":
                await self._put_back(request, found)
            elif self._index.depth(request.lane):
                self._wanted[request.lane] = request
            elif await self._hand.do(partial(self._claim, request)):
                await self._answer(request, NOTHING_THERE)
        self.count = len(await self._hand.do(partial(names_of, self._disk, self._directory)))

    async def set_aside(self, lane: Lane, *, refused: str) -> bool:
        """Set the first record of a lane aside if an operator has asked for that; return whether it was.

        To be called by what drains the lane, while nothing of it is on its way. Without force only when Kafka has just
        `refused` that record alone, by the code that it gave.
        """
        request = self._wanted.get(lane)
        if request is None or not (refused or request.forced):
            return False
        head = self._index.head(lane, most=1, most_bytes=1)
        entries = await self._reader.peek(lane, most=1, most_bytes=1)
        if not entries or head != self._index.head(lane, most=1, most_bytes=1):
            return False  # the disk does not give it back, or it was found damaged: another is first now
        self._wanted.pop(lane, None)
        if not await self._hand.do(partial(self._claim, request)):
            return False
        segment = self._index.segments[head[0].segment].path
        outcome, name = await self._hand.do(partial(self._keep, request, entries[0], segment, head[0], refused))
        if outcome == DONE:
            # Copied first: after a crash in between it is at the head again, and set aside once more.
            self._removal.acknowledged(self._index.drop(lane, 1))
            self._removal.write_positions()
            self.count += 1
            topic, partition = lane
            log.warning("worker.spool_set_aside", topic=topic, partition=partition, name=name, code=refused)
        await self._answer(request, outcome, names=[name])
        return outcome == DONE

    async def _put_back(self, request: Request, found: Callable[[Entry], None]) -> None:
        if not await self._hand.do(partial(self._claim, request)):
            return
        kept = await self._hand.do(partial(names_of, self._disk, self._directory))
        outcome, done = DONE if kept else NOTHING_THERE, []
        for name in request.names or kept:
            result = await self._hand.do(partial(self._restore, name)) if name in kept else NOTHING_THERE
            if isinstance(result, str):
                outcome = result
                continue
            # As what is found late: behind what was handed out, and while Kafka is well behind what comes meanwhile.
            await self._finder.find(self._index.segment(result, segment_name(result)), found)
            # Entered first: after a crash in between it is in both places, and its id tells.
            await self._hand.do(partial(self._forget, name))
            log.warning("worker.spool_put_back", name=name)
            done.append(name)
        await self._answer(request, outcome, names=done)

    async def _answer(self, request: Request, outcome: str, *, names: Sequence[str] = ()) -> None:
        await self._hand.do(partial(self._write_outcome, request, {"outcome": outcome, "names": list(names)}))

    def _requests(self) -> list[Request]:
        """Read what is asked for; what nobody waits for any more is left out."""
        found = []
        with contextlib.suppress(OSError):
            for name in sorted(self._disk.names(self._directory)):
                if name.endswith(REQUEST):
                    found.append(self._read(self._directory / name))
                elif name.endswith((TAKEN, OUTCOME)) and not self._has_looked:
                    self._disk.unlink(self._directory / name)  # of an earlier process: nobody will ask for it
        self._has_looked = True
        return [request for request in found if request is not None]

    def _read(self, path: Path) -> Request | None:
        try:
            said = orjson.loads(self._disk.read(path, 0, REQUEST_MAX_BYTES))
            request = Request(path=path, **said | {"lane": tuple(said["lane"])})
            if request.expires_at >= time.time():
                return request
        except OSError:
            return None
        except (ValueError, TypeError, KeyError):
            log.warning("worker.spool_request_refused", name=path.name)
        with contextlib.suppress(OSError):
            self._disk.unlink(path)
        return None

    def _claim(self, request: Request) -> bool:
        """Tell whether somebody still asks, and from now on cannot take it back."""
        try:
            self._disk.rename(request.path, request.path.with_suffix(TAKEN))
        except OSError:
            return False
        return True

    def _write_outcome(self, request: Request, outcome: Mapping[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the command then says that it does not know
            write_whole(self._disk, request.path.with_suffix(OUTCOME), orjson.dumps(outcome))
        with contextlib.suppress(OSError):
            self._disk.unlink(request.path.with_suffix(TAKEN))

    def _keep(self, request: Request, entry: Entry, segment: Path, place: Place, refused: str) -> tuple[str, str]:
        """Copy a record as it is sealed, and beside it who wanted that and why; return the outcome and its name."""
        name = f"{segment.stem}-{place.number:08x}"
        try:
            sealed = self._disk.read(segment, place.offset, place.length)
            head = read_head(sealed)
            if head is None:
                return DAMAGED, name
            note = {
                "topic": entry.lane[0],
                "partition": entry.lane[1],
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

    def _restore(self, name: str) -> int | str:
        """Seal a record again, in a segment of its own; return the number of that, or why it cannot be done."""
        path = self._kept / f"{name}{RECORD}"
        self._keys.load()
        try:
            sealed = self._disk.read(path, 0, self._disk.size(path))
            head = read_head(sealed)
            key = self._keys.opening.get(head.key_id) if head else None
            if key is None:
                return NO_KEY if head else DAMAGED
            entry = unseal(sealed, key)
            return DAMAGED if entry is None else self._writer.write_apart(entry)
        except OSError as exc:
            return code_of(exc)
        except NotDurableError as exc:
            return exc.code

    def _forget(self, name: str) -> None:
        with contextlib.suppress(OSError):
            for suffix in (RECORD, NOTE):
                self._disk.unlink(self._kept / f"{name}{suffix}")
            self._disk.sync_directory(self._kept)


def names_of(disk: Disk, directory: Path) -> list[str]:
    """Return the names of the records that are set aside, oldest first."""
    try:
        return sorted(each.removesuffix(RECORD) for each in disk.names(directory / DIRECTORY) if each.endswith(RECORD))
    except OSError:
        return []


def note_of(disk: Disk, directory: Path, name: str) -> dict[str, Any]:
    """Return what is written beside a record that is set aside; nothing when that is gone."""
    path = directory / DIRECTORY / f"{name}{NOTE}"
    try:
        return dict(orjson.loads(disk.read(path, 0, disk.size(path))))
    except (OSError, ValueError):
        return {}
