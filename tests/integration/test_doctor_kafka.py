"""The doctor on a real broker."""

import pytest

from bridge.commands.doctor import check_kafka
from bridge.dev.ports import free_port
from bridge.kafka.routing import RoutingTable
from bridge.settings import KafkaSettings
from tests.cluster import Cluster, Topics
from tests.kafka import configure_topic

pytestmark = pytest.mark.kafka


async def findings(kafka: KafkaSettings) -> list[tuple[str, str, str]]:
    found = [each async for each in check_kafka(kafka, routes=RoutingTable(kafka.routes))]
    return [(each.check, each.verdict, each.text + each.advice) for each in found]


async def test_a_topic_that_the_broker_compresses_is_a_warning(cluster: Cluster, topics: Topics) -> None:
    topic = topics.fresh()
    configure_topic(cluster.bootstrap_servers, topic, "compression.type", "lz4")

    found = await findings(KafkaSettings(bootstrap_servers=cluster.bootstrap_servers, routes={"epcs.*": topic}))

    (said,) = [says for _, verdict, says in found if verdict == "warning" and topic in says]
    assert f"{topic}: compression.type is lz4, expected producer" in said


async def test_a_missing_topic_is_found(cluster: Cluster) -> None:
    absent = "drx.absent.v1"

    found = await findings(KafkaSettings(bootstrap_servers=cluster.bootstrap_servers, routes={"epcs.*": absent}))

    assert [says for _, verdict, says in found if absent in says and verdict == "failed" and "topics create" in says]


async def test_a_bootstrap_server_that_is_away_is_a_warning_while_another_answers(cluster: Cluster) -> None:
    servers = f"127.0.0.1:{free_port()},{cluster.bootstrap_servers}"

    found = await findings(KafkaSettings(bootstrap_servers=servers))

    assert found[0][:2] == ("kafka", "warning")
    assert "1 of 2" in found[0][2]
