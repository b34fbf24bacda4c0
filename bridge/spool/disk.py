"""File system operations of the spool, one method each, so that tests can make them fail; errors become codes."""

import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
LOCK = "lock"
PROBE = "probe"
# Directory for damaged segments whose readable records have been drained.
DAMAGED = "damaged"
# Suffix of an empty file with the id of a permanently lost key: its records are moved to `damaged/`, too.
LOST_SUFFIX = ".lost-key"
# `struct flock` of 64-bit Linux: type, whence, start, length, pid; a length of 0 is the whole file.
_FLOCK = struct.Struct("@hhqqi0q")
# Bytes per read of a file, and per read of a part in which the disk reports an error.
READ_BYTES = 1_048_576
BLOCK_BYTES = 4096

# Code for a full disk, an exhausted quota, and the spool's own capacity.
FULL = "full"
_CODES = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: "read_only",
    errno.EACCES: "wrong_owner",
    errno.EPERM: "wrong_owner",
    errno.EWOULDBLOCK: "locked",
    errno.ENOTDIR: "not_a_directory",
    errno.ENAMETOOLONG: "name_too_long",
}


def code_of(failure: OSError) -> str:
    """Return the code of a file system's error."""
    code = _CODES.get(failure.errno or 0, "io_error")
    return "not_writable" if code == "wrong_owner" and _is_ours(failure.filename) else code


def _is_ours(name: str | None) -> bool:
    """Return whether a file, or the directory of a missing one, belongs to this process's user."""
    for path in (Path(name), Path(name).parent) if name else ():
        with contextlib.suppress(OSError):
            return path.stat().st_uid == os.geteuid()
    return False


class Disk:
    """The local file system; every method may raise `OSError`."""

    def make_directory(self, directory: Path) -> None:
        """Create a directory for its owner only, with its parents, durably, unless it exists."""
        missing = [each for each in (directory, *directory.parents) if not each.exists()]
        try:
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        except FileExistsError as exc:  # a file has this name
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from exc
        for each in missing:
            self.sync_directory(each.parent)

    def lock(self, directory: Path) -> int:
        """Lock a file until its handle is closed; fails at once if another process has the lock.

        On a read-only file system, the lock file is locked if it can be opened, else the directory.
        """
        handle = _open_lock(directory)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        with contextlib.suppress(OSError):  # for `is_locked` only
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
        return handle

    def names(self, directory: Path) -> list[str]:
        """Return the unsorted names in a directory; empty if it does not exist."""
        try:
            return os.listdir(directory)  # noqa: PTH208 - iterdir would create a Path for each
        except FileNotFoundError:
            return []

    def size(self, path: Path) -> int:
        """Return the size of a file in bytes."""
        return path.stat().st_size

    def free(self, directory: Path) -> int:
        """Return the free bytes, without the reserve for root."""
        state = os.statvfs(directory)
        return state.f_bavail * state.f_frsize

    def create(self, path: Path) -> int:
        """Create a file for its owner only and return its handle; fails if the name exists, even as a symbolic link."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, FILE_MODE)

    def write(self, handle: int, content: bytes) -> None:
        """Append all of `content`; after a failure, part of it may be written."""
        rest = memoryview(content)
        while rest:  # after a short write the next one raises the error
            rest = rest[os.write(handle, rest) :]

    def sync(self, handle: int) -> None:
        """Make size and content durable."""
        os.fdatasync(handle)

    def truncate(self, handle: int, size: int) -> None:
        """Truncate a file to `size`."""
        os.ftruncate(handle, size)

    def close(self, handle: int) -> None:
        """Close a handle of `create` or `lock`."""
        os.close(handle)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        """Return up to `length` bytes; fewer at the end of the file."""
        with _opened(path, os.O_RDONLY) as handle:
            parts = []
            while length and (part := os.pread(handle, length, offset)):
                parts.append(part)
                offset, length = offset + len(part), length - len(part)
            return b"".join(parts)

    def may_read(self, path: Path) -> None:
        """Raise if a file may not be read, without reading its content."""
        with _opened(path, os.O_RDONLY):
            pass

    def may_write(self, directory: Path) -> None:
        """Raise if this process may not create files in a directory, without creating one."""
        if not os.access(directory, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            failure = errno.EROFS if os.statvfs(directory).f_flag & os.ST_RDONLY else errno.EACCES
            raise OSError(failure, os.strerror(failure), str(directory))

    def append(self, path: Path, content: bytes) -> None:
        """Append all or nothing to a file, created if missing, without waiting for the disk."""
        with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as handle:
            self._write_whole(handle, content)

    def extend(self, path: Path, content: bytes) -> None:
        """Append all or nothing to an existing file, durably."""
        with _opened(path, os.O_WRONLY | os.O_APPEND) as handle:
            self._write_whole(handle, content)
            self.sync(handle)

    def _write_whole(self, handle: int, content: bytes) -> None:
        before = os.fstat(handle).st_size
        try:
            self.write(handle, content)
        except OSError:
            os.ftruncate(handle, before)
            raise

    def write_over(self, path: Path, content: bytes, ranges: Iterable[tuple[int, int]]) -> None:
        """Write these ranges of a file's content again, and cut off what follows the content, durably."""
        with _opened(path, os.O_WRONLY) as handle:
            for start, end in ranges:
                os.lseek(handle, start, os.SEEK_SET)
                self.write(handle, content[start:end])
            os.ftruncate(handle, len(content))
            self.sync(handle)

    def probe(self, directory: Path) -> None:
        """Raise if the disk cannot be written to."""
        path = directory / PROBE
        self.unlink(path)
        handle = self.create(path)
        try:
            self.write(handle, bytes(BLOCK_BYTES))
            self.sync(handle)
        finally:
            self.close(handle)
            self.unlink(path)

    def rename(self, path: Path, target: Path) -> None:
        """Rename a file, replacing an existing target."""
        path.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a file if it exists."""
        path.unlink(missing_ok=True)

    def sync_directory(self, directory: Path) -> None:
        """Make created and removed names durable, which POSIX does not guarantee otherwise."""
        with _opened(directory, os.O_RDONLY | os.O_DIRECTORY) as handle:
            os.fsync(handle)


@contextlib.contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    handle = os.open(path, flags | os.O_CLOEXEC, FILE_MODE)
    try:
        yield handle
    finally:
        os.close(handle)


def is_locked(directory: Path) -> bool:
    """Return whether a process has locked the directory, without taking a lock that could stop a starting process."""
    for path in (directory / LOCK, directory):
        try:
            with _opened(path, os.O_RDONLY) as handle:
                wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                kind = _FLOCK.unpack(fcntl.fcntl(handle, fcntl.F_OFD_GETLK, wanted))[0]
        except OSError:
            continue
        if kind != fcntl.F_UNLCK:
            return True
    return False


def write_whole(disk: Disk, path: Path, content: bytes) -> None:
    """Write a file atomically: temporary file, fsync, rename, fsync of the directory."""
    part = path.with_name(f"{path.name}.part")
    disk.unlink(part)
    handle = disk.create(part)
    try:
        disk.write(handle, content)
        disk.sync(handle)
    finally:
        disk.close(handle)
    disk.rename(part, path)
    disk.sync_directory(path.parent)


def read_what_can_be(disk: Disk, path: Path) -> tuple[bytes, bool]:
    """Return a file, unreadable parts as zeros, and whether all was read; `OSError` if it is gone or not ours."""
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


def _open_lock(directory: Path) -> int:
    path = directory / LOCK
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    except OSError as exc:
        if code_of(exc) not in {"read_only", "wrong_owner", "not_writable"}:
            raise
    # On a read-only file system, spooled records can still be drained.
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
