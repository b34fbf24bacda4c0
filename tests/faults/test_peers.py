"""Three groups of a consumer at once, killed, frozen or without their peer: nothing is lost, parked or doubled."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple

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
    """How often a process of each group dies, first after an effect and before its commit, or what else happens.

    Attributes:
        away_s: How long what they write to is away, after calls have failed; before that it goes away for
            moments, `restarts` times, amid whatever is under way.
        late: One write in this many is done after its client has given up and written again.
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


def test_no_prescription_is_given_to_a_patient_with_the_number_of_another(ground: Ground, seed: int) -> None:
    """Of every fifth one the server knows somebody else by that number."""
    lives = Lives.of_records(RECORDS["fhir"], seed=seed)
    who: dict[str, Any] = {
        lives.prescription_id(each): lives.events(each)[0].value["patient"] for each in range(lives.prescriptions)
    }
    strangers = set(list(who)[::5])
    with Server() as server, writing(ground, lives, server, REFERENCES="search") as scene:
        system = scene.subject.options["MRN_SYSTEM"]
        for key, patient in who.items():
            identifier = [{"system": system, "value": patient["mrn"]}]
            born = "1901-01-01" if key in strangers else str(patient["date_of_birth"])
            person = {"resourceType": "Patient", "id": key, "identifier": identifier, "birthDate": born}
            server.fake.put(person)
        scene.write()
        scene.member()
        scene.wait_settled()

        assert set(scene.ask("select distinct key, code from drx_consumer.parked_key")) == {
            (key, "patient_mismatch") for key in strangers
        }
        subjects = {
            had["value"]: each["subject"]["reference"]
            for each in server.kept(system.removesuffix("mrn")).values()
            for had in each.get("identifier", ())
            if had["system"].endswith(":prescription")
        }
        assert subjects == {key: f"Patient/{key}" for key in who.keys() - strangers}
