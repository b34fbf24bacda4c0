"""Stores of a lake: a directory or an S3 bucket. Every call blocks.

Both write files atomically; a write that has returned survives a power failure.
"""

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple
from uuid import uuid4

from pyarrow import fs  # noqa: TID251 - this module wraps it

from bridge.errors import ConfigError, TransientError

# Outside the readers' directories, since DuckDB's patterns also match names that begin with `_` or `.`.
STAGING = "staging"
# Permanent errors: the directory is wrong, or has another owner.
_UNUSABLE = frozenset({errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EROFS, errno.ENAMETOOLONG})
# Bytes of the probe file: larger than a file of one event, since a full disk still accepts an empty one.
PROBE_BYTES = 1024 * 1024
# Timeouts in seconds; a response takes milliseconds, a file of a megabyte tenths of a second.
_CONNECT_S, _REQUEST_S, _ATTEMPTS = 3.0, 20.0, 3
# Flag of renameat2(2), Linux 3.15, which Python lacks. Network file systems return EINVAL.
_EXCHANGE, _AT_FDCWD = 2, -100


class StoredFile(NamedTuple):
    """An entry of a directory: its name, and when it was written, Unix seconds."""

    name: str
    written_at: float


class LakeDirectory:
    """Files below a directory, possibly shared by hosts; every method raises a systemic `TransientError` on failure."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self) -> None:
        """Create the directories and write to them; `ConfigError` for a permanent error."""
        try:
            (self._root / STAGING).mkdir(parents=True, exist_ok=True)
            with self._part() as file:
                file.write(os.urandom(PROBE_BYTES))
                _force_file(file)
        except OSError as exc:
            if exc.errno not in _UNUSABLE:
                raise _translated(exc) from exc
            raise ConfigError(f"archive.root: {self._root} cannot be used ({exc.strerror})") from None

    @contextmanager
    def create(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file for writing; at the end of the block it is durable, and replaces any former one."""
        there = self._root / path
        with _away(), self._part() as file:
            yield file
            _force_file(file)
            there.parent.mkdir(exist_ok=True)
            Path(file.name).replace(there)
            _force(there.parent)

    def write(self, path: str, content: bytes) -> None:
        """Write a file, replacing any former one."""
        with self.create(path) as file:
            file.write(content)

    def read(self, path: str) -> bytes | None:
        """Return the content of a file; None if there is none."""
        with _away(), suppress(FileNotFoundError):
            return (self._root / path).read_bytes()
        return None

    @contextmanager
    def input(self, path: str) -> Iterator[IO[bytes]]:
        """Open a file for random access reading."""
        with _away(), (self._root / path).open("rb") as file:
            yield file

    def move(self, path: str, target: str) -> bool:
        """Rename a file, and sync the directories; False if there is none."""
        source, there = self._root / path, self._root / target
        with _away():
            there.parent.mkdir(parents=True, exist_ok=True)
            try:
                source.rename(there)
            except FileNotFoundError:
                return False
            self._force_up(there.parent)
        return True

    def exchanges(self) -> bool:
        """Return whether `exchange` works here, by trying it on two directories."""
        one, other = (self._root / STAGING / f"{uuid4().hex}.probe" for _ in range(2))
        with _away():
            try:
                one.mkdir()
                other.mkdir()
                return _exchange(one, other) == 0
            finally:
                for each in (one, other):
                    with suppress(OSError):
                        each.rmdir()

    def link(self, path: str, target: str) -> None:
        """Create a hard link to a file."""
        with _away():
            (self._root / target).hardlink_to(self._root / path)

    def exchange(self, directory: str, other: str) -> None:
        """Exchange two directories atomically; the replaced one gets the current time, for its later removal."""
        one, there = self._root / directory, self._root / other
        with _away():
            os.utime(there)
            _force(one)
            code = _exchange(one, there)
            if code:
                raise OSError(code, os.strerror(code))
            self._force_up(there)
            self._force_up(one.parent)

    def exists(self, path: str) -> bool:
        """Return whether a file exists."""
        with _away():
            return (self._root / path).exists()

    def remove(self, path: str) -> None:
        """Remove a file, or a directory with its content, if it exists."""
        there = self._root / path
        with _away():
            if there.is_dir():
                shutil.rmtree(there)
            else:
                there.unlink(missing_ok=True)

    def entries(self, directory: str) -> list[StoredFile]:
        """Return the direct entries of a directory."""
        with _away(), os.scandir(self._root / directory) as entries:
            return [StoredFile(each.name, each.stat().st_mtime) for each in entries]

    def files(self, directory: str) -> list[str]:
        """Return the paths of all files below a directory."""
        with _away():
            below = os.walk(self._root / directory)
            return [str(Path(top, name).relative_to(self._root)) for top, _, names in below for name in names]

    @contextmanager
    def _part(self) -> Iterator[IO[bytes]]:
        """Open a temporary file, removed at the end of the block unless renamed."""
        part = self._root / STAGING / f"{uuid4().hex}.part"
        try:
            with part.open("xb") as file:
                yield file
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def _force_up(self, directory: Path) -> None:
        """Sync a directory and its parents, up to the root."""
        while directory != self._root:
            _force(directory)
            directory = directory.parent
        _force(self._root)


class Bucket:
    """Files in a bucket of S3 or a compatible service.

    Credentials and region come from the environment, as for every S3 client. There is no rename: a file is copied and
    then removed. After a crash in between, the same bytes are copied again.
    """

    def __init__(self, root: str, *, endpoint: str) -> None:
        """`root` is bucket and prefix, `endpoint` the server's URL (default: Amazon S3); does not connect yet."""
        scheme, _, address = endpoint.partition("://")
        self._root = root
        self._files = fs.S3FileSystem(
            connect_timeout=_CONNECT_S,
            request_timeout=_REQUEST_S,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
            **({"endpoint_override": address, "scheme": scheme} if endpoint else {}),
        )

    def open(self) -> None:
        """Write a file and remove it; the bucket must exist."""
        path = f"{STAGING}/{uuid4().hex}.probe"
        self.write(path, os.urandom(PROBE_BYTES))
        self.remove(path)

    @contextmanager
    def create(self, path: str) -> Iterator[IO[bytes]]:
        """Open an object for writing; it becomes visible when complete."""
        with _away(), self._files.open_output_stream(f"{self._root}/{path}") as stream:
            yield stream

    def write(self, path: str, content: bytes) -> None:
        """Write an object."""
        with self.create(path) as stream:
            stream.write(content)

    def read(self, path: str) -> bytes | None:
        """Return the content of an object; None if there is none."""
        with _away(), suppress(FileNotFoundError), self._files.open_input_stream(f"{self._root}/{path}") as stream:
            return bytes(stream.read())
        return None

    @contextmanager
    def input(self, path: str) -> Iterator[Any]:
        """Open an object for random access reading."""
        with _away(), self._files.open_input_file(f"{self._root}/{path}") as file:
            yield file

    def move(self, path: str, target: str) -> bool:
        """Copy an object and remove the original; False if there is none."""
        with _away():
            if not self.exists(path):
                return False
            self._files.copy_file(f"{self._root}/{path}", f"{self._root}/{target}")
            self._files.delete_file(f"{self._root}/{path}")
        return True

    def exchanges(self) -> bool:
        """Return False: a server changes one object at a time."""
        return False

    def link(self, path: str, target: str) -> None:
        """Refuse, as does `exchange`."""
        raise NotImplementedError

    exchange = link

    def exists(self, path: str) -> bool:
        """Return whether an object exists."""
        with _away():
            return bool(self._files.get_file_info(f"{self._root}/{path}").type == fs.FileType.File)

    def remove(self, path: str) -> None:
        """Delete objects."""
        with _away(), suppress(FileNotFoundError):
            self._files.delete_file(f"{self._root}/{path}")

    def entries(self, directory: str) -> list[StoredFile]:
        """Return the objects below a prefix."""
        return [StoredFile(each.base_name, each.mtime.timestamp()) for each in self._below(directory, recursive=False)]

    def files(self, directory: str) -> list[str]:
        """Return the paths of all objects below a prefix."""
        return [each.path.removeprefix(f"{self._root}/") for each in self._below(directory, recursive=True)]

    def _below(self, directory: str, *, recursive: bool) -> list[fs.FileInfo]:
        place = fs.FileSelector(f"{self._root}/{directory}", allow_not_found=True, recursive=recursive)
        with _away():
            return [each for each in self._files.get_file_info(place) if each.type == fs.FileType.File]


Store = LakeDirectory | Bucket


@contextmanager
def _away() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise _translated(exc) from exc


def _translated(exc: OSError) -> TransientError:
    # Only a constant of the platform, such as ENOSPC; the message contains a path or a response of S3.
    return TransientError(f"lake_{errno.errorcode.get(exc.errno or 0, 'unavailable').lower()}", systemic=True)


def _exchange(one: Path, other: Path) -> int:
    """Exchange two directories; return 0 or the errno."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:  # not Linux, or another C library
        return errno.ENOSYS
    failed = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE)
    return ctypes.get_errno() if failed else 0


def _force_file(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _force(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
