"""Take, keep and leave a spool's directory; runs on the spool's writing thread."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import structlog

from bridge.runtime import failpoints
from bridge.spool.ballast import Ballast
from bridge.spool.disk import Disk, code_of
from bridge.spool.keys import NO_KEY, KeyRing
from bridge.spool.positions import positions_frame
from bridge.spool.recovery import positions_path, remove_orphans, segment_numbers
from bridge.spool.writer import Writer, segment_name

log = structlog.get_logger()


class Premises:
    """The directory, from its lock to its unlinks.

    Attributes:
        numbers: The segments that were there when it was taken, oldest first.
    """

    def __init__(self, directory: Path, *, disk: Disk, keys: KeyRing, ballast: Ballast, writer: Writer) -> None:
        """Touch nothing yet."""
        self._directory = directory
        self._disk = disk
        self._keys = keys
        self._ballast = ballast
        self._writer = writer
        self._lock: int | None = None
        self._missing: set[bytes] = set()
        self.numbers: list[int] = []

    def enter(self) -> str:
        """Take the directory for this process and read the keys; return why that is not possible, or nothing."""
        try:
            self._disk.make_directory(self._directory)
            self._lock = self._disk.lock(self._directory)
            self.numbers = segment_numbers(self._disk, self._directory)
            for number in self.numbers:
                self._check(self._directory / segment_name(number))
        except OSError as exc:
            self.leave()
            return code_of(exc)
        self._keys.load()
        remove_orphans(self._disk, self._directory)
        return ""

    def prepare(self, needed: AbstractSet[bytes]) -> str:
        """See that a write would succeed: ballast, disk and keys; return why not, or nothing."""
        try:
            self._ballast.ensure()
        except OSError as exc:
            return code_of(exc)
        self._keys.load()
        if self._keys.current is None and self._keys.is_empty:
            self._make_key()
        return self.check_keys(needed)

    def check_keys(self, needed: AbstractSet[bytes]) -> str:
        """See that there is a file of each key that something needs, or will; return why not, or nothing.

        What is in memory still opens everything, but after a crash only the files do: an answer 202 is not given on
        the strength of a key that a restart would not find.
        """
        self._keys.load()
        current = self._keys.current
        missing = {*needed, *([current.id] if current else [])} - self._keys.present
        if missing - self._missing:
            log.error("worker.spool_key_missing", keys=sorted(key.hex() for key in missing))
        self._missing = missing
        return NO_KEY if missing or current is None else ""

    def remove(self, segment: Path, *, is_active: bool) -> None:
        """Remove a segment in which nothing is left, and then its side file."""
        if is_active:
            self._writer.end_segment()
        with contextlib.suppress(OSError):  # it is found again at the next start, with its positions
            self._disk.unlink(segment)
            self._disk.sync_directory(self._directory)
            self._disk.unlink(positions_path(segment))

    def note(self, segment: Path, number: int, numbers: Sequence[int]) -> None:
        """Write down which records are acknowledged."""
        failpoints.hit(failpoints.BEFORE_POSITIONS)
        with contextlib.suppress(OSError):  # costs duplicates only
            self._disk.append(positions_path(segment), positions_frame(number, numbers))

    def leave(self) -> None:
        """End writing and let another process have the directory."""
        self._writer.end_segment()
        if self._lock is not None:
            self._disk.close(self._lock)
            self._lock = None

    def _check(self, segment: Path) -> None:
        """Raise when a segment is not ours, so that nothing behind it is delivered before it is."""
        try:
            self._disk.may_read(segment)
        except PermissionError:
            raise
        except OSError:
            return  # what the disk does not give back now is tried again later, and keeps nothing else from being read

    def _make_key(self) -> None:
        """Make the first key, unless something is sealed already: then its key is missing, and that must be seen."""
        with contextlib.suppress(OSError):
            if segment_numbers(self._disk, self._directory):
                return
            if self._keys.directory.is_relative_to(self._directory):
                # A directory elsewhere that is not there was not mounted: a key made there would be lost with the pod.
                self._disk.make_directory(self._keys.directory)
            self._keys.make()
            self._keys.load()
