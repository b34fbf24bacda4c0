import pytest

from bridge.commands.doctor import check_kafka
from bridge.dev.ports import free_port
from bridge.kafka.routing import RoutingTable
from bridge.settings import KafkaSettings
from tests.cluster import Cluster, Topics
from tests.kafka import configure_topic

pytestmark = pytest.mark.kafka


async def test_topics_and_addresses_that_are_not_as_they_should_be_are_found(cluster: Cluster, topics: Topics) -> None:
    compressed, absent = topics.fresh(), "drx.absent.v1"
    configure_topic(cluster.bootstrap_servers, compressed, "compression.type", "lz4")
    servers = f"127.0.0.1:{free_port()},{cluster.bootstrap_servers}"
    kafka = KafkaSettings(bootstrap_servers=servers, routes={"epcs.*": compressed, "renewal.*": absent})

    found = await check_kafka(kafka, routes=RoutingTable(kafka.routes))

    said = (f"{compressed}: compression.type is lz4, expected producer", absent, "1 of 2")
    verdicts = [each.verdict for words in said for each in found if words in each.text + each.advice]
    assert verdicts == ["warning", "failed", "warning"]
