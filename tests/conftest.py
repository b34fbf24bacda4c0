"""Fixtures of the whole suite: the broker, started once and only when a test asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests.cluster import Cluster, Topics, docker_answers, open_cluster

# A change is judged by the same examples each time; `--hypothesis-profile=default` goes looking for others.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.load_profile("steady")

_KIND = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--kafka`."""
    parser.addoption(
        "--kafka",
        choices=("auto", "embedded", "docker"),
        default="auto",
        help="where the brokers run; auto: Docker when an engine answers, else embedded",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Decide once, so that the header tells the truth."""
    kind: str = config.getoption("--kafka")
    if kind == "auto":
        kind = "docker" if docker_answers() else "embedded"
    config.stash[_KIND] = kind


def pytest_report_header(config: pytest.Config) -> str:
    """Say which brokers the suite runs on."""
    return f"kafka: {config.stash[_KIND]}"


@pytest.fixture(scope="session")
def make_cluster(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[int], Cluster]]:
    """Start a cluster of 1 or 3 brokers of its own; it ends with the session (or when the test stops it)."""
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
    """Give the one-broker cluster that all tests share; who kills its broker must start it again."""
    return make_cluster(1)


@pytest.fixture
def topics(cluster: Cluster) -> Topics:
    """Give topics on the shared cluster."""
    return Topics(cluster.bootstrap_servers)
