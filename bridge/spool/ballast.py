"""Space kept for the moment when the disk is full: what is in hand then can still be made durable once."""

from __future__ import annotations

import errno
from pathlib import Path

from bridge.spool.disk import Disk

NAME = "ballast"
PROBE = "probe"
# A group of records is not larger, but for a single call that is.
SIZE_BYTES = 1_048_576
# A small disk keeps an eighth of what is free, and is full when even that is less than this.
SIZE_MIN_BYTES = 16_384
SHARE = 8
BLOCK_BYTES = 4096


class Ballast:
    """The file that is given up; the spool takes events only while it is there."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        """Look after the file in `directory`."""
        self._directory = directory
        self._disk = disk

    def ensure(self) -> None:
        """Make the file unless it is there, and prove that the disk takes writes.

        Raises:
            OSError: It does not, or there is no room to speak of.
        """
        if NAME not in self._disk.names(self._directory):
            size = min(SIZE_BYTES, self._disk.free(self._directory) // SHARE)
            if size < SIZE_MIN_BYTES:
                raise OSError(errno.ENOSPC, NAME)
            self._disk.reserve(self._directory / NAME, size - size % BLOCK_BYTES)
        self._probe()

    def release(self) -> bool:
        """Give the space up; False when there is none to give."""
        if NAME not in self._disk.names(self._directory):
            return False
        self._disk.unlink(self._directory / NAME)
        self._disk.sync_directory(self._directory)
        return True

    def _probe(self) -> None:
        path = self._directory / PROBE
        self._disk.unlink(path)
        handle = self._disk.create(path)
        try:
            self._disk.write(handle, bytes(BLOCK_BYTES))
            self._disk.sync(handle)
        finally:
            self._disk.close(handle)
            self._disk.unlink(path)
