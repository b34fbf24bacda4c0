"""`drx-consumer run forward` from a real broker to a receiver with the official package; killed on the way."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.contract.native import native_json
from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer
from tests.integration.forward.node_receiver import NodeReceiver
from tests.integration.service_process import until
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

SECRET = "whsec_" + base64.b64encode(b"PHI-free and 32 bytes long, yes.").decode()
TOKEN = "hunter2-of-the-endpoint"
LIVES = Lives(60)

Settings = Callable[[NodeReceiver], dict[str, Any]]


@pytest.fixture
def topic(topics: Topics) -> str:
    return topics.fresh(partitions=4)


@pytest.fixture
def settings(cluster: Cluster, topic: str, topics: Topics, postgres: str, tmp_path: Path) -> Settings:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "current").write_text(SECRET)
    headers = tmp_path / "headers"
    headers.write_text(f"x-token: {TOKEN}\n")

    def made(receiver: NodeReceiver) -> dict[str, Any]:
        return {
            "bootstrap_servers": cluster.bootstrap_servers,
            "dsn": postgres,
            "FORWARD__URL": receiver.url,
            "FORWARD__ALLOW_HTTP": "true",
            "FORWARD__SECRETS_DIR": str(secrets),
            "FORWARD__HEADERS_FILE": str(headers),
            "FORWARD__TOPICS": topic,
            "FORWARD__INSTANCE": topics.unique_key("desk").replace("_", "-"),
            "FORWARD__TIMEOUT_S": "5",
        }

    return made


def assert_whole(receiver: NodeReceiver) -> None:
    """Every event was taken, with the body that it is mapped from, in its order; repeats have the same bytes."""
    taken: dict[str, list[str]] = defaultdict(list)
    bodies: dict[str, set[str]] = defaultdict(set)
    for each in receiver.taken:
        taken_id = each["headers"]["webhook-id"]
        bodies[taken_id].add(each["body"])
        taken[taken_id].append(each["headers"]["drx-ordinal"])
    firsts = list(dict.fromkeys(each["headers"]["webhook-id"] for each in receiver.taken))
    for number in range(LIVES.prescriptions):
        events = LIVES.events(number)
        assert [each for each in firsts if each in {event.id for event in events}] == [event.id for event in events]
        for event in events:
            assert bodies[event.id] == {native_json(event.value).decode()}
            assert len(set(taken[event.id])) == 1


async def test_all_events_of_a_topic_reach_the_receiver_and_nothing_is_said_of_them(
    cluster: Cluster, topic: str, settings: Settings, tmp_path: Path
) -> None:
    count = fill(cluster.bootstrap_servers, LIVES.records(topic, partitions=4))
    with NodeReceiver(SECRET, refused=30) as receiver:
        given = settings(receiver)
        with ConsumerProcess(tmp_path, "forward", **given) as forward:
            forward.ready()
            until(lambda: len(receiver.taken) >= count, what="every event to arrive")
            until(
                lambda: forward.metric("drxbridge_consumer_records_total", outcome="applied") == count,
                what="every event to be settled",
            )
            assert await forward.end() == 0
        code, out, err = await drx_consumer(
            consumer_environment(**given),
            *("lag", "forward", "--json"),
        )
        assert code == 0, err
        assert out

        code, checks, err = await drx_consumer(consumer_environment(**given), "doctor", "forward", "--json")
        assert code == 0, checks + err
        assert [(each["check"], each["verdict"]) for each in json.loads(checks)["checks"]] == [
            ("config", "ok"),
            ("log", "warning"),
            ("phi", "ok"),
            ("phi", "ok"),
            ("postgres", "ok"),
            ("kafka", "ok"),
            ("sink", "ok"),
        ]
        assert f"sent to {receiver.url.partition('/desk')[0]}" in checks
        assert "tenant" not in checks

    assert_whole(receiver)
    assert len(receiver.taken) == count
    assert {each["error"] for each in receiver.requests} == {""}
    assert {each["headers"]["x-token"] for each in receiver.requests} == {TOKEN}
    said = forward.output() + out + checks + err
    patient = LIVES.events(0)[0].value["patient"]
    assert isinstance(patient, dict)
    for secret in (SECRET.removeprefix("whsec_"), TOKEN, patient["last_name"], LIVES.prescription_id(0)):
        assert secret not in said
