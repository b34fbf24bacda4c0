"""What `drx-bridge dev` took while its brokers were dead outlives every kill, and arrives in order."""

from __future__ import annotations

import asyncio
import json
import signal
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from bridge.ingress.proof import HmacKey
from bridge.ingress.schemes.standard_webhooks import StandardWebhooks, sign
from bridge.ingress.secrets import load
from bridge.kafka.connection import Connection
from bridge.kafka.reader import ReadError, open_reader
from tests.builders import a_body
from tests.integration.dev_process import DevProcess, gone
from tests.integration.ingress_process import header
from tests.integration.service_process import until

pytestmark = pytest.mark.kafka

TOPIC = "drx.prescriptions.v1"
TIMEOUT_S = 60.0
ACCEPTED, DUPLICATE, SPOOLED = (200, "accepted"), (200, "duplicate"), (202, "spooled")


def deliver(endpoints: Mapping[str, Any], webhook_id: str) -> tuple[int, str]:
    """Make one signed delivery about one prescription; status and outcome."""
    source = endpoints["sources"]["drx"]
    (slot,) = load(Path(source["secret_file"]).parent, StandardWebhooks())
    assert isinstance(slot.key, HmacKey)
    body, at = a_body(id=webhook_id), int(time.time())
    headers = {
        "content-type": "application/json",
        "webhook-id": webhook_id,
        "webhook-timestamp": str(at),
        "webhook-signature": sign(webhook_id, at, body, key=slot.key.secret),
    }
    request = urllib.request.Request(f"{endpoints['ingress']}{source['path']}", body, headers)  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - as above
        return answer.status, json.loads(answer.read())["outcome"]


def all_of(endpoints: Mapping[str, Any], *webhook_ids: str) -> list[tuple[int, str]]:
    return [deliver(endpoints, each) for each in webhook_ids]


def ids_in_kafka(endpoints: Mapping[str, Any]) -> list[str]:
    """Read the topic from its beginning; all of it is of one prescription, so of one partition."""

    async def read() -> list[str]:
        connection = Connection(endpoints["bootstrap_servers"])
        async with open_reader(connection, [TOPIC], from_beginning=True) as reader:
            return [header(record, "ce_id") async for record in reader.until_end()]

    return asyncio.run(read())


def first_occurrences(endpoints: Mapping[str, Any]) -> list[str]:
    try:
        return list(dict.fromkeys(ids_in_kafka(endpoints)))
    except ReadError:  # a broker that has just come to itself has no topics for a moment
        return []


def is_live(endpoints: Mapping[str, Any]) -> bool:
    try:
        with urllib.request.urlopen(f"{endpoints['management']}/readyz", timeout=TIMEOUT_S):  # noqa: S310 - loopback
            return True
    except OSError:
        return False


def test_spooled_events_outlive_the_ingress_and_the_whole_stack(tmp_path: Path) -> None:
    with DevProcess(tmp_path, "--no-restart", "--no-consumers") as first:
        endpoints = first.ready()
        assert deliver(endpoints, "evt_0") == ACCEPTED, "the first delivery"
        psutil.Process(endpoints["pids"]["broker-1"]).kill()

        assert all_of(endpoints, "evt_1", "evt_2", "evt_3", "evt_1") == [SPOOLED] * 4

        psutil.Process(endpoints["pids"]["ingress"]).kill()
        first.end(signal.SIGKILL)
        until(lambda: all(map(gone, endpoints["pids"].values())), what="the children's end")

    with DevProcess(tmp_path, "--no-consumers") as second:
        until(lambda: not second.endpoints_file.exists(), what="the stale file's end")
        endpoints = second.ready()
        assert deliver(endpoints, "evt_4") == ACCEPTED, "the first delivery after the endpoints are there"
        assert all_of(endpoints, "evt_0", "evt_2") == [DUPLICATE] * 2
        assert ids_in_kafka(endpoints) == ["evt_0", "evt_1", "evt_2", "evt_3", "evt_4"]


def test_a_killed_ingress_is_back_with_what_it_took_while_the_broker_hangs(tmp_path: Path) -> None:
    with DevProcess(tmp_path, "--no-consumers") as dev:
        endpoints = dev.ready()
        broker = psutil.Process(endpoints["pids"]["broker-1"])
        broker.suspend()
        assert all_of(endpoints, "evt_1", "evt_2") == [SPOOLED] * 2

        psutil.Process(endpoints["pids"]["ingress"]).kill()
        dev.new_pid("ingress", instead_of=endpoints["pids"]["ingress"])
        until(lambda: is_live(endpoints), what="the ingress to be ready without Kafka")

        assert all_of(endpoints, "evt_1", "evt_3") == [SPOOLED] * 2
        broker.resume()
        # What the killed one had written to the sockets of the broker may come up beside what was spooled of it.
        wanted = ["evt_1", "evt_2", "evt_3"]
        until(lambda: first_occurrences(endpoints) == wanted, what="what was spooled, in order")
