from typing import Any

import confluent_kafka
import pytest
from aiokafka.partitioner import DefaultPartitioner  # noqa: TID251 - a reference the hash is held to
from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.events import EVENT_MODELS, OTHER_REPORTED
from bridge.errors import ConfigError
from bridge.kafka.key_input import whole_key
from bridge.kafka.routing import ACCOUNTS_TOPIC, PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC, RoutingTable, partition
from consumers.testing import an_event


@given(st.binary(max_size=130), st.integers(1, 64))
def test_partition_agrees_with_other_clients(key: bytes, partitions: int) -> None:
    assert partition(key, partitions) == DefaultPartitioner()(key, list(range(partitions)), [])
    assert partition(key, partitions) == confluent_kafka.murmur2(key, partitions)


def test_events_of_accounts_and_prescribers_have_a_topic_of_their_own() -> None:
    of_accounts = {each for each in EVENT_MODELS if RoutingTable().topic_of_type(each) == ACCOUNTS_TOPIC}

    assert of_accounts == {"prescriber.enrollment_changed", "system.ping"}
    assert {RoutingTable().topic_of_type(each) for each in EVENT_MODELS.keys() - of_accounts} == {PRESCRIPTIONS_TOPIC}


@pytest.mark.parametrize(
    ("event_type", "said", "topic"),
    [
        (OTHER_REPORTED, {"prescription_id": None}, ACCOUNTS_TOPIC),
        (OTHER_REPORTED, {}, PRESCRIPTIONS_TOPIC),
        ("renewal.requested", {"prescription_id": None}, PRESCRIPTIONS_TOPIC),
    ],
)
def test_a_report_without_a_prescription_alone_is_of_its_account(
    event_type: str, said: dict[str, Any], topic: str
) -> None:
    assert RoutingTable().topic_of_event(an_event(event_type, **said)) == topic
    assert (ACCOUNTS_TOPIC in RoutingTable().topics_of_type(event_type)) == (event_type == OTHER_REPORTED)


@pytest.mark.parametrize("patterns", [("epcs.signed", "epcs.*"), ("epcs.*", "epcs.signed")])
def test_the_longest_of_an_operators_patterns_wins_in_whatever_order_they_come(patterns: tuple[str, str]) -> None:
    topics = {"epcs.signed": "site.signed", "epcs.*": "site.epcs"}
    table = RoutingTable({pattern: topics[pattern] for pattern in patterns})

    assert table.topic_of_type("epcs.signed") == "site.signed"
    assert table.topic_of_type("epcs.signing_failed") == "site.epcs"
    assert table.topic_of_type("prescription.sent") == "drx.prescriptions.v1"


def test_a_topic_that_no_event_reaches_is_not_written() -> None:
    assert RoutingTable({"*": "site.all"}).topics == ("site.all", UNRECOGNIZED_TOPIC)


@pytest.mark.parametrize("topic", ["", ".", "..", "a b", "x" * 250, "drx.unrecognized.v1"])
def test_a_route_to_something_that_is_no_event_topic_is_refused(topic: str) -> None:
    with pytest.raises(ConfigError, match="epcs"):
        RoutingTable({"epcs.*": topic})


@pytest.mark.parametrize(
    ("wanted", "keys", "whole"),
    [
        (b"7", [b"acme:7", b"acme:7", b"acme:8"], b"acme:7"),
        (b"7", [b"acme:7", b"7"], b"7"),
        (b"1:7", [b"q:1:7"], b"q:1:7"),
        (b"7", [b"q:1:7"], b"7"),
        (b"7", [], b"7"),
        (b"", [b"acme:"], b""),
    ],
)
def test_a_number_stands_for_the_one_key_that_has_it_behind_a_prefix(
    wanted: bytes, keys: list[bytes], whole: bytes
) -> None:
    assert whole_key(wanted, keys) == whole


def test_a_number_of_several_vendors_stands_for_none() -> None:
    with pytest.raises(ConfigError, match=r"write it with one of the prefixes acme:, ds:$"):
        whole_key(b"7", [b"ds:7", b"acme:7"])
