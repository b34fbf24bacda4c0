import asyncio
import json
import os
import sys
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from bridge.dev.ports import free_port
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.record import Record, event_record
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, partition
from bridge.spool.payload import pack
from bridge.spool.segment import Entry
from tests import forked
from tests.audit_lines import audit_lines
from tests.builders import a_delivery, an_event
from tests.cluster import Topics
from tests.kafka import HANG_S, limit_messages, read_all
from tests.spooling import files, open_spool, segments
from tests.topic_filler import fill

pytestmark = pytest.mark.kafka

PARTITIONS = 12
SOURCE = {
    "BRIDGE_SOURCES__drx__PROFILE": "drx_standard",
    "BRIDGE_SOURCES__drx__ENVIRONMENT": "sandbox",
    "BRIDGE_SOURCES__drx__SECRETS_DIR": "/nowhere",
}


def records(topics: Topics, count: int, *, topic: str = PRESCRIPTIONS_TOPIC) -> list[Record]:
    keys = [topics.unique_key() for _ in range(5)]
    found = []
    for number in range(count):
        key = keys[number % len(keys)]
        event = an_event(id=f"{key}/{number:04}", key=key)
        found.append(
            event_record(
                event,
                a_delivery(id=event.id),
                topic=topic,
                partition=partition(key.encode(), PARTITIONS),
                value=b"value",
                schema="drx.v1.PrescriptionProcessed",
                ordinal=b"orphan:%d" % number,
            )
        )
    return found


async def spooled(directory: Path, them: list[Record]) -> None:
    async with open_spool(directory) as kept:
        await kept.spool.append(
            [
                Entry(number, record.timestamp_ms, (record.topic, record.partition), pack(*record[2:]))
                for number, record in enumerate(them)
            ]
        )


def drain(bootstrap_servers: str, directory: Path, *arguments: str) -> tuple[int, Any, str]:
    return run(bootstrap_servers, "drain", "--dir", str(directory), *arguments)


def run(bootstrap_servers: str, *arguments: str) -> tuple[int, Any, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    command = [sys.executable, "-m", "bridge", "spool", *arguments, "--json"]
    env = {**environment, **SOURCE, "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers}
    code, out, complaint = forked.run(command, env, timeout_s=2 * HANG_S)
    return code, json.loads(out or "{}"), complaint


def by_key(found: Sequence[Record | ConsumedRecord]) -> list[tuple[bytes | None, bytes]]:
    return sorted(((each.key, dict(each.headers)["ce_id"] or b"") for each in found), key=itemgetter(0))


async def test_everything_is_delivered_in_order_and_the_disk_is_empty(topics: Topics, tmp_path: Path) -> None:
    topics.standard()
    them = records(topics, 300)
    await spooled(tmp_path, them)

    code, document, complaint = drain(topics.bootstrap_servers, tmp_path, "--reason", "node 7 is gone")

    assert code == 0
    begun, done = audit_lines(complaint)
    assert (begun["verb"], begun["reason"], begun["directory"]) == ("spool.drain", "node 7 is gone", str(tmp_path))
    assert (done["outcome"], done["drained"], done["left"]) == ("done", 300, 0)
    nothing = dict.fromkeys(("left", "locked", "damaged", "unread", "blocked", "set_aside"), 0)
    assert document == {"ok": True, "drained": 300, **nothing}
    found = await read_all(topics.bootstrap_servers, PRESCRIPTIONS_TOPIC)
    assert by_key([each for each in found if each.key in {record.key for record in them}]) == by_key(them)
    assert segments(tmp_path) == []


async def test_a_topic_that_no_route_leads_to_any_more_gets_what_was_accepted_for_it_once(
    topics: Topics, tmp_path: Path
) -> None:
    """Some has arrived before: the process may have died between an acknowledgement and noting it."""
    topics.standard()
    them = records(topics, 40, topic=topics.fresh(partitions=PARTITIONS))
    fill(topics.bootstrap_servers, them[:25])
    await spooled(tmp_path, them)

    code, document, _ = drain(topics.bootstrap_servers, tmp_path)

    assert (code, document["drained"]) == (0, 40)
    assert by_key(await read_all(topics.bootstrap_servers, them[0].topic)) == by_key(them)


async def test_a_spool_that_a_process_has_is_left_to_it(topics: Topics, tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1)
        code, document, complaint = drain(topics.bootstrap_servers, tmp_path)

    assert (code, document) == (2, {})
    assert "a process has this spool open" in complaint
    assert complaint.count("\n") == 1


async def test_without_kafka_it_ends_and_keeps_everything(
    topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of a mapped source need not be there: what drains a spool in another pod maps nothing."""
    monkeypatch.setitem(SOURCE, "BRIDGE_SOURCES__drx__PROFILE", "mapped")
    monkeypatch.setitem(SOURCE, "BRIDGE_SOURCES__drx__OPTIONS__MAPPING", "/nowhere/mapping.toml")

    await spooled(tmp_path, records(topics, 3))

    code, document, said = drain(f"127.0.0.1:{free_port()}", tmp_path, "--patience", "1")

    assert (code, document.get("drained"), document.get("left")) == (1, 0, 3), said
    async with open_spool(tmp_path) as kept:
        assert len(kept.found) == 3


async def test_a_record_that_is_refused_for_good_is_set_aside_by_the_drain_and_put_back_later(
    topics: Topics, tmp_path: Path
) -> None:
    topic = topics.fresh(partitions=1)
    topics.standard()
    them = [record._replace(partition=0) for record in records(topics, 5, topic=topic)]
    them[1] = them[1]._replace(value=b"x" * 20_000)
    limit_messages(topics.bootstrap_servers, topic, 10_000)
    await spooled(tmp_path, them)

    code, document, said = drain(topics.bootstrap_servers, tmp_path, "--patience", "7")

    assert (code, document["drained"], document["left"], document["blocked"]) == (1, 4, 0, 0), said
    assert document["set_aside"] == 1
    refused = int(said.partition(" bytes=")[2].split()[0])
    ids = [dict(record.headers)["ce_id"] for record in them]
    assert await ids_in(topics.bootstrap_servers, topic) == [ids[0], *ids[2:]]
    code, (kept,), _ = run(topics.bootstrap_servers, "aside", "--dir", str(tmp_path))
    assert (code, kept["code"], kept["topic"], kept["partition"]) == (0, "record_too_large", topic, 0)

    words = ("aside", "--dir", str(tmp_path), "--put-back", "--reason", "the topic takes it now")
    limit_messages(topics.bootstrap_servers, topic, refused - 1)
    code, document, said = run(topics.bootstrap_servers, *words)
    assert (code, document["left"]) == (1, {kept["name"]: "record_too_large"}), said
    assert audit_lines(said)[-1]["outcome"] == "failed"

    limit_messages(topics.bootstrap_servers, topic, refused)
    async with open_spool(tmp_path):  # as a process would
        code, document, said = await asyncio.to_thread(run, topics.bootstrap_servers, *words)
    assert (code, document) == (0, {"ok": True, "delivered": 1, "left": {}}), said
    assert await ids_in(topics.bootstrap_servers, topic) == [ids[0], *ids[2:], ids[1]]
    assert files(tmp_path, "set-aside/*") == []


async def ids_in(bootstrap_servers: str, topic: str) -> list[bytes]:
    found = await read_all(bootstrap_servers, topic)
    return [dict(record.headers)["ce_id"] or b"" for record in found]
