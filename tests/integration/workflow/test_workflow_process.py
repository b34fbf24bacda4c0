"""`drx-consumer init, doctor, run, lag and parked workflow` with a real broker, database and Temporal server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from consumers.options import read_options
from consumers.workflow.options import NAME, WorkflowOptions
from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer
from tests.integration.service_process import until
from tests.read_model import open_model
from tests.temporal.histories import a_client, told
from tests.temporal.server import TemporalServer
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

LIVES = Lives(30)


async def test_a_topic_becomes_workflows_and_nothing_is_said_of_them(
    cluster: Cluster, topics: Topics, postgres: str, temporal: TemporalServer, tmp_path: Path
) -> None:
    topic = topics.fresh(partitions=4)
    fill(cluster.bootstrap_servers, LIVES.records(topic, partitions=4))
    rules = read_options(WorkflowOptions, NAME, {"address": temporal.address}).read_rules()
    events = [event for number in range(LIVES.prescriptions) for event in LIVES.events(number)]
    due = [(event, action) for event in events if (action := rules.action(event)) is not None]
    given: dict[str, Any] = {
        "bootstrap_servers": cluster.bootstrap_servers,
        "dsn": postgres,
        "WORKFLOW__ADDRESS": temporal.address,
        "WORKFLOW__ALLOW_PLAINTEXT": "true",
        "WORKFLOW__TOPICS": topic,
        "WORKFLOW__INSTANCE": "desk",
    }
    environment = consumer_environment(**given)
    code, _, err = await drx_consumer(environment, "init", "workflow", "--from", "earliest")
    assert code == 2
    assert "this database has no read_model.overdue" in err
    async with open_model(postgres):  # makes its tables
        pass
    code, out, err = await drx_consumer(environment, "init", "workflow", "--from", "earliest")
    assert code == 0, err
    said = out + err
    with ConsumerProcess(tmp_path, "workflow", **given) as process:
        process.ready()
        until(
            lambda: process.metric("drxbridge_consumer_records_total", outcome="applied") == len(due),
            what="every event that does something to be applied",
        )
        assert await process.end() == 0
    said += process.output()
    for command in (["doctor", "workflow"], ["lag", "workflow", "--json"], ["parked", "list", "workflow", "--json"]):
        code, out, err = await drx_consumer(environment, *command)
        assert code == 0, err
        said += out + err

    assert out == ""
    event, action = due[0]
    async with a_client(temporal.address) as client:
        found = await told(client, action.id)
    assert found is not None
    assert found.started_with["event_id"] == event.id
    patient = LIVES.events(0)[0].value["patient"]
    assert isinstance(patient, dict)
    for secret in (patient["last_name"], patient["first_name"], LIVES.prescription_id(0), event.key):
        assert secret not in said
