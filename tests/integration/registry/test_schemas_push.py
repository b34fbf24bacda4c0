"""`drx-bridge schemas push` to a foreign registry, whose ids the bridge uses."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext
from prometheus_client import CollectorRegistry, Counter

from bridge.avro import schema_ids
from bridge.avro.schema_ids import SchemaIds
from bridge.errors import NotDurableError
from bridge.kafka.routing import RoutingTable
from bridge.registry.ids import read_ids
from bridge.registry.loader import bundled
from bridge.registry.schemas import meaning
from bridge.settings import Registry
from tests import forked
from tests.audit_lines import acts, spoken
from tests.integration.registry.samples import samples
from tests.integration.service_process import HANG_S
from tests.waiting import until

# Above the ids of the lock, which mean something else here.
FIRST_ID = 2**30


class ForeignRegistry:
    """Holds each schema under one id; `subjects` are those of the newest versions."""

    def __init__(self) -> None:
        self.subjects: dict[str, int] = {}
        self._versions: set[tuple[str, int]] = set()
        self.texts: dict[int, str] = {}

    def put(self, subject: str, text: str) -> int:
        number = next((each for each, other in self.texts.items() if _same(other, text)), FIRST_ID + len(self.texts))
        self.texts[number] = text
        self.subjects[subject] = number
        self._versions.add((subject, number))
        return number

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/schemas/ids/{id}", self._by_id)
        app.router.add_post("/subjects/{subject}", self._look_up)
        app.router.add_post("/subjects/{subject}/versions", self._register)
        return app

    async def _by_id(self, request: web.Request) -> web.Response:
        text = self.texts.get(int(request.match_info["id"]))
        return _refusal(40403, "Schema not found") if text is None else web.json_response({"schema": text})

    async def _look_up(self, request: web.Request) -> web.Response:
        subject, text = request.match_info["subject"], await _text(request)
        found = (number for of, number in self._versions if of == subject and _same(self.texts[number], text))
        number = next(found, None)
        if number is None:
            return _refusal(40403, "Schema not found")
        return web.json_response({"id": number, "schema": text})

    async def _register(self, request: web.Request) -> web.Response:
        subject, text = request.match_info["subject"], await _text(request)
        if subject in self.subjects and not _fits(self.texts[self.subjects[subject]], text):
            return _refusal(40901, f"{subject} has fields of other types")
        return web.json_response({"id": self.put(subject, text)})


async def _text(request: web.Request) -> str:
    body: dict[str, Any] = await request.json()
    return str(body["schema"])


def _same(one: str, other: str) -> bool:
    return meaning(json.loads(one)) == meaning(json.loads(other))


def _fits(older: str, newer: str) -> bool:
    types = {field["name"]: field["type"] for field in json.loads(older)["fields"]}
    return all(types.get(field["name"], field["type"]) == field["type"] for field in json.loads(newer)["fields"])


def _refusal(error_code: int, message: str) -> web.Response:
    return web.json_response({"error_code": error_code, "message": message}, status=error_code // 100)


ROUTES = {"prescription.*": "clinic.rx"}
SUBJECT = "clinic.rx-drx.v1.PrescriptionSent"
OTHERWISE = {"type": "record", "name": "PrescriptionSent", "namespace": "drx.v1"}


async def push(*words: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "bridge", "schemas", "push", *words]
    env = os.environ | {"BRIDGE_KAFKA__ROUTES": json.dumps(ROUTES)}
    return await asyncio.to_thread(forked.run, command, env, timeout_s=HANG_S)


@pytest.fixture
def store() -> ForeignRegistry:
    return ForeignRegistry()


@pytest.fixture
async def server(store: ForeignRegistry) -> AsyncIterator[TestServer]:
    server = TestServer(store.app())
    async with server:
        yield server


async def until_learned(url: str, ids_file: Path | None = None) -> SchemaIds:
    requests = Counter("requests", "Calls.", ["result"], registry=CollectorRegistry())
    ids = SchemaIds(Registry(url=url), ids_file=ids_file, routing=RoutingTable(ROUTES), requests=requests)
    stop = asyncio.Event()
    running = asyncio.create_task(ids.run(stop))
    with pytest.raises(NotDurableError):
        ids.encode(samples()[0].record, samples()[0].value)
    await until(lambda: ids.known)
    stop.set()
    await running
    return ids


async def test_records_carry_the_ids_that_a_push_was_given_also_without_that_registry(
    store: ForeignRegistry, server: TestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_ids, "RETRY_S", 0.05)
    url, ids_file = str(server.make_url("")).rstrip("/"), tmp_path / "ids.json"
    learning = asyncio.create_task(until_learned(url))
    code, out, err = await push("--url", url, "--ids-file", str(ids_file), "--json")
    learned = await learning
    written = [learned.encode(sample.record, sample.value) for sample in samples()]
    read = await asyncio.to_thread(read_all, url, written)
    await server.close()
    kept = await until_learned(url, ids_file)

    assert (code, spoken(err), acts(err)) == (0, "", [("schemas.push", "begun"), ("schemas.push", "done")])
    # Of a type that is in two topics, both subjects.
    rows = json.loads(out)["schemas"]
    of_lock = [entry.record for entry in bundled().entries]
    assert list(dict.fromkeys(row["record"] for row in rows)) == list(dict.fromkeys(of_lock))
    assert {row["subject"]: row["id"] for row in rows} == store.subjects
    assert SUBJECT in store.subjects
    assert read == [sample.value for sample in samples()]
    assert all(payload[1:5] != sample.payload[1:5] for payload, sample in zip(written, samples(), strict=True))
    assert [kept.encode(sample.record, sample.value) for sample in samples()] == written


def read_all(url: str, payloads: list[bytes]) -> list[object]:
    with SchemaRegistryClient({"url": url}) as client:
        deserialize = AvroDeserializer(client)
        ctx = SerializationContext("clinic.rx", MessageField.VALUE, [])
        return [deserialize(payload, ctx) for payload in payloads]


async def test_a_push_says_what_is_incompatible_and_records_nothing(
    store: ForeignRegistry, server: TestServer, tmp_path: Path
) -> None:
    url, ids_file = str(server.make_url("")).rstrip("/"), tmp_path / "ids.json"
    store.put(SUBJECT, json.dumps({**OTHERWISE, "fields": [{"name": "event_id", "type": "long"}]}))

    code, _, err = await push("--url", url, "--ids-file", str(ids_file))

    assert (code, len(spoken(err).splitlines())) == (1, 1)
    assert spoken(err).startswith(f"refused: {SUBJECT}: the registry responded 409 (error_code 40901)")
    assert read_ids(ids_file, url) == {}


async def test_a_push_without_a_registry_is_one_line_and_exit_2() -> None:
    code, _, err = await push()

    assert (code, len(err.splitlines()), "--url" in err) == (2, 1, True)
