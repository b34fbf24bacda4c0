"""Three groups of `fhir` at once, killed, frozen or without their server: nothing is lost, parked or there twice."""

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.faults.recording import RealServer, Server, recording, writing
from tests.faults.scene import Ground
from tests.faults.troubles import MAX_POLL_S, RECORDS_PER_KILL, be_away, closed, freeze, kill
from tests.fhir.hapi import is_built
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

# Of one group; each is a transaction of the server.
RECORDS = 90
# The client has given up after 5 s, and written again within its first pauses.
LATE_S = 9.0


class Case(NamedTuple):
    """How often a process of each group dies after a write and before its commit, or for how long what is away.

    Attributes:
        late: One write in this many is done after its client has given up and written again.
        real: The server is HAPI FHIR, which chooses all ids.
    """

    kills: int = 0
    away_s: float = 0.0
    frozen: bool = False
    late: int = 0
    real: bool = False


CASES = [
    Case(kills=1),
    Case(away_s=3.0),
    *(
        pytest.param(each, marks=pytest.mark.faults)
        for each in (Case(kills=20), Case(away_s=300.0), Case(frozen=True), Case(late=8))
    ),
    pytest.param(
        Case(kills=3, real=True),
        marks=[
            pytest.mark.faults,
            pytest.mark.skipif(not is_built(), reason="no HAPI FHIR server: `make fhir-server`"),
        ],
    ),
]


def play(ground: Ground, case: Case, seed: int) -> None:
    lives = Lives.of_records(RECORDS + RECORDS_PER_KILL * case.kills, seed=seed)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server: RealServer | Server = RealServer(directory) if case.real else Server()
        stack.enter_context(server)
        scenes = stack.enter_context(recording(ground, lives, server))
        for scene in scenes:
            scene.write(RECORDS // 2)
        if case.late and isinstance(server, Server):
            server.fake.late_s = lambda number: 0.0 if number % case.late else LATE_S
        kill(scenes, case.kills)
        for scene in scenes:
            scene.member("", MAX_POLL_S)
            scene.wait_settled(1)
        if case.away_s:
            be_away(scenes, closed([server]), case.away_s)
        if case.frozen:
            freeze(scenes)
        for scene in scenes:
            scene.finish()


@pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{case.kills}-{case.away_s:g}-{case.frozen}-{case.late}-{case.real}"
)
def test_three_groups_end_with_what_their_events_come_to(played: Callable[[], None]) -> None:
    played()


def test_no_prescription_is_given_to_a_patient_with_the_number_of_another(ground: Ground, seed: int) -> None:
    """Of every fifth one the server knows somebody else by that number."""
    lives = Lives.of_records(RECORDS, seed=seed)
    who: dict[str, Any] = {
        lives.prescription_id(each): lives.events(each)[0].value["patient"] for each in range(lives.prescriptions)
    }
    strangers = set(list(who)[::5])
    with Server() as server, writing(ground, lives, server, FHIR__REFERENCES="search") as scene:
        system = scene.subject.settings["FHIR__MRN_SYSTEM"]
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
