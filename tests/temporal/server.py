"""Temporal's Java test server, whose time can be skipped; it stores everything in memory.

`python -m tests.temporal.server` (`make temporal-server`) fetches its jars, 33 MB, each with the hash of the lock;
without it, the tests that need it are skipped. `python -m tests.temporal.server run PORT` runs a server for
experiments, until it is interrupted.

It differs from a server in production: it creates any requested namespace, has no limits of size and does not recognise
a repeated signal by its request id.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from bridge.dev.jars import JarCache, cache_dir
from bridge.dev.ports import HOST, free_port
from bridge.dev.programs import find_java
from tests.java_cache import SHORT_LIVED
from tests.java_program import start
from tests.ports import listens

LOCK = Path(__file__).with_name("server.lock.toml")
_MAIN = "io.temporal.testserver.TestServer"


def jars() -> JarCache:
    """Return the folder of its jars."""
    return JarCache(cache_dir() / "temporal", lock=LOCK)


def is_built() -> bool:
    """Return whether it can be started."""
    return all(Path(each).exists() for each in jars().class_path.split(os.pathsep))


def _command(port: int, options: Sequence[str]) -> list[str]:
    return [str(find_java()), *options, "-cp", jars().class_path, _MAIN, str(port)]


class TemporalServer:
    """A server that ends with the process that started it."""

    def __init__(self, directory: Path, *, options: tuple[str, ...] = (SHORT_LIVED,)) -> None:
        """Write a log to `directory`; `options` are of the JVM."""
        self._log = directory / "temporal.log"
        self._options = options
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Its address, host:port."""
        return f"{HOST}:{self._port}"

    def __enter__(self) -> Self:
        """Return when it listens; skip the test where there is no server."""
        if not is_built():
            pytest.skip("no Temporal server: `make temporal-server` fetches it, 33 MB")
        self._process = start(_command(self._port, self._options), self._log, is_ready=lambda: listens(self._port))
        return self

    def __exit__(self, *_: object) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze it for the block; it keeps its data."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["run", port]:
            command = _command(int(port), ())
            os.execv(command[0], command)  # noqa: S606 - ours
        case _:
            jars().fetch()
