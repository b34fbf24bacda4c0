import random
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import date, timedelta
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from bridge.event import Event
from consumers.fhir.consumer import open_fhir
from consumers.fhir.options import NAME
from consumers.runtime.circuit import OPEN_AFTER
from consumers.testing import Running, an_event, running
from tests.fhir.fake import FakeFhir, a_fake, outcome
from tests.fhir.told import NAMING, SOURCE, of_orders, samples, told
from tests.logs import capture_logs
from tests.prescriptions import START

EVENTS = dict(samples())
SCENARIOS = [name for name in EVENTS if name.startswith("scenario")]
PATIENT = {"mrn": "MRN-1", "first_name": "Marisol", "last_name": "Quintero"}
ORDER = f"MedicationRequest/{NAMING.id('order', 'rx_1')}"
FLAG = f"Flag/{NAMING.id('flag', 'rx_1', 'dispensed_after_cancel')}"


def told_at(event_type: str, minute: float, *, key: str = "rx_1", id: str = "", **fields: object) -> Event:  # noqa: A002 - the field's name
    return an_event(event_type, key=key, id=id, at=START + timedelta(minutes=minute), **fields)


created = partial(told_at, "prescription.created")
sent = partial(told_at, "prescription.sent", message_id="m")
processed = partial(told_at, "prescription.processed", relates_to_message_id="m")
approved = partial(told_at, "cancel.responded", request_id="c", decision="approved")


def filled(minute: float, word: str) -> Event:
    return told_at("fill.status_changed", minute, fill_number=0, fill_status=word)


@pytest.fixture
async def fake() -> AsyncIterator[FakeFhir]:
    async with a_fake() as server:
        yield server


def options(fake: FakeFhir, **more: str) -> dict[str, str]:
    return {"base_url": fake.url, "allow_http": "true", "mrn_system": "urn:drx:mrn", **more}


def without_head(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name != "meta"}


def kept(fake: FakeFhir) -> dict[str, dict[str, Any]]:
    """What is there, but for Provenance, whose targets depend on what was written before."""
    return {
        place: without_head(each)
        for place, each in fake.all().items()
        if not place.startswith(("Provenance", "Patient"))
    }


def expected(events: list[Event]) -> dict[str, dict[str, Any]]:
    return {
        f"{each['resourceType']}/{each['id']}": without_head(each)
        for each in told(events)
        if each["resourceType"] != "Provenance"
    }


def left_out(desk: Running, reason: str) -> float | None:
    return desk.registry.get_sample_value("drxbridge_fhir_left_out_total", {"service": NAME, "reason": reason})


async def codes(desk: Running) -> list[str]:
    return [each.code for each in await desk.parked()]


@pytest.mark.parametrize("name", [*SCENARIOS, "native-24_fill_dispensed", "native-08_renewal_requested_unmatched"])
async def test_in_any_order_and_repetition_the_server_ends_with_the_same(fake: FakeFhir, name: str) -> None:
    events = of_orders(EVENTS[name])
    rng = random.Random(name)  # noqa: S311 - an order of arrival, not keys
    async with running(open_fhir, options=options(fake)) as desk:
        await desk.feed(*rng.sample(2 * events, k=2 * len(events)))

        assert await desk.parked() == []
        assert desk.count("applied") == len({event.id for event in events})

    assert kept(fake) == expected(events)
    origins = [each for place, each in fake.all().items() if place.startswith("Provenance")]
    assert {target["reference"] for each in origins for target in each["target"]} == set(kept(fake))


async def test_a_repeat_costs_no_request(fake: FakeFhir) -> None:
    event = created(0, extensions={"x": "\x07"})
    async with running(open_fhir, options=options(fake)) as desk:
        await desk.feed(event)
        before = list(fake.requests)
        await desk.feed(event, event)

        assert (desk.count("applied"), desk.count("duplicate")) == (1, 2)
    assert fake.requests == before


async def test_what_changes_nothing_costs_no_request(fake: FakeFhir) -> None:
    async with running(open_fhir, options=options(fake)) as desk:
        await desk.feed(created(1), sent(2))
        before = list(fake.requests)
        await desk.feed(created(0))

        assert (desk.count("applied"), fake.requests) == (3, before)
        assert fake.get(ORDER)["meta"]["source"].startswith(f"{SOURCE}#")
        # A signature adds its Provenance; the order is unchanged.
        await desk.feed(told_at("epcs.signed", 3, prescriber={"npi": "1234567893", "last_name": "Okafor"}))
    assert len([place for place in fake.all() if place.startswith("Provenance")]) == 3


async def test_a_write_meets_four_conflicts_before_its_record_is_retried(fake: FakeFhir) -> None:
    conflicts = [outcome(409, "conflict") for _ in range(6)]
    fake.before = lambda request: conflicts.pop() if request.method == "POST" and conflicts else None
    async with running(open_fhir, options=options(fake)) as desk:
        await desk.feed(created(0))

        assert (desk.count("applied"), desk.count("retry")) == (1, 1)
        assert desk.registry.get_sample_value("drxbridge_fhir_conflicts_total", {"service": NAME}) == 6


async def test_after_a_restore_of_an_older_database_no_older_state_comes_back(fake: FakeFhir) -> None:
    """Events are repeated from where the database was; the second `sent` changes nothing."""
    events = [created(0), sent(1), sent(2, message_id="n"), told_at("cancel.requested", 3, request_id="c"), approved(4)]
    async with running(open_fhir, options=options(fake)) as desk:
        await desk.feed(*events)
    before = fake.all()
    assert before[ORDER]["status"] == "cancelled"

    async with running(open_fhir, options=options(fake)) as desk:
        for event in events:
            await desk.feed(event)
            assert fake.all() == before
        await desk.feed(filled(5, "dispensed"))

        assert (desk.count("applied"), await desk.parked()) == (len(events) + 1, [])
    assert (fake.get(ORDER)["status"], fake.get(FLAG)["status"]) == ("cancelled", "active")


async def test_a_signal_that_stands_no_more_makes_its_flag_inactive(fake: FakeFhir) -> None:
    async with running(open_fhir, options=options(fake)) as desk:
        await desk.feed(approved(0), filled(1, "dispensed"))
        assert fake.get(FLAG)["status"] == "active"
        await desk.feed(filled(2, "not_dispensed"))
        await desk.feed(filled(3, "not_dispensed"))

        assert await desk.parked() == []
    assert (fake.get(FLAG)["status"], fake.kept[FLAG].version) == ("inactive", 2)


@pytest.mark.parametrize(
    "before",
    [
        lambda _: web.Response(status=404),
        lambda _: web.Response(status=503),
        # The ping passes.
        lambda request: outcome(403, "forbidden") if request.method == "POST" else None,
    ],
    ids=["none", "away", "a token that may not write"],
)
async def test_a_server_that_takes_nothing_parks_nothing(fake: FakeFhir, before: Callable[[Any], Any]) -> None:
    fake.before = before
    async with running(open_fhir, options=options(fake)) as desk:
        desk.offer(*(created(0, key=f"rx_{number}") for number in range(2 * OPEN_AFTER)))
        await fake.asked(6 * OPEN_AFTER)
        fake.before = lambda _: None
        await desk.settled()

        assert await desk.parked() == []
        assert desk.count("applied") == 2 * OPEN_AFTER


async def test_a_record_that_the_server_refuses_is_parked_by_a_constant_and_goes_on_after_a_release(
    fake: FakeFhir, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = sent(1)
    fake.before = lambda request: outcome(422, "business-rule") if request.method == "POST" else None
    async with running(open_fhir, options=options(fake)) as desk:
        await desk.feed(created(0), refused, created(0, key="rx_2", id="other"))
        assert sorted(await codes(desk)) == ["fhir_business_rule", "fhir_business_rule", "key_parked"]
        fake.before = lambda _: None
        await desk.release("rx_1")
        await desk.release("rx_2")

        assert await desk.parked() == []
    assert fake.get(ORDER)["status"] == "active"
    assert "hunter2" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (an_event("renewal.requested", key="rx_1", refills_requested=-3), "negative_count"),
        (created(0, id="evt\x00"), "control_character"),
    ],
)
async def test_a_value_that_fhir_cannot_hold_is_parked_and_nothing_is_written(
    fake: FakeFhir, event: Event, code: str
) -> None:
    async with running(open_fhir, options=options(fake)) as desk:
        await desk.feed(event)

        assert await codes(desk) == [code]
    assert fake.all() == {}


@pytest.mark.parametrize(("unmatched", "parked"), [("park", ["no_patient"]), ("logical", [])])
async def test_a_patient_that_is_not_there_parks_or_is_named(fake: FakeFhir, unmatched: str, parked: list[str]) -> None:
    event = an_event("prescription.created", patient=PATIENT)
    async with running(open_fhir, options=options(fake, references="search", unmatched=unmatched)) as desk:
        await desk.feed(event)

        assert await codes(desk) == parked
    if not parked:
        assert fake.get(ORDER)["subject"]["identifier"]["value"] == "MRN-1"


async def test_the_servers_own_patient_is_referred_to(fake: FakeFhir) -> None:
    identifier = {"system": "https://ehr.example/acct_1/mrn", "value": "MRN-1"}
    fake.put({"resourceType": "Patient", "id": "p1", "identifier": [identifier], "birthDate": "1979"})
    of_account = {"mrn_system": "https://ehr.example/{account}/mrn", "complete_after_refills": "true"}
    searching = options(fake, references="search", **of_account)
    ordered: Any = {"patient": PATIENT, "medication": {"description": "q", "refills": 0}}
    async with running(open_fhir, options=searching) as desk:
        await desk.feed(filled(0, "dispensed"), an_event("prescription.created", **ordered))

        assert await desk.parked() == []
        await desk.feed(created(0, key="rx_2", patient=PATIENT | {"date_of_birth": date(1980, 1, 1)}))
        fake.put({"resourceType": "Patient", "id": "p2", "identifier": [identifier]})
        await desk.feed(an_event("prescription.updated"))
        assert sorted(await codes(desk)) == ["multiple_matches", "patient_mismatch"]
    assert (fake.get(ORDER)["subject"], fake.get(ORDER)["status"]) == ({"reference": "Patient/p1"}, "completed")


async def test_what_was_deleted_is_revived_or_left_alone(fake: FakeFhir) -> None:
    for deleted, there in (("revive", True), ("skip", False)):
        async with running(open_fhir, options=options(fake, deleted=deleted, provenance="false")) as desk:
            await desk.feed(created(0))
            fake.delete(ORDER)
            await desk.feed(sent(1))

            assert await desk.parked() == []
            assert desk.count("applied") == 2
            assert left_out(desk, "deleted") == (not there)
        assert (ORDER in fake.all()) is there
        assert not [place for place in fake.kept if place.startswith("Provenance")]
        fake.kept.clear()


async def test_the_new_id_of_what_was_revived_is_the_one_that_is_remembered(fake: FakeFhir) -> None:
    fake.chooses_ids = True
    async with running(open_fhir, options=options(fake, ids="server")) as desk:
        for event in (created(0), sent(1)):
            await desk.feed(event)
            (order,) = (place for place in fake.all() if place.startswith("MedicationRequest"))
            rows = await desk.fetch("select type || '/' || server_id from fhir.resource where type like 'Med%'")
            assert rows == [(order,)]
            fake.delete(order)


async def test_an_order_that_somebody_marked_as_an_error_is_counted_and_named(fake: FakeFhir) -> None:
    async with running(open_fhir, options=options(fake)) as desk:
        await desk.feed(created(0))
        fake.put({**fake.get(ORDER), "status": "entered-in-error"})
        with capture_logs() as lines:
            await desk.feed(sent(1), told_at("alert.raised", 2, alert_id="a"))

        assert await desk.parked() == []
        assert left_out(desk, "entered_in_error") == 2
    assert fake.get(ORDER)["status"] == "entered-in-error"
    named = [line["resource"] for line in lines if line["event"] == "worker.resource_left_out"]
    assert named == [ORDER.rpartition("/")[2]] * 2


async def test_the_consumer_may_read_and_write_its_tables_and_no_more(fake: FakeFhir) -> None:
    query = """
        select t.name, p.kind from (values ('prescription'), ('resource')) t (name),
          unnest(array['select', 'insert', 'update', 'delete', 'truncate']) p (kind)
        where has_table_privilege('drx_consumer', 'fhir.' || t.name, p.kind)
        """
    async with running(open_fhir, options=options(fake)) as desk:
        allowed = set(await desk.fetch(query))

    assert allowed == {(name, kind) for name in ("prescription", "resource") for kind in ("select", "insert", "update")}
