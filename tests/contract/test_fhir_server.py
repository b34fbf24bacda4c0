"""One suite for both FHIR servers: the fake answers as HAPI does, and HAPI's validator takes all that is written."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import web

from bridge.errors import PermanentError, TransientError
from consumers.fhir.mapping import Resource
from consumers.fhir.sink import FhirServer, Written
from tests.fhir.fake import a_fake
from tests.fhir.hapi import HapiServer, is_built
from tests.fhir.peers import TOKEN, FakePeer, HapiPeer, Peer, a_writer
from tests.fhir.told import SOURCE, samples, told

SUBJECT = {"type": "Patient", "identifier": {"system": "urn:drx:mrn", "value": "1"}}
MEDICATION = {"text": "lisinopril 10 mg oral tablet"}
EVENTS = dict(samples())
THEIRS = {"system": "https://ehr.example/orders", "value": "77"}


@pytest.fixture(scope="module")
def hapi() -> Iterator[HapiServer]:
    if not is_built():
        pytest.skip("no HAPI FHIR server here: `make fhir-server` fetches it")
    with tempfile.TemporaryDirectory() as directory:
        server = HapiServer(Path(directory), token=TOKEN)
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(params=["fake", "hapi"])
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[Peer]:
    if request.param == "hapi":
        yield HapiPeer(request.getfixturevalue("hapi"))
        return
    async with a_fake() as fake:
        fake.token = TOKEN
        yield FakePeer(fake)


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    return file


@pytest.fixture
async def writer(peer: Peer, token_file: Path) -> AsyncIterator[FhirServer]:
    async with a_writer(peer.url, token_file) as server:
        yield server


def an_order(status: str = "active", *, id: str = "", **elements: Any) -> Resource:  # noqa: A002 - the field's name
    identity = id or f"drx-{uuid4().hex}"
    ours = {"identifier": [{"system": "urn:drx:prescription", "value": identity}]}
    said = {"status": status, "intent": "order", "medicationCodeableConcept": MEDICATION, "subject": SUBJECT}
    return Resource("MedicationRequest", identity, {**ours, **said, **elements})


def a_task(order: Resource, status: str = "requested") -> Resource:
    focus = {"reference": f"MedicationRequest/{order.id}"}
    return Resource("Task", f"{order.id}-t", {"status": status, "intent": "order", "focus": focus})


def as_resource(whole: dict[str, Any]) -> Resource:
    elements = {name: value for name, value in whole.items() if name not in {"resourceType", "id", "meta"}}
    return Resource(whole["resourceType"], whole["id"], elements)


def place(resource: Resource) -> str:
    return f"{resource.type}/{resource.id}"


def version(resource: dict[str, Any]) -> str:
    found: str = resource["meta"]["versionId"]
    return found


async def written(
    writer: FhirServer, *resources: Resource, known: dict[str, Written] | None = None
) -> dict[str, Written]:
    found = await writer.write(resources, known or {}, source=SOURCE)
    assert found is not None
    return {**(known or {}), **found}


@pytest.mark.parametrize("bundle", ["true", "false"])
async def test_what_refers_to_another_is_written_with_it_and_updated_by_its_version(
    peer: Peer, token_file: Path, bundle: str
) -> None:
    order = an_order("draft")
    async with a_writer(peer.url, token_file, bundle=bundle) as writer:
        known = await written(writer, order, a_task(order))
        active = an_order("active", id=order.id)
        again = await written(writer, active, a_task(order), known=known)

    found = await peer.get(place(order))
    assert (found["status"], version(found)) == ("active", "2")
    assert again[order.id].version == "2"
    assert again[f"{order.id}-t"] == known[f"{order.id}-t"]
    assert version(await peer.get(f"Task/{order.id}-t")) == "1"


async def test_what_others_say_stays_through_a_conflict_and_every_later_write(peer: Peer, writer: FhirServer) -> None:
    order = an_order("draft", note=[{"id": "drx", "text": "ours"}])
    known = await written(writer, order)
    found = await peer.get(place(order))
    theirs = {
        "identifier": [*found["identifier"], THEIRS],
        "note": [{"text": "theirs"}, *found["note"]],
        "reasonCode": [{"text": "hypertension"}],
        "status": "completed",
    }
    await peer.put({**found, **theirs})

    known = await written(writer, an_order("active", id=order.id, note=[{"id": "drx", "text": "new"}]), known=known)
    known = await written(writer, an_order("on-hold", id=order.id), known=known)

    found = await peer.get(place(order))
    assert found["status"] == "on-hold"
    assert found["reasonCode"] == [{"text": "hypertension"}]
    assert found["note"] == [{"text": "theirs"}]
    assert THEIRS in found["identifier"]
    assert len(found["identifier"]) == 2


async def test_an_element_that_is_ours_goes_when_we_say_it_no_more(peer: Peer, writer: FhirServer) -> None:
    order = an_order("on-hold", statusReason={"text": "refused"})
    known = await written(writer, order)

    await written(writer, an_order("active", id=order.id), known=known)

    assert "statusReason" not in await peer.get(place(order))


async def test_a_write_that_nobody_remembers_is_found_and_not_repeated(peer: Peer, writer: FhirServer) -> None:
    """As after a crash between the write and the commit."""
    order = an_order(dispenseRequest={"quantity": {"value": 15.5}})
    first = await written(writer, order, a_task(order))

    again = await written(writer, order, a_task(order))

    assert again == first
    assert version(await peer.get(place(order))) == "1"


async def test_an_update_that_nobody_remembers_is_found_too(peer: Peer, writer: FhirServer) -> None:
    order = an_order("draft")
    before = await written(writer, order)
    active = an_order("active", id=order.id)
    after = await written(writer, active, known=before)

    assert await written(writer, active, known=before) == after
    assert version(await peer.get(place(order))) == "2"


async def test_the_same_provenance_is_one_however_often_it_is_written(peer: Peer, writer: FhirServer) -> None:
    order = an_order()
    agent = [{"who": {"display": "drx"}}]
    target = [{"reference": place(order)}]
    origin = Resource(
        "Provenance", f"{order.id}-p", {"target": target, "recorded": "2026-09-14T15:00:00Z", "agent": agent}
    )
    await written(writer, order, origin)
    await written(writer, order, origin)

    assert version(await peer.get(f"Provenance/{order.id}-p")) == "1"


async def test_what_somebody_deleted_is_written_again(peer: Peer, writer: FhirServer) -> None:
    order = an_order("draft")
    known = await written(writer, order)
    await peer.delete(place(order))

    again = await written(writer, an_order("active", id=order.id), known=known)

    assert (await peer.get(place(order)))["status"] == "active"
    assert again[order.id].version == version(await peer.get(place(order)))


async def test_what_somebody_deleted_is_left_alone_where_that_is_wanted(peer: Peer, token_file: Path) -> None:
    order = an_order("draft")
    async with a_writer(peer.url, token_file, deleted="skip") as writer:
        known = await written(writer, order)
        await peer.delete(place(order))

        assert await writer.write([an_order("active", id=order.id)], known, source=SOURCE) is None
        assert await writer.write([order], {}, source=SOURCE) is None


async def test_a_withdrawn_resource_keeps_everything_but_its_status(peer: Peer, writer: FhirServer) -> None:
    code = {"text": "Dispensed after the pharmacy approved the cancellation"}
    flag = Resource("Flag", f"drx-{uuid4().hex}", {"status": "active", "code": code, "subject": SUBJECT})
    known = await written(writer, flag)
    gone = Resource("Flag", flag.id, {"status": "inactive"}, partial=True)

    known = await written(writer, gone, known=known)
    await written(writer, gone, known=known)

    found = await peer.get(place(flag))
    assert (found["status"], found["code"], version(found)) == ("inactive", code, "2")


async def test_another_that_writes_all_the_time_loses_nothing_and_neither_do_we(peer: Peer, writer: FhirServer) -> None:
    order = an_order("draft")
    known = await written(writer, order)
    done = asyncio.Event()

    async def edit() -> int:
        """As an EHR that reads, adds and writes; it does not look whether somebody wrote meanwhile."""
        count = 0
        while not done.is_set() and count < 3:
            found = await peer.get(place(order))
            await peer.put({**found, "reasonCode": [*found.get("reasonCode", []), {"text": f"reason {count}"}]})
            count += 1
            await asyncio.sleep(0)
        return count

    edits = asyncio.create_task(edit())
    for status in ("active", "on-hold", "active", "cancelled"):
        with suppress(TransientError):  # three times it was faster: the same event would be tried again
            known = await written(writer, an_order(status, id=order.id), known=known)
    done.set()
    await edits
    known = await written(writer, an_order("stopped", id=order.id), known=known)

    found = await peer.get(place(order))
    assert found["status"] == "stopped"
    assert [each["text"] for each in found["reasonCode"]][:1] == ["reason 0"]


async def test_two_writers_of_one_order_leave_one_order(peer: Peer, token_file: Path) -> None:
    order = an_order()
    async with a_writer(peer.url, token_file) as first, a_writer(peer.url, token_file) as second:
        await asyncio.gather(*(each.write([order], {}, source=SOURCE) for each in (first, second)))

    assert (await peer.get(place(order)))["status"] == "active"


async def test_a_patient_is_found_by_identifier(peer: Peer, writer: FhirServer) -> None:
    value, system = uuid4().hex, "https://ehr.example/mrn|odd"
    identifier = {"system": "https://ehr.example/mrn", "value": value}
    assert await writer.patient(identifier) is None
    await peer.put({"resourceType": "Patient", "id": f"p-{value}", "identifier": [identifier]})
    assert await writer.patient(identifier) == {"reference": f"Patient/p-{value}"}
    assert await writer.patient({"system": system, "value": value}) is None

    await peer.put({"resourceType": "Patient", "id": f"q-{value}", "identifier": [identifier]})
    with pytest.raises(PermanentError) as caught:
        await writer.patient(identifier)

    assert caught.value.code == "multiple_matches"


@pytest.mark.parametrize("value", ["123,456", "123|456", "123$456", "123\\", "\\,123", "a&b=c+d"])
async def test_a_patient_is_found_by_the_whole_of_an_identifier(peer: Peer, writer: FhirServer, value: str) -> None:
    """In a search `123,456` means either of the two, of whom one would be somebody else."""
    system = f"https://ehr.example/{uuid4().hex}"
    part, other = ({"system": system, "value": each} for each in (value[:3], "456"))
    await peer.put({"resourceType": "Patient", "id": f"p-{uuid4().hex}", "identifier": [part]})
    await peer.put({"resourceType": "Patient", "id": f"p-{uuid4().hex}", "identifier": [{"value": "456"}, other]})
    identifier = {"system": system, "value": value}
    assert await writer.patient(identifier) is None

    own = f"p-{uuid4().hex}"
    await peer.put({"resourceType": "Patient", "id": own, "identifier": [other | {"value": "789"}, identifier]})

    assert await writer.patient(identifier) == {"reference": f"Patient/{own}"}


async def test_a_patient_with_another_identifier_than_was_asked_for_is_not_the_one(token_file: Path) -> None:
    """Of a server that takes escapes for what was asked, or leaves the search parameter out."""
    async with a_fake() as fake, a_writer(fake.url, token_file) as writer:
        another = {"resourceType": "Patient", "id": "p", "identifier": [{"system": "urn:mrn", "value": "2"}]}
        answer = json.dumps({"resourceType": "Bundle", "type": "searchset", "entry": [{"resource": another}]})
        fake.before = lambda _: web.Response(text=answer, content_type="application/fhir+json")

        assert await writer.patient({"system": "urn:mrn", "value": "1"}) is None
        assert await writer.patient({"system": "urn:mrn", "value": "2"}) == {"reference": "Patient/p"}


async def test_a_server_is_asked_for_json_whatever_it_answers_otherwise(peer: Peer, writer: FhirServer) -> None:
    """Else the ping would take its XML for the answer of something that is not FHIR."""
    assert peer.url

    await writer.ping()


async def test_decimals_of_others_stay_through_every_write_and_are_not_stored(peer: Peer, writer: FhirServer) -> None:
    """What is stored has no digits of its own: a resource with decimals of others is read before each write."""
    order = an_order("draft")
    known = await written(writer, order)
    dose = {"url": "https://ehr.example/dose", "valueDecimal": 1.5}
    await peer.put({**await peer.get(place(order)), "extension": [dose]})

    for status in ("active", "on-hold"):
        known = await written(writer, an_order(status, id=order.id), known=known)
        assert known[order.id][0::2] == ("", {})
        found = await peer.get(place(order))
        assert (found["status"], found["extension"]) == (status, [dose])
    assert await written(writer, an_order("on-hold", id=order.id)) == known


@pytest.mark.parametrize("bundle", ["true", "false"])
async def test_a_resource_that_is_not_taken_is_refused_by_a_constant(peer: Peer, token_file: Path, bundle: str) -> None:
    task = a_task(an_order())
    async with a_writer(peer.url, token_file, bundle=bundle) as writer:
        with pytest.raises(PermanentError) as caught:
            await writer.write([task], {}, source=SOURCE)

    assert caught.value.code == "fhir_processing"
    assert str(caught.value) == "fhir_processing"


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


@pytest.mark.parametrize("name", EVENTS)
async def test_what_a_sample_comes_to_is_taken_and_valid(hapi: HapiServer, name: str, token_file: Path) -> None:
    """Every resource, by HAPI's validator without an error."""
    found = told(EVENTS[name])
    async with a_writer(hapi.url, token_file) as writer:
        await written(writer, *map(as_resource, found))
        problems = [await asyncio.to_thread(hapi.problems, each) for each in found]

    assert problems == [[] for _ in found]
