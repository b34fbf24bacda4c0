"""`topics create` and `topics check`, on a cluster of their own: the shared one has its topics from elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import pytest
from click.testing import CliRunner, Result

from bridge.commands.topics import topics
from bridge.errors import ConfigError
from bridge.kafka.admin import open_admin
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.producer import REQUEST_TIMEOUT_MS
from bridge.kafka.routing import ACCOUNTS_TOPIC, PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC
from tests.cluster import Cluster
from tests.kafka import configure_topic

pytestmark = pytest.mark.kafka

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def own_cluster(make_cluster: Callable[[int], Cluster]) -> Iterator[Cluster]:
    cluster = make_cluster(1)
    yield cluster
    cluster.stop()


@pytest.fixture
def run(own_cluster: Cluster) -> Run:
    def run(*arguments: str, **settings: str) -> Result:
        environment = {"BRIDGE_KAFKA__BOOTSTRAP_SERVERS": own_cluster.bootstrap_servers} | settings
        return CliRunner().invoke(topics, [*arguments, "--json"], env=environment, standalone_mode=False)

    return run


def lines(result: Result) -> dict[str, dict[str, object]]:
    return {line.pop("topic"): line for line in map(json.loads, result.stdout.splitlines())}


def test_topics_are_made_as_the_contract_says_and_stay_checked(run: Run, own_cluster: Cluster) -> None:
    """One story, since each step stands on the one before."""
    missing = run("check")
    assert missing.return_value == 1
    assert [line["deviations"][0]["what"] for line in lines(missing).values()] == ["missing"] * 3  # type: ignore[index]

    unknown = run("create", "--config", "segment.size=7")
    assert str(unknown.exception).endswith("a --config that Kafka does not know, or its value")
    created = run("create", "--config", "segment.bytes=16777216")
    assert created.return_value == 0
    assert lines(created) == {
        PRESCRIPTIONS_TOPIC: {"outcome": "created"},
        ACCOUNTS_TOPIC: {"outcome": "created"},
        UNRECOGNIZED_TOPIC: {"outcome": "created"},
    }

    assert run("check").return_value == 0
    other_size = run("check", "--config", "segment.bytes=1", "--config", "flush.ms=9223372036854775807")
    assert other_size.return_value == 1
    assert lines(other_size)[ACCOUNTS_TOPIC]["deviations"] == [
        {"what": "segment.bytes", "expected": "1", "found": "16777216"}
    ]
    checked = run("check", "--config", "segment.bytes=16777216")
    assert checked.return_value == 0
    assert all(line["ok"] for line in lines(checked).values())

    assert {line["outcome"] for line in lines(run("create")).values()} == {"exists"}

    configure_topic(own_cluster.bootstrap_servers, ACCOUNTS_TOPIC, "compression.type", "zstd")
    compressed = run("check")
    assert compressed.return_value == 1
    assert lines(compressed)[ACCOUNTS_TOPIC]["deviations"] == [
        {"what": "compression.type", "expected": "producer", "found": "zstd"}
    ]
    configure_topic(own_cluster.bootstrap_servers, ACCOUNTS_TOPIC, "compression.type", "producer")

    other_count = run("check", BRIDGE_KAFKA__PARTITIONS="24")
    assert other_count.return_value == 1
    assert lines(other_count)[ACCOUNTS_TOPIC]["deviations"] == [{"what": "partitions", "expected": "24", "found": "12"}]

    more_replicas = run("check", "--replication-factor", "3")
    assert more_replicas.return_value == 1
    assert lines(more_replicas)[ACCOUNTS_TOPIC]["deviations"] == [
        {"what": "replication_factor", "expected": "at least 3", "found": "1"},
        {"what": "min.insync.replicas", "expected": "2", "found": "1"},
    ]


def test_topics_that_would_take_no_record_are_not_made(run: Run) -> None:
    """Kafka makes them, and then refuses each write."""
    routes = '{"epcs.*": "site.unwritable"}'

    result = run("create", "--min-insync-replicas", "2", BRIDGE_KAFKA__ROUTES=routes)
    missing = run("check", BRIDGE_KAFKA__ROUTES=routes)

    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == "--min-insync-replicas: 2 of 1 can never be in sync"
    assert lines(missing)["site.unwritable"]["deviations"][0]["what"] == "missing"  # type: ignore[index]


async def test_a_cluster_that_takes_its_time_is_waited_for(own_cluster: Cluster) -> None:
    """Making topics on a loaded machine was seen to take longer than a write may."""
    async with open_admin(KafkaConnection(own_cluster.bootstrap_servers)) as admin:
        own_cluster.pause_broker(1)
        asyncio.get_running_loop().call_later(REQUEST_TIMEOUT_MS / 1000 + 1, own_cluster.resume_broker, 1)

        assert await admin.default_replication_factor() == 1
