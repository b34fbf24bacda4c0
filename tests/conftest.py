"""Fixtures of the whole suite: the broker and the database, started once and on demand."""

import asyncio
import gc
import os
import secrets
import selectors
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.by_servers import NICENESS, ByServers, runs_beside
from tests.cluster import Cluster, Topics, docker_answers, open_cluster
from tests.faults.seed import SEED_VARIABLE
from tests.java_cache import java_options
from tests.logs import reset_logging
from tests.postgres import EmbeddedPostgres, fresh_database

# The examples are the same each time; `--hypothesis-profile=default` searches for others.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")

_KIND = pytest.StashKey[str]()
_BESIDE = "beside"


# Sixty times the longest wait of a test; reached in seconds.
TURNS_MAX = 100_000


class _Jumping(selectors.SelectSelector):
    """Never blocks: the waiting time is added to the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._turns = 0  # of the loop, at this moment

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            msg = "nothing will ever happen again"
            raise RuntimeError(msg)
        self._turns += 1
        if not ready and timeout:
            self.now += timeout
            self._turns = 0
        assert self._turns < TURNS_MAX, "something runs without end while no time passes"
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop of one thread without network, in virtual time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without the project's settings."""
    for name in os.environ:
        if name.startswith(("BRIDGE_", "CONSUMER_", "DRX_AUDIT_FILE")):
            monkeypatch.delenv(name)
    return monkeypatch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--kafka",
        choices=("auto", "embedded", "docker"),
        default="auto",
        help="where the brokers run; auto: Docker when an engine answers, else embedded",
    )
    parser.addoption(
        "--postgres",
        metavar="DSN",
        help="superuser's address of the server that tests make their databases on; else an embedded one is started",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Decide once, so that the header is correct."""
    kind: str = config.getoption("--kafka")
    if kind == "auto":
        kind = "docker" if docker_answers() else "embedded"
    config.stash[_KIND] = kind
    # Once for all workers, which inherit them.
    if "JDK_JAVA_OPTIONS" not in os.environ:
        os.environ["JDK_JAVA_OPTIONS"] = java_options()
    os.environ.setdefault(SEED_VARIABLE, str(secrets.randbelow(1_000_000)))
    config.addinivalue_line("markers", "postgres: needs a real database (set where a fixture has one)")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests with garbage collection off: 4 s less for each worker."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that use a database, so that they can be run on each version of it."""
    for item in items:
        if "make_postgres" in getattr(item, "fixturenames", ()):
            item.add_marker("postgres")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByServers | None:
    """Distribute tests by shared servers, with `--dist loadscope`."""
    return ByServers(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker whether it is the low-priority one."""
    by_servers = node.config.getoption("dist") == "loadscope"
    node.workerinput[_BESIDE] = by_servers and runs_beside(node, node.workerinput["workercount"])


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> None:
    """Lower the priority of the low-priority worker, once the collection is over.

    First, since pytest-xdist's hook does not return before the last test.
    """
    if getattr(session.config, "workerinput", {}).get(_BESIDE):
        os.nice(NICENESS)


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run tests marked `virtual_time` on a loop that never waits for timers."""
    virtual = item.get_closest_marker("virtual_time")
    return {"virtual": VirtualLoop} if virtual else {"real": asyncio.new_event_loop}


def pytest_report_header(config: pytest.Config) -> str:
    postgres = "given" if config.getoption("--postgres") else "embedded"
    return f"kafka: {config.stash[_KIND]}, postgres: {postgres}, faults: {SEED_VARIABLE}={os.environ[SEED_VARIABLE]}"


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo the logging configuration of a command in this process: later tests would not see its log lines.

    Also before a test: a module fixture may have run a command.
    """
    reset_logging()
    yield
    reset_logging()


@pytest.fixture(scope="session")
def make_cluster(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[int], Cluster]]:
    """Start a separate cluster of 1 or 3 brokers; it ends with the session (or when the test stops it)."""
    with ExitStack() as stack:

        def make(brokers: int) -> Cluster:
            directory: Path = tmp_path_factory.mktemp("kafka")
            cluster = open_cluster(pytestconfig.stash[_KIND], directory, brokers=brokers)
            stack.callback(cluster.stop)
            cluster.start()
            return cluster

        yield make


@pytest.fixture(scope="session")
def cluster(make_cluster: Callable[[int], Cluster]) -> Cluster:
    """Return the one-broker cluster that all tests share; a test that kills its broker must start it again."""
    return make_cluster(1)


@pytest.fixture
def topics(cluster: Cluster) -> Topics:
    return Topics(cluster.bootstrap_servers)


@pytest.fixture
def standard_topics(topics: Topics) -> None:
    topics.standard()


@pytest.fixture(scope="session")
def make_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], EmbeddedPostgres]]:
    """Start a separate embedded server, to be stopped, killed or paused; it ends with the session."""
    with ExitStack() as stack:

        def make() -> EmbeddedPostgres:
            server = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
            stack.callback(server.close)
            server.start()
            return server

        yield make


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config, make_postgres: Callable[[], EmbeddedPostgres]) -> str:
    """Return the superuser's DSN of the server that all tests share; tests must not stop it."""
    given: str | None = pytestconfig.getoption("--postgres")
    return given or make_postgres().dsn


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """Return the superuser's DSN of an empty database for this test; it is dropped afterwards."""
    with fresh_database(postgres_server) as dsn:
        yield dsn


@pytest.fixture
def own_postgres(make_postgres: Callable[[], EmbeddedPostgres]) -> Iterator[EmbeddedPostgres]:
    """Return a running server for this test; it ends with the test."""
    server = make_postgres()
    yield server
    server.close()
