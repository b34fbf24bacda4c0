"""The few things the spool asks of a file system, so that a test can make each of them fail; errors become codes."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Protocol

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
LOCK = "lock"
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
        """Write at the end of a file, made when missing, without waiting for the disk."""

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


class LocalDisk:
    """The real one."""

    def make_directory(self, directory: Path) -> None:
        """Make it for its owner only."""
        directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)

    def lock(self, directory: Path) -> int:
        """Lock the file `lock`, or on a read-only file system whatever can be opened."""
        handle = _open_lock(directory)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return handle

    def names(self, directory: Path) -> list[str]:
        """List them in no order."""
        try:
            return os.listdir(directory)  # noqa: PTH208 - iterdir makes a Path of each
        except FileNotFoundError:
            return []

    def size(self, path: Path) -> int:
        """Ask the file system."""
        return path.stat().st_size

    def free(self, directory: Path) -> int:
        """Leave out what is kept for root."""
        state = os.statvfs(directory)
        return state.f_bavail * state.f_frsize

    def create(self, path: Path) -> int:
        """Refuse a name that is there, also as a symbolic link."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)

    def write(self, handle: int, content: bytes) -> None:
        """Go on after a short write, so that the reason for it comes out."""
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(handle, rest) :]

    def sync(self, handle: int) -> None:
        """Size and content; times do not matter."""
        os.fdatasync(handle)

    def truncate(self, handle: int, size: int) -> None:
        """Cut by handle."""
        os.ftruncate(handle, size)

    def close(self, handle: int) -> None:
        """Close it."""
        os.close(handle)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Read by position."""
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            parts = []
            while length and (part := os.pread(handle, length, offset)):
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
            return b"".join(parts)
        finally:
            os.close(handle)

    def may_read(self, path: Path) -> None:
        """Open it."""
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def append(self, path: Path, content: bytes) -> None:
        """Open, write, close: it happens some times a second."""
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)
        try:
            self.write(handle, content)
        finally:
            os.close(handle)

    def cut(self, path: Path, size: int) -> None:
        """Cut and sync."""
        handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.ftruncate(handle, size)
            os.fsync(handle)
        finally:
            os.close(handle)

    def reserve(self, path: Path, size: int) -> None:
        """Have the file system set the blocks aside; a file with holes would keep nothing."""
        handle = self.create(path)
        try:
            os.posix_fallocate(handle, 0, size)
            os.fsync(handle)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(handle)

    def rename(self, path: Path, target: Path) -> None:
        """Replace what is there."""
        path.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove it."""
        path.unlink(missing_ok=True)

    def sync_directory(self, directory: Path) -> None:
        """POSIX lets a directory entry be lost without this."""
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_what_can_be(disk: Disk, path: Path, start: int, end: int) -> bytes:
    """Return a range of a file with zeros for what the disk cannot read any more.

    Raises:
        OSError: Not to be read at all: gone, or not ours.
    """
    parts = []
    for at in range(start, end, READ_BYTES):
        to = min(at + READ_BYTES, end)
        try:
            parts.append(disk.read(path, at, to - at))
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            parts += [_block(disk, path, each, min(each + BLOCK_BYTES, to)) for each in range(at, to, BLOCK_BYTES)]
    return b"".join(parts)


def _block(disk: Disk, path: Path, at: int, to: int) -> bytes:
    try:
        return disk.read(path, at, to - at)
    except OSError:
        return bytes(to - at)


def _open_lock(directory: Path) -> int:
    path = directory / LOCK
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as exc:
        if code_of(exc) not in {"read_only", "wrong_owner"}:
            raise
    # What was spooled before the file system became read-only can still be delivered.
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
