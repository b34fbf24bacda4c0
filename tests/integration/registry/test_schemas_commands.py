"""`drx-bridge schemas push` and `serve` as processes: what they register, record and say, and how they end."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer

from bridge.kafka.routing import RoutingTable
from bridge.registry.ids import newest, read_ids, resolve_ids, wanted
from bridge.registry.loader import bundled
from tests import forked
from tests.audit_lines import acts, spoken
from tests.foreign_registry import ForeignRegistry
from tests.integration.service_process import HANG_S

SENT = "drx.v1.PrescriptionSent"
SUBJECT = f"drx.prescriptions.v1-{SENT}"
OTHERWISE = {"type": "record", "name": "PrescriptionSent", "namespace": "drx.v1"}


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    out: str
    err: str


async def run(*words: str, **environment: str) -> Outcome:
    command = [sys.executable, "-m", "bridge", "schemas", *words]
    return Outcome(*await asyncio.to_thread(forked.run, command, os.environ | environment, timeout_s=HANG_S))


@pytest.fixture
def store() -> ForeignRegistry:
    return ForeignRegistry()


@pytest.fixture
async def url(store: ForeignRegistry) -> AsyncIterator[str]:
    async with TestServer(store.app()) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture
def ids_file(tmp_path: Path) -> Path:
    return tmp_path / "ids.json"


class Nobody:
    def __init__(self, url: str) -> None:
        self.url = url

    async def look_up(self, subject: str, schema: object) -> int | None:
        raise AssertionError(subject, schema)

    async def holds(self, schema_id: int, schema: object) -> bool:
        raise AssertionError(schema_id, schema)


async def test_push_registers_every_schema_and_records_ids_that_need_no_registry(
    store: ForeignRegistry, url: str, ids_file: Path
) -> None:
    pushed = await run("push", "--url", url, "--ids-file", str(ids_file), "--json")
    rows = json.loads(pushed.out)["schemas"]
    ids = await resolve_ids(wanted(newest(bundled()), RoutingTable().topics_of), registry=Nobody(url), path=ids_file)

    assert (pushed.code, spoken(pushed.err)) == (0, "")
    assert acts(pushed.err) == [("schemas.push", "begun"), ("schemas.push", "done")]
    # Of a type that is in two topics, both subjects.
    assert list(dict.fromkeys(row["record"] for row in rows)) == [entry.record for entry in bundled().entries]
    other = {"drx.accounts.v1-drx.v1.OtherReported"}
    assert store.subjects.keys() == {entry.subject for entry in bundled().latest().values()} | other
    assert {row["record"]: row["id"] for row in rows} == ids
    assert all(json.loads(store.texts[ids[record]]) == schema for record, schema in bundled().schemas().items())
    assert min(ids.values()) >= 2**30


async def test_push_says_what_is_incompatible_and_records_nothing(
    store: ForeignRegistry, url: str, ids_file: Path
) -> None:
    store.put(SUBJECT, json.dumps({**OTHERWISE, "fields": [{"name": "event_id", "type": "long"}]}))
    pushed = await run("push", "--url", url, "--ids-file", str(ids_file))

    assert pushed.code == 1
    assert spoken(pushed.err).startswith(f"refused: {SUBJECT}: the registry answered 409 (error_code 40901)")
    assert len(spoken(pushed.err).splitlines()) == 1
    assert read_ids(ids_file, url) == {}


async def test_push_to_a_read_only_registry_says_so(store: ForeignRegistry, url: str) -> None:
    store.read_only = True
    pushed = await run("push", "--url", url)

    assert (pushed.code, len(spoken(pushed.err).splitlines())) == (1, 1)
    assert "read-only" in pushed.err


@pytest.mark.parametrize(
    ("words", "environment", "said"),
    [
        ((), {}, "--url"),
        (("--url", "not an address"), {}, "not an http address"),
        (("--url", "http://127.0.0.1:9"), {"BRIDGE_REGISTRY__USERNAME_FILE": "/nowhere"}, "password_file"),
        (
            ("--url", "http://127.0.0.1:9"),
            {"BRIDGE_REGISTRY__USERNAME_FILE": "/nowhere", "BRIDGE_REGISTRY__PASSWORD_FILE": "/nowhere"},
            "/nowhere",
        ),
    ],
)
async def test_what_an_operator_got_wrong_is_one_line_and_exit_2(
    words: tuple[str, ...], environment: dict[str, str], said: str
) -> None:
    pushed = await run("push", *words, **environment)

    assert (pushed.code, len(spoken(pushed.err).splitlines())) == (2, 1)
    assert said in pushed.err


async def test_serve_on_a_taken_port_is_one_line_and_exit_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        served = await run("serve", "--port", str(port))

    assert (served.code, len(served.err.splitlines())) == (2, 1)
    assert f"127.0.0.1:{port}" in served.err
