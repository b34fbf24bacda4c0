"""One suite for both FHIR servers: the fake responds like HAPI, and HAPI's validator accepts all writes."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web

from bridge.errors import PermanentError, TransientError
from consumers.fhir.mapping import Resource
from consumers.fhir.sink import NOT_FHIR, EventOrigin, FhirServer
from tests.fhir.fake import a_fake, outcome
from tests.fhir.hapi import HapiServer, is_built
from tests.fhir.peers import TOKEN, Peer, a_late, a_writer
from tests.fhir.told import SOURCE, samples, told

SUBJECT = {"type": "Patient", "identifier": {"system": "urn:drx:mrn", "value": "1"}}
MEDICATION = {"text": "lisinopril 10 mg oral tablet"}
EVENTS = dict(samples())
TAG = {"system": "https://ehr.example/tags", "code": "seen"}
THEIRS = {"system": "https://ehr.example/orders", "value": "77"}


@pytest.fixture(scope="module")
def hapi() -> Iterator[HapiServer]:
    if not is_built():
        pytest.skip("no HAPI FHIR server here: `make fhir-server` fetches it")
    with tempfile.TemporaryDirectory() as directory:
        server = HapiServer(Path(directory), token=TOKEN, validates=True)
        server.start()
        # Both take longer than a request may, the first time.
        server.call("GET", "metadata")
        server.call("POST", "Task", {"resourceType": "Task", "status": "draft", "intent": "order"})
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(params=["fake", "fake_ids", "hapi", "hapi_ids"])
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[Peer]:
    chooses_ids = request.param.endswith("ids")
    ids = "server" if chooses_ids else "client"
    if request.param.startswith("hapi"):
        hapi: HapiServer = request.getfixturevalue("hapi")
        yield Peer(hapi.ids_url if chooses_ids else hapi.url, ids=ids)
        return
    async with a_fake() as fake:
        fake.token, fake.chooses_ids = TOKEN, chooses_ids
        yield Peer(fake.url, ids=ids)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return file


@pytest.fixture
async def writer(peer: Peer, token_file: Path) -> AsyncIterator[FhirServer]:
    async with a_writer(peer.url, token_file, ids=peer.ids) as server:
        yield server


def an_order(status: str = "active", *, id: str = "", **elements: Any) -> Resource:  # noqa: A002 - the field's name
    identity = id or f"drx-{uuid4().hex}"
    ours = {"identifier": [{"system": "urn:drx:prescription", "value": identity}]}
    said = {"status": status, "intent": "order", "medicationCodeableConcept": MEDICATION, "subject": SUBJECT}
    return Resource("MedicationRequest", identity, {**ours, **said, **elements})


def a_task(order: Resource, status: str = "requested") -> Resource:
    focus = {"reference": f"MedicationRequest/{order.id}"}
    return Resource("Task", f"{order.id}-t", {"status": status, "intent": "order", "focus": focus})


def an_origin(*targets: Resource) -> EventOrigin:
    elements = {"recorded": "2026-09-14T15:00:00Z", "agent": [{"who": {"display": "drx"}}]}
    return EventOrigin(Resource("Provenance", f"drx-{uuid4().hex}", elements), [each.id for each in targets])


def as_resource(whole: dict[str, Any]) -> Resource:
    elements = {name: value for name, value in whole.items() if name not in {"resourceType", "id", "meta"}}
    return Resource(whole["resourceType"], whole["id"], elements)


def version(resource: dict[str, Any]) -> str:
    found: str = resource["meta"]["versionId"]
    return found


class Desk:
    """What a prescription's resources are written with: it remembers their ids, as the consumer does."""

    def __init__(self, peer: Peer, writer: FhirServer) -> None:
        self.peer, self.writer = peer, writer
        self.known: dict[str, str] = {}

    async def write(self, *resources: Resource, origin: EventOrigin | None = None) -> None:
        self.known |= await self.writer.write(resources, self.known, source=SOURCE, origin=origin)

    def place(self, resource: Resource) -> str:
        return f"{resource.type}/{self.known[resource.id]}"

    async def get(self, resource: Resource) -> dict[str, Any]:
        return await self.peer.get(self.place(resource))

    def forgetful(self) -> "Desk":
        """As after a crash between the write and the commit."""
        return Desk(self.peer, self.writer)


@pytest.fixture
def desk(peer: Peer, writer: FhirServer) -> Desk:
    return Desk(peer, writer)


@pytest.mark.parametrize("bundle", ["true", "false"])
async def test_what_refers_to_another_is_written_with_it_and_updated_by_its_version(
    peer: Peer, token_file: Path, bundle: str
) -> None:
    order = an_order("draft")
    async with a_writer(f"{peer.url}/", token_file, bundle=bundle, ids=peer.ids) as writer:
        desk = Desk(peer, writer)
        await desk.write(order, a_task(order))
        await desk.write(an_order("active", id=order.id), a_task(order))

    found, task = await desk.get(order), await desk.get(a_task(order))
    assert (found["status"], version(found), version(task)) == ("active", "2", "1")
    assert task["focus"] == {"reference": desk.place(order)}


@pytest.mark.parametrize("bundle", ["true", "false"])
async def test_a_write_that_comes_late_changes_nothing(peer: Peer, token_file: Path, bundle: str) -> None:
    """The server does what its client gave up waiting for, after the client has written newer states."""
    order = an_order("active")
    async with a_late(peer.url) as late, a_writer(late.url, token_file, bundle=bundle, ids=peer.ids) as writer:
        desk = Desk(peer, writer)
        late.hold()
        held = asyncio.create_task(desk.write(order, a_task(order)))
        await late.holding.wait()
        held.cancel()
        await asyncio.wait([held])
        await desk.forgetful().write(order, a_task(order))
        await desk.write(an_order("cancelled", id=order.id), a_task(order))
        before = await desk.get(order)
        await late.release()

    assert await desk.get(order) == before
    assert before["status"] == "cancelled"
    assert await peer.count("MedicationRequest", f"urn:drx:prescription|{order.id}") == 1


async def test_what_a_late_write_did_is_mended_by_the_next_on_a_server_without_conditions(token_file: Path) -> None:
    order = an_order("active")
    async with a_fake() as fake, a_late(fake.url) as late, a_writer(late.url, token_file) as writer:
        fake.careless = True
        desk = Desk(Peer(fake.url), writer)
        late.hold()
        held = asyncio.create_task(desk.write(order))
        await late.holding.wait()
        held.cancel()
        await asyncio.wait([held])
        # It comes after the look of the next write, and before its end.
        late.after_write = late.release
        await desk.write(an_order("cancelled", id=order.id))

        assert (await desk.get(order))["status"] == "cancelled"
        await desk.peer.put({**await desk.get(order), "status": "active"})
        await desk.write(an_order("cancelled", id=order.id))
        assert (await desk.get(order))["status"] == "cancelled"
        assert not writer._unanswered


async def test_a_server_that_follows_http_takes_what_is_not_there_yet_once(token_file: Path) -> None:
    """No `If-Match` matches there, so it is asked by `If-None-Match: *` from then on."""
    order, other = an_order("draft"), an_order()
    async with a_fake() as fake, a_writer(fake.url, token_file) as writer:
        fake.strict = True
        desk = Desk(Peer(fake.url), writer)
        await desk.write(order, a_task(order), origin=an_origin())
        before = fake.writes
        await desk.write(other)

        assert (before, fake.writes) == (2, 3)
        await desk.forgetful().write(other)
        await desk.write(other, origin=an_origin())
        assert (fake.writes, len(fake.all())) == (3, 4)
        async with a_writer(fake.url, token_file) as started_later:
            await Desk(desk.peer, started_later).write(an_order("stopped", id=other.id), a_task(other))


async def test_a_conflict_alone_does_not_show_that_a_server_follows_http(token_file: Path) -> None:
    """Another write may cause it, and a server such as HAPI does not heed `If-None-Match: *`."""
    asked: list[str | None] = []

    def conflict_once(request: web.BaseRequest) -> web.Response | None:
        if request.method != "PUT":
            return None
        asked.append(request.headers.get("if-match"))
        return outcome(409, "conflict") if len(asked) == 1 else None

    async with a_fake() as fake, a_writer(fake.url, token_file, bundle="false") as writer:
        fake.before = conflict_once
        await Desk(Peer(fake.url), writer).write(an_order())

    assert asked == ['W/"0"'] * 2


@pytest.mark.parametrize("bundle", ["true", "false"])
async def test_what_others_write_between_our_look_and_our_write_stays_as_does_all_that_is_theirs(
    peer: Peer, token_file: Path, bundle: str
) -> None:
    order = an_order("draft", note=[{"id": "drx", "text": "ours"}])
    async with a_late(peer.url) as late, a_writer(late.url, token_file, ids=peer.ids, bundle=bundle) as writer:
        desk = Desk(peer, writer)
        await desk.write(order)
        found = await desk.get(order)
        theirs = {
            "identifier": [*found["identifier"], THEIRS],
            "note": [{"text": "theirs"}, *found["note"]],
            "reasonCode": [{"text": "hypertension"}],
            "status": "completed",
            "meta": {**found["meta"], "tag": [TAG]},
        }
        late.hold()
        ours = an_order("active", id=order.id, note=[{"id": "drx", "text": "new"}], statusReason={"text": "refused"})
        writing = asyncio.create_task((desk if bundle == "true" else desk.forgetful()).write(ours))
        await late.holding.wait()
        await desk.peer.put({**found, **theirs})
        await late.release()
        await writing
        await desk.write(an_order("on-hold", id=order.id))

    found = await desk.get(order)
    assert (found["status"], version(found)) == ("on-hold", "4")
    assert (found["reasonCode"], found["note"]) == ([{"text": "hypertension"}], [{"text": "theirs"}])
    assert "statusReason" not in found
    assert THEIRS in found["identifier"]
    assert [each["code"] for each in found["meta"]["tag"]] == ["seen"]
    assert len(found["identifier"]) == 2 + (peer.ids == "server")


async def test_a_write_that_nobody_remembers_is_found_and_not_repeated(desk: Desk) -> None:
    """As after a crash between the write and the commit."""
    order, origin = an_order(dispenseRequest={"quantity": {"value": 15.5}}), an_origin()
    await desk.write(order, a_task(order), origin=origin)
    again = desk.forgetful()

    await again.write(order, a_task(order), origin=origin)

    assert again.known == desk.known
    assert version(await desk.get(order)) == "1"


async def test_a_provenance_names_what_was_written_and_is_written_once(desk: Desk) -> None:
    """A repetition writes nothing of what its event changed, and finds it all the same."""
    order = an_order("draft")
    first, second = an_origin(), an_origin(order)
    await desk.write(order, a_task(order), origin=first)
    await desk.write(an_order("active", id=order.id), a_task(order), origin=second)
    await desk.write(an_order("active", id=order.id), a_task(order), origin=second)
    await desk.write(an_order("active", id=order.id), a_task(order), origin=an_origin())
    # As after a crash between two requests of one event.
    await desk.write(an_order("active", id=order.id), a_task(order), origin=an_origin(order))

    targets = [each["target"] for each in await desk.peer.all("Provenance", desk.place(order))]
    both = [{"reference": desk.place(each)} for each in (order, a_task(order))]
    assert sorted(targets, key=len) == [both[:1], both[:1], both]


async def test_what_somebody_deleted_is_written_again_with_what_refers_to_it(desk: Desk) -> None:
    """Also where the event changes nothing in it: what is new would refer to nothing."""
    order = an_order("draft")
    await desk.write(order)
    await desk.peer.delete(desk.place(order))

    await desk.write(order, a_task(order))

    assert (await desk.get(order))["status"] == "draft"
    assert (await desk.get(a_task(order)))["focus"] == {"reference": desk.place(order)}


async def test_what_somebody_deleted_is_left_alone_with_what_refers_to_it(peer: Peer, token_file: Path) -> None:
    order, other = an_order("draft"), an_order("draft")
    async with a_writer(peer.url, token_file, deleted="skip", ids=peer.ids) as writer:
        desk = Desk(peer, writer)
        await desk.write(order, other)
        await peer.delete(desk.place(order))
        before = desk.place(order)

        await desk.write(order, an_order("active", id=other.id), a_task(order))

    assert (await desk.get(other))["status"] == "active"
    assert (await peer.get(before))["resourceType"] == "OperationOutcome"
    assert a_task(order).id not in desk.known


@pytest.mark.parametrize("bundle", ["true", "false"])
async def test_an_event_that_was_applied_before_writes_nothing(peer: Peer, token_file: Path, bundle: str) -> None:
    """As after a restore of an older database: its state would come back until the last event is repeated."""
    order, first, last = an_order("active"), an_origin(), an_origin()
    async with a_writer(peer.url, token_file, bundle=bundle, ids=peer.ids) as writer:
        desk = Desk(peer, writer)
        await desk.write(order, origin=first)
        await desk.write(an_order("cancelled", id=order.id), a_task(order), origin=last)
        restored = desk.forgetful()

        await restored.write(order, origin=first)
        assert (await desk.get(order))["status"] == "cancelled"
        await restored.write(an_order("cancelled", id=order.id), a_task(order), origin=last)
        assert restored.known == desk.known
        await restored.write(an_order("stopped", id=order.id), a_task(order), origin=an_origin())
        assert (await desk.get(order))["status"] == "stopped"


async def test_what_somebody_marked_as_an_error_is_left_alone(desk: Desk) -> None:
    """That status is final; what refers to it goes on."""
    order = an_order("active")
    await desk.write(order, a_task(order))
    await desk.peer.put({**await desk.get(order), "status": "entered-in-error"})
    before, origin = await desk.get(order), an_origin()

    await desk.write(an_order("cancelled", id=order.id), a_task(order, "cancelled"), origin=origin)
    await desk.write(Resource("MedicationRequest", order.id, {"status": "cancelled"}, partial=True))

    assert await desk.get(order) == before
    task = await desk.get(a_task(order))
    assert (task["status"], task["focus"]) == ("cancelled", {"reference": desk.place(order)})
    (written,) = await desk.peer.all("Provenance", desk.place(a_task(order)))
    assert written["target"] == [{"reference": desk.place(a_task(order))}]


async def test_a_withdrawn_resource_keeps_everything_but_its_status(desk: Desk) -> None:
    code = {"text": "Dispensed after the pharmacy approved the cancellation"}
    flag = Resource("Flag", f"drx-{uuid4().hex}", {"status": "active", "code": code, "subject": SUBJECT})
    await desk.write(flag)
    gone = Resource("Flag", flag.id, {"status": "inactive"}, partial=True)

    await desk.write(gone)
    await desk.write(gone)

    found = await desk.get(flag)
    assert (found["status"], found["code"], version(found)) == ("inactive", code, "2")
    place = desk.place(flag)
    await desk.peer.delete(place)
    await desk.write(gone)
    assert (await desk.peer.get(place))["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize("bundle", ["true", "false"])
async def test_what_another_of_ours_created_meanwhile_is_updated(peer: Peer, token_file: Path, bundle: str) -> None:
    """A partition went to it between our look and our write; its facts are older."""
    order = an_order("active")
    async with a_late(peer.url) as late, a_writer(late.url, token_file, ids=peer.ids, bundle=bundle) as writer:
        desk = Desk(peer, writer)
        late.hold()
        writing = asyncio.create_task(desk.write(order))
        await late.holding.wait()
        await desk.forgetful().write(an_order("draft", id=order.id))
        await late.release()
        await writing

    assert (await desk.get(order))["status"] == "active"
    assert await peer.count("MedicationRequest", f"urn:drx:prescription|{order.id}") == 1


@pytest.mark.parametrize("name", ["subject", "for"])
async def test_nothing_is_moved_to_another_person(desk: Desk, name: str) -> None:
    def about(value: str) -> Resource:
        who = {"type": "Patient", "identifier": {"system": "urn:drx:mrn", "value": value}}
        if name == "subject":
            return an_order("active" if value == "1" else "stopped", id=order.id, subject=who)
        return Resource("Task", order.id, {"status": "requested", "intent": "order", "for": who})

    order = an_order()
    await desk.write(about("1"))
    with pytest.raises(PermanentError, match=r"^patient_mismatch$"):
        await desk.write(about("2"))

    assert (await desk.get(about("1")))[name]["identifier"]["value"] == "1"


async def test_a_patient_is_found_by_identifier(peer: Peer, writer: FhirServer) -> None:
    value, system = uuid4().hex, "https://ehr.example/mrn|odd"
    identifier = {"system": "https://ehr.example/mrn", "value": value}
    assert await writer.patient(identifier, born=None) is None
    place = await peer.create({"resourceType": "Patient", "identifier": [identifier]})
    assert await writer.patient(identifier, born=None) == {"reference": place}
    assert await writer.patient({"system": system, "value": value}, born=None) is None

    await peer.create({"resourceType": "Patient", "identifier": [identifier]})
    with pytest.raises(PermanentError, match=r"^multiple_matches$"):
        await writer.patient(identifier, born=None)


async def test_a_patient_who_is_not_in_use_or_had_the_identifier_once_is_not_the_one(
    peer: Peer, writer: FhirServer
) -> None:
    identifier = {"system": "https://ehr.example/mrn", "value": uuid4().hex}
    had = {**identifier, "use": "old"}
    assert await writer.patient(identifier, born=None) is None
    seen = [{"other": {"display": "another record"}, "type": "seealso"}]
    own = await peer.create({"resourceType": "Patient", "identifier": [identifier], "active": True, "link": seen})
    link = [{"other": {"reference": own}, "type": "replaced-by"}]
    await peer.create({"resourceType": "Patient", "identifier": [identifier], "active": False})
    await peer.create({"resourceType": "Patient", "identifier": [identifier], "link": link})
    await peer.create({"resourceType": "Patient", "identifier": [had, {"value": "9"}]})

    assert await writer.patient(identifier, born=None) == {"reference": own}


@pytest.mark.parametrize("said", ["1971-03-04", "1971-03", "1971"])
async def test_a_patient_born_on_another_day_is_not_the_one(peer: Peer, writer: FhirServer, said: str) -> None:
    identifier = {"system": "https://ehr.example/mrn", "value": uuid4().hex}
    own = await peer.create({"resourceType": "Patient", "identifier": [identifier], "birthDate": said})

    assert await writer.patient(identifier, born="1971-03-04") == {"reference": own}
    with pytest.raises(PermanentError, match=r"^patient_mismatch$"):
        await writer.patient(identifier, born="1970-12-31")


@pytest.mark.parametrize("value", ["123,456", "123|456", "123$456", "123\\", "\\,123", "a&b=c+d"])
async def test_a_patient_is_found_by_the_whole_of_an_identifier(peer: Peer, writer: FhirServer, value: str) -> None:
    """In a search `123,456` means either of the two, of whom one would be somebody else."""
    system = f"https://ehr.example/{uuid4().hex}"
    part, other = ({"system": system, "value": each} for each in (value[:3], "456"))
    await peer.create({"resourceType": "Patient", "identifier": [part]})
    await peer.create({"resourceType": "Patient", "identifier": [{"value": "456"}, other]})
    identifier = {"system": system, "value": value}
    assert await writer.patient(identifier, born=None) is None

    own = await peer.create({"resourceType": "Patient", "identifier": [other | {"value": "789"}, identifier]})

    assert await writer.patient(identifier, born=None) == {"reference": own}


@pytest.mark.parametrize("bundle", ["true", "false"])
async def test_a_resource_that_is_not_taken_is_refused_by_a_constant(peer: Peer, token_file: Path, bundle: str) -> None:
    task = a_task(an_order())
    async with a_writer(peer.url, token_file, bundle=bundle, ids=peer.ids) as writer:
        with pytest.raises(PermanentError, match=r"^fhir_processing$") as caught:
            await writer.write([task], {}, source=SOURCE)

    assert caught.value.code == "fhir_processing"


async def test_a_token_that_is_refused_is_waited_for_and_read_again(peer: Peer, token_file: Path) -> None:
    token_file.write_text("another")  # noqa: ASYNC240 - a file of a few bytes
    async with a_writer(peer.url, token_file) as writer:
        for call in (writer.ping(), writer.write([an_order()], {}, source=SOURCE)):
            with pytest.raises(TransientError) as caught:
                await call
            assert (caught.value.code, caught.value.systemic) == ("http_401", True)
        token_file.unlink()  # noqa: ASYNC240 - as above
        with pytest.raises(TransientError) as caught:
            await writer.ping()
        assert (caught.value.code, caught.value.systemic) == ("no_token", True)
        token_file.write_text(TOKEN)  # noqa: ASYNC240 - as above

        await writer.ping()


async def test_a_server_of_another_kind_is_waited_for(token_file: Path) -> None:
    async with a_fake() as fake, a_writer(fake.url, token_file) as writer:
        assert await writer.lacks() == []
        for status, body in ((400, b""), (404, b"{}"), (410, b"[]")):
            fake.before = lambda _, status=status, body=body: web.Response(status=status, body=body)  # type: ignore[misc]
            with pytest.raises(TransientError, match=NOT_FHIR) as caught:
                await writer.ping()
            assert caught.value.systemic
        (line,) = await writer.lacks()
        assert line.startswith("/metadata, its CapabilityStatement: ")
        fake.before = lambda _: web.json_response({"resourceType": "Task", "id": "another"})
        with pytest.raises(PermanentError, match="answer_unreadable"):
            await writer.write([an_order()], {}, source=SOURCE)


async def test_more_patients_than_a_search_may_return_are_too_many(token_file: Path) -> None:
    identifier = {"system": "https://ehr.example/mrn", "value": "1"}
    async with a_fake() as fake, a_writer(fake.url, token_file) as writer:
        for number in range(20):
            fake.put({"resourceType": "Patient", "id": str(number), "identifier": [identifier], "active": False})
        assert await writer.patient(identifier, born=None) is None
        fake.put({"resourceType": "Patient", "id": "20", "identifier": [identifier], "active": False})
        with pytest.raises(PermanentError, match="multiple_matches"):
            await writer.patient(identifier, born=None)


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize("peer", ["fake_ids", "hapi"], indirect=True)
async def test_what_a_sample_comes_to_is_taken_by_a_server_that_validates(desk: Desk, name: str) -> None:
    """Every transaction, with all that it holds; the fake looks for what has the id that it chose."""
    found = [as_resource(each) for each in told(EVENTS[name]) if each["resourceType"] != "Provenance"]
    await desk.write(*found, origin=an_origin())

    assert desk.known.keys() == {each.id for each in found}
