"""Consumers are killed while their database goes away: nothing is lost, doubled, parked or out of order."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Literal, NamedTuple, get_args

import pytest

from tests.faults.archiving import archiving
from tests.faults.messaging import sending
from tests.faults.recording import Server, writing
from tests.faults.scene import Ground, Scene
from tests.faults.starting import calling, end_waits
from tests.faults.subjects import Kind, scene_of_kind
from tests.postgres import EmbeddedPostgres
from tests.temporal.server import TemporalServer
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

# Of a process after its first settled record, and of the database while it is away: both end amid the other's trouble.
WORK_S, AWAY_S = 2.0, 4.0
# A pause at each event of the short case, so that there is work left when a process is killed.
PAUSE_S = 0.02


# Those that write to what is no database.
Writer = Literal["fhir", "hl7v2", "workflow", "archive"]


class Case(NamedTuple):
    kind: Kind | Writer
    rounds: int
    records: int
    pause_s: float = 0.0


CASES = [
    Case("read_model", 2, 800, PAUSE_S),
    *(Case(kind, 1, 500) for kind in get_args(Writer)),
    *(pytest.param(Case(kind, 10, 100_000), marks=pytest.mark.faults) for kind in (*get_args(Kind), *get_args(Writer))),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    """Take the database away from a process, kill the process and the next one, and let a third see the end of it."""
    rng = random.Random(f"{seed}-{case}")  # noqa: S311 - moments, not keys
    directory = ground.directory / f"outages-{case.kind}-{case.rounds}"
    server = EmbeddedPostgres(directory)
    with ExitStack() as stack:
        stack.callback(server.close)
        server.start()
        # Files of the archive are of one day each.
        lives = Lives.of_records(case.records, seed=seed, one_day=case.kind == "archive")
        scene = stack.enter_context(_scene(replace(ground, directory=directory, postgres=server.dsn), case, lives))
        for _ in range(case.rounds):
            scene.write(case.records // case.rounds)
            _kill_in_outage(scene, server, rng)
        scene.member(**scene.subject.unpaused)
        if case.kind == "workflow":
            end_waits(scene)
        scene.finish()


@contextmanager
def _scene(ground: Ground, case: Case, lives: Lives) -> Iterator[Scene]:
    with ExitStack() as stack:
        match case.kind:
            case "fhir":
                yield stack.enter_context(writing(ground, lives, stack.enter_context(Server())))
            case "hl7v2":
                yield stack.enter_context(sending(ground, lives))[0]
            case "workflow":
                server = TemporalServer(ground.directory, options=("-Xmx2g",))
                yield stack.enter_context(calling(ground, lives, stack.enter_context(server)))
            case "archive":
                yield stack.enter_context(archiving(ground, lives))[0]
            case kind:
                yield stack.enter_context(scene_of_kind(ground, kind, lives, pause_s=case.pause_s))


def _kill_in_outage(scene: Scene, server: EmbeddedPostgres, rng: random.Random) -> None:
    before = scene.settled()
    scene.member()
    scene.wait_settled(before + 1)
    time.sleep(rng.uniform(0, WORK_S))
    server.kill()
    for _ in range(2):
        time.sleep(rng.uniform(0, AWAY_S / 2))
        scene.members[-1].kill()
        scene.forget_members()
        scene.member()
    time.sleep(rng.uniform(0, AWAY_S / 2))
    server.start()
    time.sleep(rng.uniform(0, WORK_S))
    scene.members[-1].kill()
    scene.forget_members()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}-{case.rounds}")
def test_kills_while_the_database_is_away_cost_nothing(played: Callable[[], None]) -> None:
    played()
