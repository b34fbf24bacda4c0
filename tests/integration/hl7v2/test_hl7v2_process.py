"""`drx-consumer init, run, lag and parked hl7v2` with a real broker, and a receiver in this process."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster import Cluster, Topics
from tests.faults.away import HOST
from tests.faults.messaging import Receiver
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer
from tests.integration.service_process import until
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

LIVES = Lives(30)


async def test_a_topic_becomes_messages_and_nothing_is_said_of_them(
    cluster: Cluster, topics: Topics, postgres: str, tmp_path: Any
) -> None:
    topic = topics.fresh(partitions=4)
    count = fill(cluster.bootstrap_servers, LIVES.records(topic, partitions=4))
    with Receiver() as receiver:
        given: dict[str, Any] = {
            "bootstrap_servers": cluster.bootstrap_servers,
            "dsn": postgres,
            "HL7V2__HOST": HOST,
            "HL7V2__PORT": str(receiver.port),
            "HL7V2__ALLOW_PLAINTEXT": "true",
            "HL7V2__TOPICS": topic,
            "HL7V2__INSTANCE": "desk",
            "HL7V2__CONNECTIONS": "4",
        }
        environment = consumer_environment(**given)
        code, out, err = await drx_consumer(environment, "init", "hl7v2", "--from", "earliest")
        assert code == 0, err
        said = out + err
        with ConsumerProcess(tmp_path, "hl7v2", **given) as process:
            process.ready()
            until(
                lambda: process.metric("drxbridge_consumer_records_total", outcome="applied") == count,
                what="every event to be settled",
            )
            assert await process.end() == 0
        said += process.output()
        for command in (["lag", "hl7v2", "--json"], ["parked", "list", "hl7v2", "--json"]):
            code, out, err = await drx_consumer(environment, *command)
            assert code == 0, err
            said += out + err

    assert out == ""
    assert receiver.taken
    patient = LIVES.events(0)[0].value["patient"]
    assert isinstance(patient, dict)
    assert any(patient["last_name"].encode() in message for message in receiver.taken)
    for secret in (patient["last_name"], patient["first_name"], LIVES.prescription_id(0)):
        assert secret not in said
