"""Fixtures of the faults: a broker and a database of their own, so that nothing else waits for what is killed here."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster import Cluster
from tests.faults.scene import Ground

SEED_VARIABLE = "DRX_FAULTS_SEED"
_SEED = pytest.StashKey[int]()


@pytest.fixture(scope="session")
def ground(
    make_cluster: Callable[[int], Cluster], postgres_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Ground:
    """Give servers that no other test uses, but for the database server, which nobody stops."""
    return Ground(make_cluster(1).bootstrap_servers, postgres_server, tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def seed(pytestconfig: pytest.Config) -> int:
    """Draw the seed of all that is left to chance; `DRX_FAULTS_SEED=N` gives it instead."""
    given = os.environ.get(SEED_VARIABLE)
    pytestconfig.stash[_SEED] = int(given) if given else secrets.randbelow(1_000_000)
    return pytestconfig.stash[_SEED]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the seed, also of a run in which all went well."""
    if _SEED in config.stash:
        terminalreporter.write_line(f"faults: {SEED_VARIABLE}={config.stash[_SEED]}")


@pytest.fixture(scope="module")
def together(request: pytest.FixtureRequest, ground: Ground, seed: int) -> Iterator[Callable[[object], None]]:
    """Run the cases of a module at the same time: nearly all of their time they wait for a session to run out.

    The module has a function `play(ground, case, seed)`; a test asks for the outcome of its parameter `case`.
    """
    cases = [
        item.callspec.params["case"]
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.module is request.module and "case" in item.fixturenames
    ]

    def outcome(case: object) -> None:
        try:
            played[case].result()
        except BaseException as exc:
            exc.add_note(f"again: {SEED_VARIABLE}={seed} pytest {request.module.__file__}")
            raise

    with ThreadPoolExecutor(max(1, len(cases))) as pool:
        played = {case: pool.submit(request.module.play, ground, case, seed) for case in cases}
        yield outcome
