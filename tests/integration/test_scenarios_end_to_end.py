"""Whole prescription lives through the whole real path, HTTP to Kafka to PostgreSQL, however they arrive.

The scenarios end where their files say, and everything ends where the oracle does. The events of both are older than
any clock this runs under: among clamped events the receipt decides (docs/contract.md §3), and a reversal would show.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import uuid4

import aiohttp
import orjson
import pytest

from tests.builders import SAMPLES
from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer
from tests.integration.ingress_process import IngressProcess, deliver
from tests.integration.service_process import HANG_S, until
from tests.oracle.histories import arrivals, history
from tests.oracle.pen import Body
from tests.oracle.states import COLUMNS, expected_state
from tests.postgres import execute, fresh_database

pytestmark = pytest.mark.kafka

FOLDER = SAMPLES / "scenarios"
SCENARIOS = sorted(path.stem for path in FOLDER.glob("*.ndjson"))
SEEDS = range(40)
# Deliveries that are on their way at one time.
SENDERS = 16


Rows = Mapping[str, Mapping[str, Any]]


def shuffled(bodies: Sequence[Body]) -> list[Body]:
    """Give them in an order that is the same on every run, some more than once."""
    rng = random.Random(len(bodies))  # noqa: S311 - an order of arrival, not keys
    return [body for batch in arrivals(rng, bodies) for body in batch]


WAYS: Mapping[str, Callable[[Sequence[Body]], list[Body]]] = {
    "in_order": list,
    "reversed": lambda bodies: list(reversed(bodies)),
    "shuffled": shuffled,
}


def scenario(name: str, way: str) -> list[Body]:
    """Read a scenario; its ids and prescriptions belong to this arrival of it alone."""
    bodies = [json.loads(line) for line in (FOLDER / f"{name}.ndjson").read_text().splitlines()]
    for body in bodies:
        body["id"] += f"-{name}-{way}"
        if body["data"].get("prescription_id"):
            body["data"]["prescription_id"] += f"-{name}-{way}"
    return bodies


TOLD: Mapping[tuple[str, str], Sequence[Body]] = {
    **{(name, way): scenario(name, way) for name in SCENARIOS for way in WAYS},
    **{("history", str(seed)): history(seed).bodies for seed in SEEDS},
}


@pytest.fixture(scope="module")
def rows(cluster: Cluster, postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rows]:
    """Send everything, and give what the read model makes of it."""
    Topics(cluster.bootstrap_servers).standard()
    directory, schema = tmp_path_factory.mktemp("scenarios"), f"t{uuid4().hex}"
    with fresh_database(postgres_server) as dsn:
        parts: dict[str, Any] = {"bootstrap_servers": cluster.bootstrap_servers, "dsn": dsn}
        with IngressProcess(directory, cluster.bootstrap_servers) as ingress:
            # What other tests have left in the shared topics is not ours to apply.
            asyncio.run(_begin_here(consumer_environment(**parts, READ_MODEL__SCHEMA=schema)))
            with ConsumerProcess(directory, "read_model", **parts, READ_MODEL__SCHEMA=schema) as consumer:
                ingress.ready()
                asyncio.run(_send_all(ingress))
                until(lambda: consumer.live() and _applied(dsn, schema), what="every event in the read model")
        yield _rows(dsn, schema)


async def _begin_here(env: Mapping[str, str]) -> None:
    code, _, err = await drx_consumer(env, "init", "read_model", "--from", "latest")
    assert code == 0, err


async def _send_all(ingress: IngressProcess) -> None:
    senders = asyncio.Semaphore(SENDERS)
    async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:

        async def send(bodies: Sequence[Body]) -> None:
            async with senders:
                for body in bodies:
                    reply = await deliver(session, ingress, orjson.dumps(body), webhook_id=body["id"])
                    assert reply.status == 200, (reply, body)

        for (_, way), bodies in TOLD.items():
            group.create_task(send(WAYS.get(way, shuffled)(bodies)))


def _applied(dsn: str, schema: str) -> bool:
    ((count,),) = execute(dsn, f"select count(*) from {schema}.event")[0]  # noqa: S608 - a name of ours
    return bool(count >= len({body["id"] for bodies in TOLD.values() for body in bodies}))


def _rows(dsn: str, schema: str) -> Rows:
    columns = ", ".join(COLUMNS.values())
    (found,) = execute(dsn, f"select prescription_id, {columns} from {schema}.prescription")  # noqa: S608 - names of ours
    return {key: dict(zip(COLUMNS, values, strict=True)) for key, *values in found}


def by_prescription(bodies: Sequence[Body]) -> dict[str, list[Body]]:
    """Put the events of each prescription together; the first is the one that the scenario is about."""
    found: dict[str, list[Body]] = {}
    for body in bodies:
        if key := body["data"].get("prescription_id"):
            found.setdefault(key, []).append(body)
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_ends_as_it_says_however_it_arrives(rows: Rows, name: str, way: str) -> None:
    end = json.loads((FOLDER / f"{name}.expect.json").read_text())["expect"]
    prescriptions = by_prescription(TOLD[name, way])

    row = rows[next(iter(prescriptions))]

    assert {column: row[column] for column in end} == end
    assert {key: rows[key] for key in prescriptions} == {
        key: expected_state(each) for key, each in prescriptions.items()
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hostile_history_ends_where_the_oracle_does(rows: Rows, seed: int) -> None:
    (prescription,) = by_prescription(TOLD["history", str(seed)])

    assert rows[prescription] == expected_state(TOLD["history", str(seed)])


def test_the_read_model_holds_nothing_else(rows: Rows) -> None:
    assert set(rows) == {key for bodies in TOLD.values() for key in by_prescription(bodies)}
