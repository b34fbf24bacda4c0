import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import Producer

from tests.audit_lines import acts, audit_lines
from tests.builders import an_event, codec
from tests.cluster import Cluster, Topics

pytestmark = pytest.mark.kafka

RECORD = "drx.v1.PrescriptionProcessed"
HEADERS: dict[str, str | bytes | None] = {"ce_type": b"prescription.processed", "ce_id": b"evt_1"}
PAYLOAD = codec().encode(RECORD, an_event().value)
# Starting Python and joining a topic take a second; a busy machine may need many of them.
TIMEOUT_S = 60.0


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "bridge", "tail", *arguments]


def environment() -> dict[str, str]:
    """Ours, without settings; a narrow terminal must not cut lines."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")} | {"COLUMNS": "40"}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command line
        command(*arguments), capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment()
    )


def lines(result: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def write(cluster: Cluster, topic: str, records: Sequence[tuple[str, bytes | None]]) -> None:
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    for key, value in records:
        producer.produce(topic, value=value, key=key, headers=HEADERS, partition=0, timestamp=1_789_398_566_535)
    assert producer.flush(TIMEOUT_S) == 0


@pytest.fixture
def topic(cluster: Cluster, topics: Topics) -> str:
    """Create a topic with an event, a tombstone, and three kinds of foreign records, of two keys."""
    name = topics.fresh()
    write(
        cluster,
        name,
        [
            ("rx_1", PAYLOAD),
            ("rx_2", None),
            ("rx_1", b"no avro"),
            ("rx_1", struct.pack(">bI", 0, 4_000_000)),
            ("rx_1", PAYLOAD + b"\0"),
            ("rx_2", PAYLOAD),
        ],
    )
    return name


def test_a_record_is_one_json_line_with_health_information_masked(cluster: Cluster, topic: str) -> None:
    shown = lines(
        run(topic, "--bootstrap-servers", cluster.bootstrap_servers, "--from-beginning", "--count", "1", "--json")
    )

    (line,) = shown
    value = line.pop("value")
    assert line == {
        "topic": topic,
        "partition": 0,
        "offset": 0,
        "timestamp": "2026-09-14T15:09:26.535000Z",
        "key": "rx_1",
        "record": RECORD,
        "headers": {"ce_type": "prescription.processed", "ce_id": "evt_1"},
    }
    assert (value["event_id"], value["occurred_at"]) == ("evt_1", "2026-09-14T15:09:26.535000Z")
    assert (value["prescription_id"], value["extensions"]) == ("***", {})


def test_what_is_not_ours_is_said_and_the_next_record_is_shown(cluster: Cluster, topic: str) -> None:
    shown = lines(run(topic, "--bootstrap-servers", cluster.bootstrap_servers, "--until-end", "--json"))

    assert [line["offset"] for line in shown] == [0, 1, 2, 3, 4, 5]
    errors = [None, None, "bad_magic", "unknown_schema_id", "trailing_bytes", None]
    assert [line.get("error") for line in shown] == errors
    assert [line["value"] is None for line in shown] == [False, True, True, True, True, False]


def test_the_newest_of_a_type_and_source_since_a_time_are_shown(cluster: Cluster, topics: Topics) -> None:
    """Between partitions by time; with a filter, the newest of those that it wants."""
    name = topics.fresh(partitions=2)
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    now_ms = int(time.time() * 1000)
    for number, (partition, event_type) in enumerate([(0, "a.b"), (1, "a.c"), (0, "b.c"), (1, "a.d"), (0, "a.e")]):
        headers: dict[str, str | bytes | None] = {"ce_type": event_type, "ce_source": "drx" if number < 4 else "acme"}
        at_ms = now_ms - 7_200_000 if number == 0 else now_ms + number
        producer.produce(name, PAYLOAD, f"rx_{number}", partition=partition, headers=headers, timestamp=at_ms)
    assert producer.flush(TIMEOUT_S) == 0
    where = (name, "--bootstrap-servers", cluster.bootstrap_servers, "--json")

    newest = lines(run(*where, "--last", "3"))
    since = lines(run(*where, "--since", "1h"))
    chosen = lines(run(*where, "--last", "2", "--type", "a.*", "--source", "drx"))

    assert [line["key"] for line in newest] == ["rx_2", "rx_3", "rx_4"]
    assert [line["key"] for line in since] == ["rx_1", "rx_2", "rx_3", "rx_4"]
    assert [line["key"] for line in chosen] == ["rx_1", "rx_3"]


def test_a_vendor_s_number_needs_no_prefix_unless_two_vendors_have_it(cluster: Cluster, topics: Topics) -> None:
    name = topics.fresh()
    write(
        cluster,
        name,
        [(key, PAYLOAD) for key in ("acme:7", "ds:1:8", "acme:9", "7:acme", "ds:9", "q:5", "5", "acme:7")],
    )
    command = (name, "--bootstrap-servers", cluster.bootstrap_servers, "--until-end", "--json", "--key")

    found = {
        wanted: [line["key"] for line in lines(run(*command, wanted))] for wanted in ("7", "1:8", "5", "8", "ds:9")
    }
    newest = lines(run(*command[:-2], "--json", "--last", "1", "--key", "7"))
    ambiguous = run(*command, "9")

    assert found == {"7": ["acme:7"] * 2, "1:8": ["ds:1:8"], "5": ["5"], "8": [], "ds:9": ["ds:9"]}
    assert [line["offset"] for line in newest] == [7]
    assert (ambiguous.returncode, ambiguous.stdout) == (2, "")
    assert "several vendors have this number; write it with one of the prefixes acme:, ds:" in ambiguous.stderr


@pytest.mark.parametrize(("form", "closed"), [([], "output"), (["--json"], "pipe")], ids=["people", "json"])
def test_who_reads_no_more_ends_it_in_order(cluster: Cluster, topic: str, form: list[str], closed: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    arguments = command(topic, "--bootstrap-servers", cluster.bootstrap_servers, "--until-end", *form)
    shell = ["sh", "-c", 'exec "$@" >&-', "sh"] if closed == "output" else []

    result = subprocess.run(  # noqa: S603 - our own command line
        [*shell, *arguments], stdout=writing, stderr=subprocess.PIPE, timeout=TIMEOUT_S, check=False, env=environment()
    )

    os.close(writing)
    assert (result.returncode, result.stderr) == (0, b"")


def test_health_information_is_shown_to_who_asks_for_it(cluster: Cluster, topic: str) -> None:
    arguments = (topic, "--bootstrap-servers", cluster.bootstrap_servers, "--from-beginning", "--show-phi", "--json")

    result = run(*arguments, "--key", "rx_2", "--until-end", "--reason", "a drill")

    (line,) = lines(result)[1:]

    assert line["value"]["prescription_id"] == "rx_1"
    assert acts(result.stderr) == [("tail", "begun"), ("tail", "done")]
    assert [(each["topic"], each["reason"]) for each in audit_lines(result.stderr)] == [(topic, "a drill")] * 2


def test_it_follows_until_it_is_interrupted(cluster: Cluster, topics: Topics) -> None:
    """A record that is written later appears; SIGINT ends it without a traceback."""
    name = topics.fresh()
    follow = command(name, "--bootstrap-servers", cluster.bootstrap_servers, "--json", "--from-beginning")
    following = subprocess.Popen(  # noqa: S603 - our own command line
        follow, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    bound = threading.Timer(TIMEOUT_S, following.kill)
    bound.start()
    with following:
        assert following.stdout is not None
        write(cluster, name, [("rx_9", PAYLOAD)])
        first = json.loads(following.stdout.readline())
        write(cluster, name, [("rx_8", PAYLOAD)])
        second = json.loads(following.stdout.readline())

        following.send_signal(signal.SIGINT)
        _, complaints = following.communicate(timeout=TIMEOUT_S)
    bound.cancel()

    assert (first["key"], second["key"]) == ("rx_9", "rx_8")
    assert following.returncode == 130
    # The one line ends the echo of ^C.
    assert complaints == "\n"
