from __future__ import annotations

import json
from pathlib import Path

import confluent_kafka
import pytest
from aiokafka.partitioner import DefaultPartitioner  # noqa: TID251 - a reference the hash is held to
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigError
from bridge.kafka.routing import RoutingTable, murmur2, partition

CATALOGUE = json.loads((Path(__file__).parents[1] / "data/catalogue.json").read_text())

# Apache Kafka, clients/src/test/java/org/apache/kafka/common/utils/UtilsTest.java, `testMurmur2`.
JAVA_VECTORS = [
    (b"21", -973932308),
    (b"foobar", -790332482),
    (b"a-little-bit-long-string", -985981536),
    (b"a-little-bit-longer-string", -1486304829),
    (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
    (b"abc", 479470107),
]


@pytest.mark.parametrize(("key", "signed"), JAVA_VECTORS)
def test_murmur2_is_that_of_the_java_client(key: bytes, signed: int) -> None:
    assert murmur2(key) == signed % 2**32


@given(st.binary(max_size=130), st.integers(1, 64))
def test_partition_agrees_with_other_clients(key: bytes, partitions: int) -> None:
    assert partition(key, partitions) == DefaultPartitioner()(key, list(range(partitions)), [])
    assert partition(key, partitions) == confluent_kafka.murmur2(key, partitions)


def test_every_event_type_of_the_catalogue_goes_to_its_topic() -> None:
    table = RoutingTable()

    assert {e["type"]: table.topic(e["type"]) for e in CATALOGUE["events"]} == {
        e["type"]: e["topic"] for e in CATALOGUE["events"]
    }


def test_an_operators_route_comes_before_the_built_in_ones_and_the_first_match_wins() -> None:
    table = RoutingTable({"epcs.signed": "site.signed", "epcs.*": "site.epcs"})

    assert table.topic("epcs.signed") == "site.signed"
    assert table.topic("epcs.signing_failed") == "site.epcs"
    assert table.topic("prescription.sent") == "drx.prescriptions.v1"


@pytest.mark.parametrize("topic", ["", ".", "..", "a b", "x" * 250, "drx.unrecognized.v1"])
def test_a_route_to_something_that_is_no_event_topic_is_refused(topic: str) -> None:
    with pytest.raises(ConfigError, match="epcs"):
        RoutingTable({"epcs.*": topic})
