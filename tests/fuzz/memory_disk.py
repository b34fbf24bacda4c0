"""A reliable, fast file system in memory, so that a spool can be opened a thousand times a second."""

from itertools import count
from pathlib import Path

from bridge.spool.disk import Disk

FREE_BYTES = 1 << 40


class MemoryDisk(Disk):
    """Implements `Disk`; directories are prefixes of names."""

    def __init__(self, files: dict[Path, bytes]) -> None:
        self.files = files
        self._handles: dict[int, Path] = {}
        self._numbers = count(1)

    def make_directory(self, directory: Path) -> None:
        """Do nothing: directories are implicit."""

    def lock(self, directory: Path) -> int:
        return self._open(directory)

    def names(self, directory: Path) -> list[str]:
        return [path.name for path in self.files if path.parent == directory]

    def size(self, path: Path) -> int:
        return len(self._content(path))

    def free(self, directory: Path) -> int:  # noqa: ARG002 -- of `Disk`
        return FREE_BYTES

    def create(self, path: Path) -> int:
        if path in self.files:
            raise FileExistsError
        self.files[path] = b""
        return self._open(path)

    def write(self, handle: int, content: bytes) -> None:
        self.files[self._handles[handle]] += content

    def sync(self, handle: int) -> None:
        """All is as durable as it gets."""

    def truncate(self, handle: int, size: int) -> None:
        self.cut(self._handles[handle], size)

    def close(self, handle: int) -> None:
        del self._handles[handle]

    def read(self, path: Path, offset: int, length: int) -> bytes:
        return self._content(path)[offset : offset + length]

    def may_read(self, path: Path) -> None:
        self._content(path)

    def append(self, path: Path, content: bytes) -> None:
        self.files[path] = self.files.get(path, b"") + content

    def extend(self, path: Path, content: bytes) -> None:
        self.files[path] = self._content(path) + content

    def cut(self, path: Path, size: int) -> None:
        self.files[path] = self._content(path)[:size]

    def rename(self, path: Path, target: Path) -> None:
        self.files[target] = self._content(path)
        del self.files[path]

    def unlink(self, path: Path) -> None:
        self.files.pop(path, None)

    def sync_directory(self, directory: Path) -> None:
        """All is as durable as it gets."""

    def _open(self, path: Path) -> int:
        handle = next(self._numbers)
        self._handles[handle] = path
        return handle

    def _content(self, path: Path) -> bytes:
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError from None
