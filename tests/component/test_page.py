"""The page of a local stack joins the ingress's log with Kafka, masks values, and executes no external content."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import BaseTestServer, TestServer

from bridge.avro.codec import Codec
from bridge.avro.event_decoder import open_decoder
from bridge.dev.files import DataDirectory
from bridge.dev.page.feed import Feed
from bridge.dev.page.server import page_app
from bridge.dev.page.views import MACHINES, Views, strip
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.registry.address import RegistryAddress
from bridge.registry.loader import bundled
from bridge.runtime.log_ids import current_id_key
from bridge.runtime.logging import id_hash
from tests.builders import an_event

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"
NOTE = f"CANARY {HOSTILE}"
CODEC = Codec(schemas=bundled().schemas(), ids=bundled().ids())


@dataclass
class Page:
    """The page of a directory in which nothing runs, asked as a browser asks."""

    feed: Feed
    server: BaseTestServer
    http: aiohttp.ClientSession
    id_key: bytes
    show_phi: bool

    def hashed(self, event_id: str) -> str:
        return id_hash(event_id, self.id_key)

    async def get(self, path: str, **headers: str) -> tuple[aiohttp.ClientResponse, str]:
        async with self.http.get(self.server.make_url(path), headers=headers) as answer:
            return answer, await answer.text()

    async def first_news(self, query: str = "") -> dict[str, Any]:
        async with self.http.get(self.server.make_url(f"/live{query}")) as answer:
            news: dict[str, Any] = json.loads((await answer.content.readline()).removeprefix(b"data: "))
        return news


@pytest.fixture(params=[False])
async def page(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Page]:
    directory = DataDirectory(tmp_path)
    id_key = current_id_key(directory.secret_dir("log", make=lambda: "k" * 32))
    feed = Feed(directory)
    async with aiohttp.ClientSession() as http, open_decoder(RegistryAddress()) as decoder:
        views = Views(directory, feed, decoder, show_phi=request.param)
        async with TestServer(page_app(feed, views)) as server:
            yield Page(feed, server, http, id_key, request.param)


def a_line(event: str, **fields: object) -> bytes:
    """Return a line as the ingress writes it; ids come hashed."""
    return json.dumps({"event": event, "timestamp": "2026-09-14T15:09:26.535Z", "duration_ms": 1.5, **fields}).encode()


def a_record(*, key: str = "rx_1", event_id: str = "evt_1", body_sha256: str = "") -> ConsumedRecord:
    """Return the record of a fill, with a note that means to run."""
    value = dict(an_event(id=event_id, key=key, type="fill.status_changed").value)
    del value["network_status"]
    value |= {"fill_number": 1, "fill_status": "dispensed", "note": NOTE, "extensions": {"/data/x": NOTE}}
    headers = [("ce_id", event_id.encode()), ("drx_body_sha256", body_sha256.encode())]
    payload = CODEC.encode("drx.v1.FillStatusChanged", value)
    return ConsumedRecord("drx.prescriptions.v1", 3, 17, 1_789_398_566_535, key.encode(), payload, headers)


def cells(sections: list[dict[str, Any]], title: str) -> list[list[Any]]:
    rows: list[list[Any]] = next(each["rows"] for each in sections if each["title"] == title)
    return rows


async def test_a_line_of_the_log_and_its_record_are_one_row_whichever_comes_first(page: Page) -> None:
    page.feed.take_line(a_line("delivery.accepted", source="drx", event_id=page.hashed("evt_1"), event_type="a.b"))
    page.feed.take_record(a_record())
    page.feed.take_record(a_record(event_id="evt_2/1", key="rx_2"))
    page.feed.take_line(a_line("delivery.accepted", source="drx", event_id=page.hashed("evt_2")))
    page.feed.take_line(a_line("worker.started"))
    for other in (b"Traceback (most recent call last):", b"1", b"{}", b'{"event":null}'):
        page.feed.take_line(other)

    news = await page.first_news()

    assert [(each["status"], each["type"], each["key"]) for each in news["rows"]] == [
        (200, "a.b", {"key": "rx_1"}),
        (200, "", {"key": "rx_2"}),
    ]
    assert [each["key"] for each in (await page.first_news("?source=drx&kind=a."))["rows"]] == [{"key": "rx_1"}]


@pytest.mark.parametrize("page", [False, True], indirect=True, ids=["masked", "show_phi"])
async def test_identity_and_free_text_are_masked_unless_asked_for(page: Page) -> None:
    page.feed.take_line(a_line("delivery.accepted", source="drx", event_id=page.hashed("evt_1")))
    page.feed.take_record(a_record())

    sections = json.loads((await page.get("/delivery?id=1"))[1])

    fields = {name: (phi, value) for name, phi, value in cells(sections, "Fields")}
    assert fields["fill_status"] == ("L health", "dispensed"), "a word of a closed list says what happened"
    assert fields["note"] == ("L health", NOTE if page.show_phi else "•••")
    assert ("CANARY" in json.dumps(sections)) is page.show_phi
    assert ["unknown members", 1] in cells(sections, "drx.prescriptions.v1/3@17")


@pytest.mark.parametrize("delivery_id", ["evt_1", "dlv_" + "5f" * 16])
async def test_an_unrecognized_delivery_waits_until_it_has_become_an_event(page: Page, delivery_id: str) -> None:
    names = {"ce_id": delivery_id, "ce_source": "drx", "drx_reason": "unknown_type"}
    headers = [(name, text.encode()) for name, text in names.items()]
    page.feed.take_record(ConsumedRecord("drx.unrecognized.v1", 0, 7, 1_000, b"evt_1", b"", headers))

    waiting = cells(json.loads((await page.get("/waiting"))[1]), "Unrecognized deliveries")
    page.feed.take_record(a_record(body_sha256="5f" * 32))

    assert waiting[0][:2] == ["drx", "unknown_type"]
    assert f"drx-bridge unrecognized replay --source drx --id {delivery_id}" in waiting[0][3]["copy"][1]
    assert cells(json.loads((await page.get("/waiting"))[1]), "Unrecognized deliveries") == []


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/delivery?id=x", "/prescription?id=x", "/waiting"])
async def test_no_answer_lets_foreign_text_run(page: Page, path: str) -> None:
    answer, text = await page.get(path)

    assert answer.status == HTTPStatus.OK
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert not re.search(r"<style|\sstyle=|<script>|\son\w+=|innerHTML|eval\(", text), "the policy forbids it"


async def test_only_a_name_of_loopback_is_answered(page: Page) -> None:
    """A site in the same browser could point its own name here, and would then be of the same origin."""
    assert (await page.get("/waiting", Host="evil.example"))[0].status == HTTPStatus.MISDIRECTED_REQUEST
    assert (await page.get("/waiting", Host="localhost:80"))[0].status == HTTPStatus.OK


def test_a_picture_escapes_what_a_newer_release_may_name_a_state() -> None:
    events = [{"occurred_at": HOSTILE, "moved": dict.fromkeys(MACHINES, f'"{HOSTILE}')}]

    assert not re.search(r"<(?!/?(svg|g|rect|text|title)\b)", strip(events))
