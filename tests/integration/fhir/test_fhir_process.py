"""`drx-consumer run fhir` from a real broker to a FHIR server, and its commands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from consumers.fhir.mapping import resources
from tests.cluster import Cluster, Topics
from tests.faults.recording import Server
from tests.fhir.told import NAMING, documents
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer
from tests.integration.service_process import until
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

TOKEN = "hunter2-of-the-ehr"
LIVES = Lives(30)


@pytest.fixture
def given(cluster: Cluster, topics: Topics, postgres: str, tmp_path: Path) -> dict[str, Any]:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    return {
        "bootstrap_servers": cluster.bootstrap_servers,
        "dsn": postgres,
        "FHIR__ALLOW_HTTP": "true",
        "FHIR__TOKEN_FILE": str(token),
        "FHIR__TOPICS": topics.fresh(partitions=4),
        "FHIR__INSTANCE": topics.unique_key("ehr").replace("_", "-").lower(),
    }


async def test_all_events_of_a_topic_reach_the_server_and_nothing_is_said_of_them(
    given: dict[str, Any], tmp_path: Path
) -> None:
    count = fill(given["bootstrap_servers"], LIVES.records(given["FHIR__TOPICS"], partitions=4))
    with Server() as server:
        server.fake.token = TOKEN
        given["FHIR__BASE_URL"] = server.fake.url
        environment = consumer_environment(**given)
        code, out, err = await drx_consumer(environment, "init", "fhir", "--from", "earliest")
        assert code == 0, err
        with ConsumerProcess(tmp_path, "fhir", **given) as fhir:
            fhir.ready()
            until(
                lambda: fhir.metric("drxbridge_consumer_records_total", outcome="applied") == count,
                what="every event to be settled",
            )
            assert await fhir.end() == 0
        said = out + err
        for command in (("lag", "fhir", "--json"), ("parked", "list", "fhir", "--json"), ("doctor", "fhir")):
            code, out, err = await drx_consumer(environment, *command)
            assert code == 0, err
            said += out + err
        kept = server.kept("urn:drx:")

    events = [event for number in range(LIVES.prescriptions) for event in LIVES.events(number)]
    found = [each for key, facts in documents(events).items() for each in resources(key, facts, NAMING)]
    assert {f"{each.type}/{each.id}" for each in found} <= set(kept)
    said += fhir.output()
    patient = LIVES.events(0)[0].value["patient"]
    assert isinstance(patient, dict)
    for secret in (TOKEN, patient["last_name"], LIVES.prescription_id(0), "HAPI-0000"):
        assert secret not in said
