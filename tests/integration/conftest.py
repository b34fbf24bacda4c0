"""Fixtures of several modules; a module that needs other tables of consumers defines another `database`."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from consumers.postgres.pool import Database
from consumers.runtime.ledger import Ledger
from tests.cluster import Cluster
from tests.integration.dev_process import DevProcess
from tests.integration.service_process import HANG_S
from tests.ledger import GROUP, ledger_database
from tests.postgres import fresh_database
from tests.read_model import ReadModel, open_model


@contextmanager
def a_template(server: str, with_tables: Callable[[str], AbstractAsyncContextManager[Any]]) -> Iterator[str]:
    """Return the name of a database with tables: copying it takes half the time of creating them."""

    async def make(dsn: str) -> None:
        async with with_tables(dsn):
            pass

    with fresh_database(server) as dsn:
        asyncio.run(make(dsn))
        yield urlsplit(dsn).path.removeprefix("/")


@pytest.fixture(scope="session")
def ledger_template(postgres_server: str) -> Iterator[str]:
    with a_template(postgres_server, ledger_database) as name:
        yield name


@pytest.fixture(scope="session")
def model_template(postgres_server: str) -> Iterator[str]:
    with a_template(postgres_server, open_model) as name:
        yield name


@pytest.fixture
def ledger_dsn(postgres_server: str, ledger_template: str) -> Iterator[str]:
    with fresh_database(postgres_server, template=ledger_template) as dsn:
        yield dsn


@pytest.fixture
async def database(ledger_dsn: str) -> AsyncIterator[Database]:
    async with ledger_database(ledger_dsn) as database:
        yield database


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database, group=GROUP, cluster_id="cluster-a")


@pytest.fixture(scope="session")
def shared_dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevProcess]:
    """A stack under a path with special characters."""
    with DevProcess(tmp_path_factory.mktemp("dev") / ("long" * 40) / "with space, comma and é" / "stack") as process:
        yield process


@pytest.fixture
def dev(shared_dev: DevProcess) -> DevProcess:
    """One stack for tests that do not change it; restarted if a test has stopped it."""
    if not shared_dev.alive:
        shared_dev.start()
    shared_dev.ready()
    return shared_dev


@pytest.fixture
def kafka(cluster: Cluster, standard_topics: None) -> str:  # noqa: ARG001 - they are to be there
    return cluster.bootstrap_servers


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Return a session without a connection limit, which ends a test that hangs."""
    async with asyncio.timeout(HANG_S), aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as opened:
        yield opened


@pytest.fixture
def model_dsn(postgres_server: str, model_template: str) -> Iterator[str]:
    with fresh_database(postgres_server, template=model_template) as dsn:
        yield dsn


@pytest.fixture
async def model(model_dsn: str) -> AsyncIterator[ReadModel]:
    async with open_model(model_dsn) as opened:
        yield opened
