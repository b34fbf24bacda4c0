"""Three groups of a consumer, killed, frozen or without their sink: no event is lost, parked or doubled."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Literal, NamedTuple

import pytest

from tests.faults.messaging import sending
from tests.faults.recording import Server, writing
from tests.faults.scene import Ground, Scene
from tests.faults.starting import calling
from tests.faults.troubles import MAX_POLL_S, RECORDS_PER_KILL, Peer, be_away, closed, freeze, kill
from tests.temporal.server import TemporalServer
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

GROUPS = 3
# Of one group; each is a transaction, a message, or about every third a call.
RECORDS = {"fhir": 90, "hl7v2": 150, "workflow": 150}
# The client of `fhir` has given up after 5 s, and written again within its first pauses.
LATE_S = 9.0


class Case(NamedTuple):
    """The kills of each group, first after an effect and before its commit, or other faults.

    Attributes:
        away_s: How long what they write to is away, after calls have failed; before that it goes away for
            moments, `restarts` times, amid whatever is under way.
        late: One write in this many is done after its client's timeout and retry.
    """

    what: Literal["fhir", "hl7v2", "workflow"]
    kills: int = 0
    restarts: int = 0
    away_s: float = 0.0
    frozen: bool = False
    late: int = 0


CASES = [
    Case("fhir", kills=1, away_s=2.0),
    Case("hl7v2", kills=1, restarts=3, away_s=2.0),
    Case("workflow", kills=1, away_s=2.0),
    *(
        pytest.param(each, marks=pytest.mark.faults)
        for what in ("fhir", "hl7v2", "workflow")
        for each in (Case(what, kills=20), Case(what, away_s=300.0), Case(what, frozen=True))
    ),
    pytest.param(Case("hl7v2", kills=20, restarts=10), marks=pytest.mark.faults),
    pytest.param(Case("fhir", late=8), marks=pytest.mark.faults),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    records = RECORDS[case.what]
    lives = Lives.of_records(records + RECORDS_PER_KILL * case.kills, seed=seed)
    with _groups(ground, case, lives) as (scenes, peers, away):
        for scene in scenes:
            scene.write(records // 2)  # so that `workflow` has enough calls to die at one
        kill(scenes, case.kills)
        for scene in scenes:
            scene.write(records // 4)
            before = scene.settled()
            scene.member("", MAX_POLL_S)
            scene.wait_settled(before + 1)
        for _ in range(case.restarts):
            for scene, peer in zip(scenes, peers, strict=True):
                scene.write(records // 50)
                with closed([peer]):
                    pass
        if case.away_s:
            be_away(scenes, away(), case.away_s)
        if case.frozen:
            freeze(scenes)
        for scene in scenes:
            scene.finish()


@contextmanager
def _groups(
    ground: Ground, case: Case, lives: Lives
) -> Iterator[tuple[list[Scene], Sequence[Peer], Callable[[], AbstractContextManager[None]]]]:
    with ExitStack() as stack:
        match case.what:
            case "fhir":
                server = stack.enter_context(Server())
                if case.late:
                    server.fake.late_s = lambda number: 0.0 if number % case.late else LATE_S
                # For two of them the server chooses the ids.
                told = [writing(ground, lives, server, IDS=ids) for ids in ("client", "server", "server")]
                yield [stack.enter_context(each) for each in told], [server], partial(closed, [server])
            case "hl7v2":
                pairs = [stack.enter_context(sending(ground, lives)) for _ in range(GROUPS)]
                receivers = [receiver for _, receiver in pairs]
                yield [scene for scene, _ in pairs], receivers, partial(closed, receivers)
            case "workflow":
                directory = ground.directory / "-".join(map(str, case))
                directory.mkdir()
                temporal = stack.enter_context(TemporalServer(directory))
                scenes = [stack.enter_context(calling(ground, lives, temporal)) for _ in range(GROUPS)]
                yield scenes, (), temporal.frozen


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_three_groups_end_with_what_their_events_come_to(played: Callable[[], None]) -> None:
    played()
