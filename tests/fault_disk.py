"""A file system on real files with injected faults."""

import errno
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from bridge.spool.disk import Disk

FOREVER = 1_000_000_000


class FaultDisk(Disk):
    """The local disk, with faults that a test sets.

    The next `sync_failures` end with EIO, and so do reads of `unreadable` files. All files together may have
    `room_bytes`. If `uncut`, no file is truncated. A sync sets `hanging` and awaits `released`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.sync_failures = 0
        self.room_bytes: int | None = None
        self.read_only, self.uncut = False, False
        self.unreadable: Callable[[Path, int, int], bool] = lambda _path, _start, _end: False
        self.unlisted, self.released = False, threading.Event()
        self.released.set()
        self.hanging = threading.Event()
        self.observe: Callable[[str], None] = lambda _operation: None

    def create(self, path: Path) -> int:
        self._change("create", path)
        return super().create(path)

    def write(self, handle: int, content: bytes) -> None:
        room = self._left()
        if room is not None and room < len(content):
            super().write(handle, content[:room])
            raise OSError(errno.ENOSPC, "write")
        super().write(handle, content)
        self.observe("write")

    def truncate(self, handle: int, size: int) -> None:
        if self.uncut:
            raise OSError(errno.EIO, "truncate")
        super().truncate(handle, size)

    def sync(self, handle: int) -> None:
        del handle  # what is tested is not the disk, so it is spared
        self.hanging.set()
        self.released.wait()
        if self.sync_failures:
            self.sync_failures -= 1
            raise OSError(errno.EIO, "sync")
        self.observe("sync")

    def read(self, path: Path, offset: int, length: int) -> bytes:
        if path.suffix == ".segment" and self.unreadable(path, offset, offset + length):
            raise OSError(errno.EIO, "read")
        self.observe(f"read {path.suffix}")
        return super().read(path, offset, length)

    def may_read(self, path: Path) -> None:
        if self.unreadable(path, 0, FOREVER):
            raise OSError(errno.EIO, "open")
        super().may_read(path)

    def names(self, directory: Path) -> list[str]:
        if self.unlisted:
            raise OSError(errno.EIO, "list")
        return super().names(directory)

    def append(self, path: Path, content: bytes) -> None:
        self._change("append", path)
        super().append(path, content)

    def extend(self, path: Path, content: bytes) -> None:
        self._change("extend", path)
        super().extend(path, content)

    def write_over(self, path: Path, content: bytes, ranges: Iterable[tuple[int, int]]) -> None:
        self._change("write over", path)
        super().write_over(path, content, ranges)

    def unlink(self, path: Path) -> None:
        self._change("unlink", path)
        super().unlink(path)

    def free(self, directory: Path) -> int:
        left = self._left()
        return super().free(directory) if left is None else left

    def sync_directory(self, directory: Path) -> None:
        """Do nothing: the disk is not under test here."""
        del directory
        self.observe("sync directory")

    def _change(self, what: str, path: Path) -> None:
        if self.read_only:
            raise OSError(errno.EROFS, what)
        self.observe(f"{what} {path.suffix or path.name}")

    def _left(self) -> int | None:
        if self.room_bytes is None:
            return None
        used = sum(path.stat().st_size for path in self.directory.iterdir() if path.is_file())
        return max(0, self.room_bytes - used)
