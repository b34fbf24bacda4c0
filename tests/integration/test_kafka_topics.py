"""`topics create` and `topics check`, on a separate cluster: the shared one has its topics already."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence

import pytest
from click.testing import CliRunner, Result

from bridge.commands import topics_copy
from bridge.commands.topics import topics
from bridge.dev.kafka import create_topics
from bridge.errors import ConfigError
from bridge.kafka.admin import open_admin
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.producer import REQUEST_TIMEOUT_MS
from bridge.kafka.record import Record
from bridge.kafka.routing import ACCOUNTS_TOPIC, PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC, partition
from tests import forked
from tests.cluster import Cluster
from tests.kafka import HANG_S, configure_topic, read_all
from tests.topic_filler import fill

pytestmark = pytest.mark.kafka

Run = Callable[..., Result]
Content = tuple[bytes | None, int, tuple[tuple[str, bytes], ...]]


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


def by_key(records: Sequence[ConsumedRecord]) -> dict[bytes | None, list[Content]]:
    found: dict[bytes | None, list[Content]] = {}
    for each in records:
        found.setdefault(each.key, []).append((each.value, each.timestamp_ms, tuple(each.headers)))
    return found


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

    other_settings = run("check", BRIDGE_KAFKA__PARTITIONS="24", BRIDGE_KAFKA__MESSAGE_MAX_BYTES="4194304")
    assert other_settings.return_value == 1
    assert lines(other_settings)[ACCOUNTS_TOPIC]["deviations"] == [
        {"what": "partitions", "expected": "24", "found": "12"},
        {"what": "max.message.bytes", "expected": "4194304", "found": "2097152"},
    ]

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


async def test_making_topics_may_take_longer_than_a_write(own_cluster: Cluster) -> None:
    """On a busy cluster it does."""
    async with open_admin(KafkaConnection(own_cluster.bootstrap_servers)) as admin:
        assert admin._client._request_timeout_ms > REQUEST_TIMEOUT_MS


def test_a_copy_that_was_killed_is_finished_by_another_run_and_keeps_the_order_of_each_key(
    own_cluster: Cluster,
) -> None:
    """The topic has more partitions than were expected when it was written to, as after somebody has added some."""
    servers = own_cluster.bootstrap_servers
    create_topics(servers, {"old": 5})
    keys = [b"rx_%d" % number for number in range(50)]
    fill(servers, [Record("old", partition(key, 3), key, b"%d" % n, [], n) for n in range(1, 51) for key in keys])
    command = [sys.executable, "-m", "bridge", "topics", "copy", "old", "new", "--partitions", "8", "--json"]
    env = {**os.environ, "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": servers}

    def copy(**more: str) -> tuple[int, str, str]:
        return forked.run(command, env | more, timeout_s=HANG_S)

    killed, *_ = copy(DRX_FAILPOINT="after_produce:kill@9")  # in the second of three chunks, each of eight writes
    code, finished, _ = copy()
    again = copy()
    old, new = (asyncio.run(read_all(servers, each)) for each in ("old", "new"))
    document = json.loads(finished)

    assert (killed, code, again[0]) == (-signal.SIGKILL, 0, 0)
    assert by_key(new) == by_key(old)
    assert all(each.partition == partition(each.key or b"", 8) for each in new)
    assert 0 < document["copied"] < document["records"] == len(old)
    assert json.loads(again[1]) == {"topic": "new", "ok": True, "records": document["records"], "copied": 0}

    fill(servers, [Record("new", 7, b"rx_1", b"strange", [], 0)])
    assert json.loads(copy()[1]) == {"topic": "new", "ok": False, "code": "not_a_copy"}


def test_a_topic_that_takes_nothing_ends_the_copy_with_a_word(
    run: Run, own_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topics_copy, "_CONNECT_S", 0.0)
    create_topics(own_cluster.bootstrap_servers, {"given": 1, "taken": 2})

    refused = run("copy", "given", "taken", "--partitions", "2")

    assert (refused.return_value, lines(refused)) == (1, {"taken": {"ok": False, "code": "not_durable"}})
