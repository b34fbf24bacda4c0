"""PostgreSQL for tests: servers that end with the test process, and a database for each test."""

import asyncio
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg  # noqa: TID251 - makes the databases that the code under test connects to
import psutil

from bridge.dev.ports import free_port
from bridge.dev.postgres import PostgresServer
from bridge.dev.programs import find_postgres
from tests.freezing import freeze, thaw

# Six scenes of faults at a time, each with several processes of eight connections. Writes of a killed server are still
# in the page cache.
SETTINGS = {"max_connections": "400", "fsync": "off", "full_page_writes": "off"}


class EmbeddedPostgres(PostgresServer):
    """A server of `bridge.dev` that may lose data in a crash of the machine, but not of the process.

    `start`, `stop`, `kill`, `pause` and `resume` block until done: from a running loop use `asyncio.to_thread`. Port
    and password stay the same. `kill` ends every process of the server at once, `pause` freezes them: connections stay
    open but silent.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        log = directory / "postgres.log"
        super().__init__(directory / "postgres", programs=find_postgres(), port=free_port(), log=log, settings=SETTINGS)

    def start(self) -> None:
        super().start()
        self.wait_ready()

    def kill(self) -> None:
        freeze(self.pid)  # so that it starts no other one meanwhile
        for process in self._processes()[1:]:
            with suppress(psutil.Error):
                process.kill()
        super().kill()

    def pause(self) -> None:
        freeze(self.pid)
        for process in self._processes():
            freeze(process.pid)

    def resume(self) -> None:
        for process in self._processes():
            thaw(process.pid)

    def _processes(self) -> list[psutil.Process]:
        try:
            server = psutil.Process(self.pid or 0)
            return [server, *server.children()] if self.pid else []
        except psutil.Error:
            return []

    def close(self) -> None:
        """Stop it and remove its data; the log is kept, for a failed test."""
        self.stop()
        shutil.rmtree(self._directory / "postgres", ignore_errors=True)


@contextmanager
def fresh_database(server: str, *, template: str = "template1") -> Iterator[str]:
    """Create a database on the server at this DSN, and drop it after the block; yield its DSN.

    It is empty, or a copy of the database `template`, which must have no connections.
    """
    name = f"test_{uuid4().hex}"
    # Copying files costs half of PostgreSQL's default, which writes every page to the write-ahead log.
    execute(server, f'create database "{name}" template "{template}" strategy file_copy')
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        execute(server, f'drop database "{name}" with (force)')


def execute(dsn: str, *statements: str) -> list[list[Any]]:
    """Run SQL outside an event loop, each statement separately; return the rows of each."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, _execute(dsn, statements)).result()


async def _execute(dsn: str, statements: tuple[str, ...]) -> list[list[Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [[tuple(row) for row in await connection.fetch(statement)] for statement in statements]
    finally:
        await connection.close()
