"""The few things the spool asks of a file system, so that a test can make each of them fail; errors become codes."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Protocol

# What is read at once, where reading the whole failed.
BLOCK_BYTES = 4096
READ_BYTES = 1_048_576

_CODES = {
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EROFS: "read_only",
    errno.EACCES: "wrong_owner",
    errno.EPERM: "wrong_owner",
    errno.EWOULDBLOCK: "locked",
}


def code_of(failure: OSError) -> str:
    """Return the constant word for what a file system said."""
    return _CODES.get(failure.errno or 0, "io_error")


class Disk(Protocol):
    """A file system; everything may raise `OSError`."""

    def make_directory(self, directory: Path) -> None:
        """Make it, and those above it, unless it is there."""

    def lock(self, directory: Path) -> int:
        """Return a handle that keeps every other process out until it is closed; it waits for nobody."""

    def names(self, directory: Path) -> list[str]:
        """Return the names in a directory, none when it is not there."""

    def size(self, path: Path) -> int:
        """Return the bytes of a file."""

    def free(self, directory: Path) -> int:
        """Return how many bytes this process may still write."""

    def create(self, path: Path) -> int:
        """Return a handle of a new file that only its owner may read."""

    def write(self, handle: int, content: bytes) -> None:
        """Write all of it at the end; after a failure, part of it may stand there."""

    def sync(self, handle: int) -> None:
        """Make the content durable."""

    def truncate(self, handle: int, size: int) -> None:
        """Cut what is behind `size`."""

    def close(self, handle: int) -> None:
        """Give a handle back."""

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Return up to `length` bytes; less where the file ends."""

    def may_read(self, path: Path) -> None:
        """Raise `OSError` when the file is not ours to read; whether its content is well does not matter."""

    def append(self, path: Path, content: bytes) -> None:
        """Write all or nothing at the end of a file, made when missing, without waiting for the disk."""

    def extend(self, path: Path, content: bytes) -> None:
        """Write all or nothing at the end of a file that is there, durably."""

    def cut(self, path: Path, size: int) -> None:
        """Cut a file at `size`, durably."""

    def reserve(self, path: Path, size: int) -> None:
        """Make a file of so many bytes that nobody else can take; all or nothing."""

    def rename(self, path: Path, target: Path) -> None:
        """Give a file another name."""

    def unlink(self, path: Path) -> None:
        """Remove a file, if it is there."""

    def sync_directory(self, directory: Path) -> None:
        """Make names durable that came or went."""


def read_what_can_be(disk: Disk, path: Path) -> tuple[bytes, bool]:
    """Return a file with zeros for what the disk does not give back now, and whether that is all of the file.

    Raises:
        OSError: Not to be read at all: gone, or not ours.
    """
    size, parts, is_whole = disk.size(path), [], True
    for at in range(0, size, READ_BYTES):
        to = min(at + READ_BYTES, size)
        part = _part(disk, path, at, to)
        if part is not None:
            parts.append(part)
            continue
        for first in range(at, to, BLOCK_BYTES):
            last = min(first + BLOCK_BYTES, to)
            block = _part(disk, path, first, last)
            is_whole = is_whole and block is not None
            parts.append(bytes(last - first) if block is None else block)
    return b"".join(parts), is_whole


def _part(disk: Disk, path: Path, at: int, to: int) -> bytes | None:
    try:
        return disk.read(path, at, to - at)
    except OSError as exc:
        if exc.errno != errno.EIO:
            raise
        return None
