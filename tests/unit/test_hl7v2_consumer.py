"""The settings of hl7v2."""

from datetime import UTC, date, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bridge.errors import PermanentError, TransientError
from consumers.api import Consumer, Context, Lanes, Setup
from consumers.hl7v2.consumer import open_hl7v2
from consumers.hl7v2.mapping import EVENT_PART, event_part
from consumers.hl7v2.mllp import _CONDITIONS, _acknowledgement, _judge
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
        self.texts: list[str] = []

    async def send(self, text: str, *, control_id: str) -> None:
        self.taken.append(control_id)
        self.texts.append(text)


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
    before: dict[str, Any] = {"source": "other", "at": datetime(2026, 1, 2, tzinfo=UTC), "extensions": {"x": "left"}}
    # The first one is not sent once the order is cancelled, and the second one still is.
    overtaken = an_event("prescription.processed", key="rx_1", **before)
    waiting = an_event("cancel.responded", key="rx_1", decision="approved", **before)
    for event in (overtaken, waiting):
        await handle(event, a_context(rows, receiver, origin=""))
    assert receiver.taken == []
    (_, other), _, (_, held), (_, document, ordered, *_) = rows.stored
    rows.found = [(document, ordered, [(1, other), (2, held)])]
    await handle(an_event("prescription.sent", key="rx_1", patient=PATIENT), a_context(rows, receiver))

    assert [each[:EVENT_PART] for each in receiver.taken] == [event_part(waiting)]
    assert "left" not in str(held)
    assert "|20260102000000+0000||OMP^O09^" in receiver.texts[0]
    assert "\rORC|CR|rx_1^DRX|||||||20260102000000+0000\r" in receiver.texts[0]


@pytest.mark.parametrize(
    ("event_type", "origin"), [("prescription.processed", "import"), ("epcs.signed", ""), ("system.ping", "")]
)
async def test_what_is_not_sent_does_not_wait_for_a_patient(event_type: str, origin: str) -> None:
    rows, receiver = Rows(), Receiver()
    for no_patient in ("hold", "send"):
        handle: Any = opened(no_patient=no_patient).handle
        await handle(an_event(event_type, key="rx_1"), a_context(rows, receiver, origin=origin))

    assert (len(rows.stored), receiver.taken) == (2, [])


async def test_imports_are_sent_and_other_accounts_and_keys_are_not() -> None:
    rows, receiver = Rows(), Receiver()
    handle: Any = opened(imports="send", accounts="acct_1").handle
    await handle(an_event("prescription.sent", account_id="acct_2"), a_context(rows, receiver))
    assert rows.stored == []
    await handle(an_event("prescription.sent", patient=PATIENT), a_context(rows, receiver))
    assert len(receiver.taken) == 1
    with pytest.raises(PermanentError, match="bad_key"):
        await handle(an_event("prescription.sent", key="rx\0"), a_context(rows, receiver))
    handle = opened(no_patient="park").handle
    with pytest.raises(PermanentError, match="no_patient"):
        await handle(an_event("prescription.processed"), a_context(rows, receiver, origin=""))


def test_a_handler_has_the_time_of_all_messages_that_waited() -> None:
    made = opened(instance="ehr", connections="3", ack_timeout_s="2")

    assert made.mode == Lanes(9, transactional=True, window_bytes=8 * 1024 * 1024)
    assert (made.handler_timeout_s, made.group) == (21 * 2 + 10 + 5, "hl7v2.ehr")


@pytest.mark.parametrize(
    ("more", "condition"),
    [
        ("|text|||206^Locked\rERR||PID^1|207^Internal|E\rERR|||101", "207"),
        ("\rERR|PID^1^3^101&Missing", "101"),
        ("\rERR|PID^1^3", ""),
        ("\rERR|||999", ""),
        ("|text|||206^Locked", "206"),
        ("\nERR|||101", "101"),
    ],
)
def test_the_condition_of_an_error_is_found_where_any_version_has_it(more: str, condition: str) -> None:
    text = f"MSH|^~\\&|EHR\rMSA|AE|id{more}"

    assert _acknowledgement(text, "id") == ("AE", condition)
    assert _acknowledgement(text.replace("|", "#").replace("^", "*"), "id") == ("AE", condition)


def test_a_rejection_that_every_message_would_get_waits() -> None:
    waits = {"", "200", "201", "202", "203", "206", "207"}
    for condition in sorted(_CONDITIONS | {""}):
        with pytest.raises(TransientError if condition in waits else PermanentError):
            _judge("CR", condition)
