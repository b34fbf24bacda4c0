from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple, get_args

import pytest

from tests.faults.appending import Calling, appending
from tests.faults.forwarding import forwarding
from tests.faults.scene import Ground
from tests.faults.sink import Sink
from tests.faults.troubles import be_away
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka


class Case(NamedTuple):
    """How long the service is down or responds only to pings, or its percentage of failed calls."""

    away_s: float = 0.0
    percent: int = 0
    pings_s: float = 0.0
    kills: int = 0  # killed processes of each group while it responds only to pings
    records: int = 400  # of one group; each is a call of the service


CASES = [
    Case(away_s=2.0, pings_s=2.0, kills=2, records=200),
    Case(percent=30, records=200),
    pytest.param(Case(away_s=300.0), marks=pytest.mark.faults),
    pytest.param(Case(pings_s=300.0, kills=20), marks=pytest.mark.faults),
    *(pytest.param(Case(percent=each), marks=pytest.mark.faults) for each in (1, 10, 50, 70)),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    lives = Lives.of_records(case.records, seed=seed)
    with Sink(seed) as sink, ExitStack() as stack:
        scenes = [stack.enter_context(appending(ground, mode, lives, sink=sink)) for mode in get_args(Calling)]
        scenes.append(stack.enter_context(forwarding(ground, lives, sink=sink)))
        for scene in scenes:
            scene.member()
            scene.write(case.records // 2)
        sink.fail(case.percent)
        for scene in scenes:
            scene.wait_settled(1)
        if case.away_s:
            be_away(scenes, closed(sink), case.away_s, records=case.records // 4)
            for scene in scenes:
                scene.wait_settled()
        if case.pings_s:
            be_away(scenes, pings_alone(sink), case.pings_s, kills=case.kills)
        for scene in scenes:
            scene.finish()
            # But for the one prescription that the handler refuses.
            alive = [each for each in scene.members if each.alive]
            assert all(each.metric("drxbridge_park_total", **{"class": "systemic"}) == 0 for each in alive)
            assert all(each.metric("drxbridge_park_total", **{"class": "transient"}) == 0 for each in alive)
        assert bool(sink.failed) == bool(case.percent)


@contextmanager
def closed(sink: Sink) -> Iterator[None]:
    sink.close()
    yield
    sink.open()


@contextmanager
def pings_alone(sink: Sink) -> Iterator[None]:
    sink.takes = False
    yield
    sink.takes = True


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(f"{each:g}" for each in case))
def test_a_service_that_fails_costs_no_group_anything(played: Callable[[], None]) -> None:
    played()
