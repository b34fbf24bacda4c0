import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from tests.cluster import Cluster
from tests.faults.scene import Ground
from tests.faults.seed import SEED_VARIABLE

# Each case is a process or two; on a machine with two cores, more cases only wait for each other.
TOGETHER = 6
# Started first, so that the others run next to them.
LONGEST = ("test_kills_in_outages", "test_random_kills", "test_rebalances")


@pytest.fixture(scope="session")
def ground(
    make_cluster: Callable[[int], Cluster], postgres_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Ground:
    """Return a broker that no other test uses, and the shared database server; neither is stopped."""
    return Ground(make_cluster(1).bootstrap_servers, postgres_server, tmp_path_factory.mktemp("faults"))


@pytest.fixture(scope="session")
def seed() -> int:
    return int(os.environ[SEED_VARIABLE])


@pytest.fixture(scope="session")
def playing(request: pytest.FixtureRequest, ground: Ground, seed: int) -> Iterator[Mapping[str, Future[None]]]:
    """Run all cases at the same time, since they mostly wait: for joins, pauses and sessions.

    A module has a function `play(ground, case, seed)`, and its tests are parametrized by `case`.
    """
    items = [
        each
        for each in request.session.items
        if isinstance(each, pytest.Function) and hasattr(each.module, "play") and "played" in each.fixturenames
    ]
    items.sort(key=lambda item: item.module.__name__.rpartition(".")[2] not in LONGEST)
    with ThreadPoolExecutor(TOGETHER) as pool:
        yield {item.nodeid: pool.submit(item.module.play, ground, item.callspec.params["case"], seed) for item in items}


@pytest.fixture
def played(
    request: pytest.FixtureRequest, case: object, playing: Mapping[str, Future[None]], seed: int
) -> Callable[[], None]:
    del case

    def outcome() -> None:
        node: str = request.node.nodeid
        try:
            playing[node].result()
        except BaseException as exc:
            exc.add_note(f"again: {SEED_VARIABLE}={seed} pytest '{node}'")
            raise

    return outcome
