"""The settings of hl7v2."""

from datetime import date
from typing import Any

from prometheus_client import CollectorRegistry

from consumers.api import Consumer, Context, Setup
from consumers.hl7v2.consumer import open_hl7v2
from consumers.hl7v2.mapping import EVENT_PART, event_part
from consumers.testing import an_event

PATIENT = {"first_name": "Marisol", "last_name": "Quintero", "date_of_birth": date(1979, 2, 28), "sex": "F"}
LEAST = {"host": "engine.example", "port": "6661"}


def opened(**options: str) -> Consumer:
    return open_hl7v2(Setup({**LEAST, **options}, CollectorRegistry()))


def test_doctor_is_told_where_health_information_goes() -> None:
    secured, kept = opened(instance="ehr").discloses or ()
    plain, _ = opened(allow_plaintext="true").discloses or ()

    assert secured == "whole messages: sent to engine.example:6661"
    assert plain == "whole messages, in clear: sent to engine.example:6661"
    assert "hl7v2_ehr" in kept


class Rows:
    def __init__(self) -> None:
        self.found: list[tuple[object, ...]] = []
        self.stored: list[tuple[Any, ...]] = []

    async def fetch(self, *_: object) -> list[tuple[object, ...]]:
        return self.found

    async def execute(self, _: str, *values: object) -> None:
        self.stored.append(values)


class Receiver:
    def __init__(self) -> None:
        self.taken: list[str] = []

    async def send(self, _: str, *, control_id: str) -> None:
        self.taken.append(control_id)


def a_context(rows: Rows, receiver: Receiver | None = None, *, origin: str = "import") -> Context:
    return Context(
        "hl7v2", "drx.prescriptions.v1", 0, 0, "test:0", 1, connection=rows, resource=receiver, origin=origin
    )


async def test_what_is_imported_is_known_and_not_told() -> None:
    rows, receiver = Rows(), Receiver()
    handle: Any = opened().handle
    await handle(an_event("prescription.sent", key="rx_1", patient=PATIENT), a_context(rows, receiver))

    ((key, document, ordered, *sent),) = rows.stored
    assert (key, ordered, sent) == ("rx_1", False, [(), (), (), ()])
    assert "Quintero" in str(document)
    assert receiver.taken == []


async def test_what_waits_is_told_once_an_import_makes_its_patient_known() -> None:
    rows, receiver = Rows(), Receiver()
    handle: Any = opened().handle
    waiting = an_event("prescription.processed", key="rx_1")
    await handle(waiting, a_context(rows, receiver, origin=""))
    assert receiver.taken == []
    ((_, held), (_, document, ordered, *_)) = rows.stored
    rows.found = [(document, ordered, [(1, held)])]
    await handle(an_event("prescription.sent", key="rx_1", patient=PATIENT), a_context(rows, receiver))

    assert [each[:EVENT_PART] for each in receiver.taken] == [event_part(waiting)]


async def test_an_import_that_nobody_is_known_for_does_not_wait() -> None:
    rows = Rows()
    handle: Any = opened().handle
    await handle(an_event("prescription.processed", key="rx_1"), a_context(rows))

    assert len(rows.stored) == 1
