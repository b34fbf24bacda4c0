"""A host's disk: synced data survives a power cut, other data may vanish or be torn; faults can be injected.

All writes of a killed process survive, since the kernel has them; after a power cut only synced data does, and of the
other pages any mix of old and new. After a sync that failed the pages count as clean, as in Linux: a later sync of the
same file succeeds without writing them, except those that were written to again.
"""

import asyncio
import errno
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, TypeVar

from bridge.runtime.io_thread import IOThread
from bridge.spool.disk import Disk
from tests.simulation.loop import PROCESS, Process
from tests.simulation.world import World

_Result = TypeVar("_Result")

SECTOR, PAGE = 512, 4096  # bytes that a disk writes whole; bytes that the kernel writes together


class Killed(BaseException):
    """Ends the current call of a killed process."""


@dataclass(eq=False)
class File:
    """The data that reads return, the data on the medium, and the pages that the next sync writes to it."""

    content: bytearray = field(default_factory=bytearray)
    stored: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)

    def write(self, start: int, content: bytes) -> None:
        if content:
            content = bytes(max(0, start - len(self.content))) + content
            start = min(start, len(self.content))
            end = start + len(content)
            self.content[start:end] = content
            self.dirty.update(range(start // PAGE, -(-end // PAGE)))

    def resize(self, size: int) -> None:
        """Cut the file, or fill it with zeros."""
        del self.content[size:]
        self.write(len(self.content), bytes(size - len(self.content)))

    def sync(self) -> None:
        for page in self.dirty:
            self._store(page, PAGE)
        self.dirty.clear()
        self._store_size(len(self.content))

    def fail_to_sync(self, rng: Random) -> None:
        """Write some pages; all count as clean from now on."""
        for page in sorted(self.dirty):
            self._store(page, rng.choice((0, PAGE, rng.randrange(0, PAGE, SECTOR))))
        self.dirty.clear()

    def lose_power(self, rng: Random) -> None:
        """Keep what is on the medium, with some of the pages that the kernel was to write, and some size."""
        sizes = [len(self.stored), len(self.content)]
        if sizes[0] < sizes[1]:
            sizes.append(rng.randint(*sizes))
        self.fail_to_sync(rng)
        self._store_size(rng.choice(sizes))
        self.content = self.stored.copy()

    def _store(self, page: int, size: int) -> None:
        start = page * PAGE
        end = min(start + size, len(self.content))
        if start < end:
            self.stored += bytes(max(0, start - len(self.stored)))
            self.stored[start:end] = self.content[start:end]

    def _store_size(self, size: int) -> None:
        del self.stored[size:]
        self.stored += bytes(size - len(self.stored))


@dataclass(eq=False)
class Faults:
    """The current faults of the disk; probabilities are per operation of that kind."""

    write: float = 0.0
    sync: float = 0.0
    read: float = 0.0
    read_only: bool = False
    room_bytes: int | None = None
    slow_s: float = 0.0
    hangs: bool = False


class SimulatedDisk(Disk):
    """The file system of one host."""

    def __init__(self, world: World, host: str) -> None:
        self._world = world
        self._rng = world.stream(f"disk {host}")
        self.host = host
        self.files: dict[Path, File] = {}
        self.durable: dict[Path, File] = {}  # names as the last sync of their directory left them
        self.faults = Faults()
        self.failing_since = 0.0  # when reads began to fail
        self.delayed_at = 0.0  # when a call that was slow or hung last went on
        self.operations = 0
        self.kill_at = -1  # at which operation a process is killed
        self.on_kill: Callable[[Process], None] = lambda _process: None
        self._handles: dict[int, File | Process] = {}
        self._next = 1
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def used_bytes(self) -> int:
        """Bytes that its files take."""
        return sum(len(file.content) for file in self.files.values())

    def cut_power(self) -> None:
        """Lose unsynced data."""
        rng = self._rng
        names = dict(self.durable)
        for path in sorted({*self.files, *self.durable}):
            if (path in self.files) != (path in self.durable) and rng.random() < 0.5:
                if path in self.files:
                    names[path] = self.files[path]
                else:
                    names.pop(path, None)
        for file in dict.fromkeys(names.values()):
            file.lose_power(rng)
        self.files, self.durable = dict(names), dict(names)
        self._handles.clear()

    def turn_a_bit(self, path: Path) -> int:
        """Return the offset of its byte."""
        file = self.files[path]
        at, bit = self._rng.randrange(len(file.content)), 1 << self._rng.randrange(8)
        file.content[at] ^= bit
        if at < len(file.stored):
            file.stored[at] ^= bit
        return at

    def hang(self) -> None:
        self.faults.hangs = True

    def flow(self) -> None:
        self.faults.hangs = False
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.done():
                each.set_result(None)

    async def turn(self) -> None:
        """Wait until the disk handles the next call."""
        came_at, delay_s = self._world.loop.time(), self._rng.uniform(0.0001, 0.002)
        if self.faults.slow_s and self._rng.random() < 0.5:
            delay_s += self._rng.random() * self.faults.slow_s
        await asyncio.sleep(delay_s)
        while self.faults.hangs:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        if (now := self._world.loop.time()) - came_at > 0.01:
            self.delayed_at = now

    def late(self) -> bool:
        """Return whether the result of a call arrives after the call was done."""
        return self._rng.random() < 0.5

    def _count(self) -> None:
        process = PROCESS.get()
        self.operations += 1
        if process is not None and self.operations == self.kill_at:
            self.on_kill(process)
        if process is not None and not process.alive:
            raise Killed

    def _meets(self, probability: float) -> bool:
        return probability > 0 and self._rng.random() < probability

    def _change(self) -> None:
        self._count()
        if self.faults.read_only:
            raise OSError(errno.EROFS, "read only")

    # The methods of `Disk`.

    def make_directory(self, directory: Path) -> None:  # noqa: ARG002 - of `Disk`
        self._count()  # one that exists is no error on a read-only disk, either

    def lock(self, directory: Path) -> int:  # noqa: ARG002 - of `Disk`
        self._count()
        mine = PROCESS.get()
        assert mine is not None
        for held in self._handles.values():
            if isinstance(held, Process) and held.alive and held is not mine:
                raise BlockingIOError(errno.EWOULDBLOCK, "locked")
        return self._open(mine)

    def is_locked(self) -> bool:
        return any(isinstance(held, Process) and held.alive for held in self._handles.values())

    def names(self, directory: Path) -> list[str]:
        self._count()
        return [path.name for path in self.files if path.parent == directory]

    def size(self, path: Path) -> int:
        self._count()
        return len(self._file(path).content)

    def free(self, directory: Path) -> int:  # noqa: ARG002 - of `Disk`
        self._count()
        left = self._left()
        return 1 << 40 if left is None else left

    def create(self, path: Path) -> int:
        self._change()
        if path in self.files:
            raise FileExistsError(errno.EEXIST, "exists")
        file = self.files[path] = File()
        return self._open(file)

    def write(self, handle: int, content: bytes) -> None:
        self._append(self._of(handle), content)

    def sync(self, handle: int) -> None:
        self._sync(self._of(handle))

    def truncate(self, handle: int, size: int) -> None:
        self._change()
        self._of(handle).resize(size)

    def close(self, handle: int) -> None:
        self._count()
        self._handles.pop(handle, None)

    def read(self, path: Path, offset: int, length: int) -> bytes:
        self._count()
        file = self._file(path)
        if path.suffix == ".segment" and self._meets(self.faults.read):
            raise OSError(errno.EIO, "read")
        return bytes(file.content[offset : offset + length])

    def may_read(self, path: Path) -> None:
        self._count()
        self._file(path)

    def may_write(self, directory: Path) -> None:  # noqa: ARG002 - of `Disk`
        self._change()

    def append(self, path: Path, content: bytes) -> None:
        self._change()
        file = self.files.setdefault(path, File())
        self._append_whole(file, content)

    def extend(self, path: Path, content: bytes) -> None:
        self._change()
        file = self._file(path)
        self._append_whole(file, content)
        self._sync(file)

    def write_over(self, path: Path, content: bytes, ranges: Iterable[tuple[int, int]]) -> None:
        self._change()
        file = self._file(path)
        for start, end in ranges:
            if self._meets(self.faults.write):
                raise OSError(errno.EIO, "write")
            file.write(start, content[start:end])
        file.resize(len(content))
        self._sync(file)

    def rename(self, path: Path, target: Path) -> None:
        self._change()
        self.files[target] = self._file(path)
        del self.files[path]

    def unlink(self, path: Path) -> None:
        self._change()
        self.files.pop(path, None)

    def sync_directory(self, directory: Path) -> None:
        self._count()
        for path in [each for each in self.durable if each.parent == directory]:
            del self.durable[path]
        self.durable |= {path: file for path, file in self.files.items() if path.parent == directory}

    def _append(self, file: File, content: bytes) -> None:
        self._change()
        if self._meets(self.faults.write):
            file.write(len(file.content), content[: self._rng.randrange(len(content) + 1)])
            raise OSError(errno.EIO, "write")
        left = self._left()
        if left is not None and left < len(content):
            file.write(len(file.content), content[:left])
            raise OSError(errno.ENOSPC, "write")
        file.write(len(file.content), content)

    def _append_whole(self, file: File, content: bytes) -> None:
        before = len(file.content)
        try:
            self._append(file, content)
        except OSError:
            file.resize(before)
            raise

    def _sync(self, file: File) -> None:
        self._count()
        if self._meets(self.faults.sync):
            file.fail_to_sync(self._rng)
            raise OSError(errno.EIO, "sync")
        file.sync()

    def _left(self) -> int | None:
        if self.faults.room_bytes is None:
            return None
        return max(0, self.faults.room_bytes - self.used_bytes)

    def _open(self, what: File | Process) -> int:
        self._next += 1
        self._handles[self._next] = what
        return self._next

    def _of(self, handle: int) -> File:
        found = self._handles.get(handle)
        if not isinstance(found, File):
            raise OSError(errno.EBADF, "handle")
        return found

    def _file(self, path: Path) -> File:
        try:
            return self.files[path]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "missing") from None


class InlineThread(IOThread):
    """Runs calls in order on the loop, each when the disk handles it."""

    def __init__(self, disk: SimulatedDisk, _name: str) -> None:
        self._disk = disk
        self._queue: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._task: asyncio.Task[None] | None = None

    def run(self, work: Callable[[], _Result]) -> "asyncio.Future[_Result]":
        outcome: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._queue.append((work, outcome))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return outcome

    def end(self) -> None:
        """Do nothing: there is no thread."""

    async def _work(self) -> None:
        while self._queue:
            await self._disk.turn()
            work, outcome = self._queue.popleft()
            if outcome.cancelled():
                continue
            try:
                result = work()
            except Exception as exc:  # noqa: BLE001 - as a thread hands over whatever is raised
                settle: Callable[[], None] = partial(outcome.set_exception, exc)
            else:
                settle = partial(outcome.set_result, result)
            if self._disk.late():
                await self._disk.turn()
            if not outcome.done():
                settle()
        self._task = None
