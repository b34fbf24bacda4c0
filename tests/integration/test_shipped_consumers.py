"""Each shipped consumer, from a real broker to its sink and by its commands, without showing event content."""

import base64
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet  # noqa: TID251 - reads what was written

from bridge.event import Event
from consumers.fhir.mapping import resources
from consumers.options import read_options
from consumers.runtime.circuit import OPEN_AFTER
from consumers.workflow.options import NAME, WorkflowOptions
from tests.cluster import Cluster, Topics
from tests.faults.away import HOST
from tests.faults.messaging import Receiver
from tests.faults.recording import Server
from tests.fhir.told import NAMING, documents
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer
from tests.integration.forward.node_receiver import NodeReceiver
from tests.integration.service_process import until
from tests.read_model import open_model
from tests.temporal.histories import a_client, told
from tests.temporal.server import TemporalServer
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

LIVES = Lives(10)
EVENTS = tuple(event for number in range(LIVES.prescriptions) for event in LIVES.events(number))
PATIENT: Any = EVENTS[0].value["patient"]
SECRET = "whsec_" + base64.b64encode(b"PHI-free and 32 bytes long, yes.").decode()
TOKEN = "hunter2-of-the-endpoint"


@dataclass(frozen=True, slots=True)
class Sink:
    """Where a consumer writes to; `due` are the events that it applies, and its commands must not show `secrets`."""

    options: dict[str, str]
    arrived: Callable[[], bool]
    due: Sequence[Event] = EVENTS
    secrets: Sequence[str] = ()
    lose: Callable[[], object] | None = None  # removes events of which `doctor` notices that they are gone


@asynccontextmanager
async def archive(directory: Path, _dsn: str) -> AsyncIterator[Sink]:
    lake = directory / "lake"

    def archived() -> bool:
        files = lake.glob("events/**/*.parquet")
        rows: int = sum(parquet.read_metadata(file).num_rows for file in files)
        return rows == len(EVENTS)

    yield Sink({"ROOT": str(lake), "WAIT_S": "1"}, archived, lose=lambda: shutil.rmtree(lake / "events"))


@asynccontextmanager
async def fhir(directory: Path, _dsn: str) -> AsyncIterator[Sink]:
    (directory / "token").write_text(TOKEN)
    found = [each for key, facts in documents(EVENTS).items() for each in resources(key, facts, NAMING)]
    expected = {f"{each.type}/{each.id}" for each in found}
    with Server() as server:
        server.fake.token = TOKEN
        options = {"BASE_URL": server.url, "ALLOW_HTTP": "true", "TOKEN_FILE": str(directory / "token")}
        yield Sink(options, lambda: expected <= set(server.kept("urn:drx:")), secrets=(TOKEN, "HAPI-0000"))


@asynccontextmanager
async def forward(directory: Path, _dsn: str) -> AsyncIterator[Sink]:
    """Open a receiver with the official package, which refuses some at first."""
    (directory / "secrets").mkdir()
    (directory / "secrets" / "current").write_text(SECRET)
    (directory / "headers").write_text(f"x-token: {TOKEN}\n")
    with NodeReceiver(SECRET, refused=OPEN_AFTER + 2) as receiver:
        options = {
            "URL": receiver.url,
            "ALLOW_HTTP": "true",
            "SECRETS_DIR": str(directory / "secrets"),
            "HEADERS_FILE": str(directory / "headers"),
        }

        def posted() -> bool:
            taken = [each["headers"] for each in receiver.taken if each["headers"]["x-token"] == TOKEN]
            return {each["webhook-id"] for each in taken} == {event.id for event in EVENTS}

        yield Sink(options, posted, secrets=(SECRET.removeprefix("whsec_"), TOKEN, "tenant"))


@asynccontextmanager
async def hl7v2(_directory: Path, _dsn: str) -> AsyncIterator[Sink]:
    with Receiver() as receiver:
        options = {"HOST": HOST, "PORT": str(receiver.port), "ALLOW_PLAINTEXT": "true", "CONNECTIONS": "4"}
        yield Sink(options, lambda: any(PATIENT["last_name"].encode() in each for each in receiver.taken))


@asynccontextmanager
async def workflow(directory: Path, dsn: str) -> AsyncIterator[Sink]:
    with TemporalServer(directory) as server:
        rules = read_options(WorkflowOptions, NAME, {"address": server.address}).read_rules()
        due = [event for event in EVENTS if rules.action(event) is not None]
        async with open_model(dsn):  # makes its tables
            pass
        yield Sink({"ADDRESS": server.address, "ALLOW_PLAINTEXT": "true"}, lambda: True, due)
        action = rules.action(due[0])
        assert action is not None
        async with a_client(server.address) as client:
            found = await told(client, action.id)
        assert found is not None
        assert found.started_with["event_id"] == due[0].id


@pytest.mark.parametrize("sink", [archive, fhir, forward, hl7v2, workflow], ids=lambda each: each.__name__)
async def test_every_event_reaches_the_sink_and_nothing_of_it_is_shown(
    sink: Callable[[Path, str], AbstractAsyncContextManager[Sink]],
    cluster: Cluster,
    topics: Topics,
    postgres: str,
    tmp_path: Path,
) -> None:
    name, topic = sink.__name__, topics.fresh(partitions=4)
    fill(cluster.bootstrap_servers, LIVES.records(topic, partitions=4))
    async with sink(tmp_path, postgres) as to:
        options = to.options | {"TOPICS": topic}
        given: dict[str, Any] = {
            "bootstrap_servers": cluster.bootstrap_servers,
            "dsn": postgres,
            **{f"{name.upper()}__{option}": value for option, value in options.items()},
        }
        said = ""

        async def command(*arguments: str) -> str:
            nonlocal said
            code, out, err = await drx_consumer(consumer_environment(**given), *arguments)
            said += out + err
            assert code == 0, out + err
            return out

        await command("init", name, "--from", "earliest")
        with ConsumerProcess(tmp_path, name, **given) as process:
            process.ready()
            applied = "drxbridge_consumer_records_total"
            until(lambda: process.metric(applied, outcome="applied") == len(to.due), what="every event to be applied")
            until(to.arrived, what="every event to arrive")
            assert await process.end() == 0
        said += process.output()
        if to.lose is not None:
            to.lose()
        assert (f" with {len(EVENTS)} events: restore" in await command("doctor", name)) == (to.lose is not None)
        await command("lag", name, "--json")
        assert await command("parked", "list", name, "--json") == ""

    hidden = (*to.secrets, PATIENT["last_name"], PATIENT["first_name"], LIVES.prescription_id(0))
    assert [each for each in hidden if each in said] == []
