"""`drx-bridge spool drain`: an orphan's events reach their topics, on a real broker, in order and once."""

import asyncio
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.dev.ports import free_port
from bridge.kafka.partition_writer import pack
from bridge.kafka.record import Record, event_record
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, partition
from bridge.spool.segment import PREFIX, Entry
from tests import forked
from tests.audit_lines import audit_lines
from tests.builders import a_delivery, an_event
from tests.cluster import Topics
from tests.kafka import HANG_S, limit_messages, read_all
from tests.spooling import an_entry, files, open_spool, segments, write_key
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
    """Leave them behind on disk, as a process that is gone did."""
    async with open_spool(directory) as kept:
        await kept.spool.append(
            [
                Entry(number, record.timestamp_ms, (record.topic, record.partition), pack(record))
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


async def written(bootstrap_servers: str, them: list[Record]) -> list[tuple[bytes, bytes]]:
    """Keys and ids of these prescriptions' records, in the order of the log."""
    keys = {record.key for record in them}
    found = await read_all(bootstrap_servers, PRESCRIPTIONS_TOPIC)
    return [(record.key, dict(record.headers)["ce_id"] or b"") for record in found if record.key in keys]


def by_key(pairs: list[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    return {key: [event_id for each, event_id in pairs if each == key] for key, _ in pairs}


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
    found = await written(topics.bootstrap_servers, them)
    assert by_key(found) == by_key([(record.key, dict(record.headers)["ce_id"]) for record in them])
    assert segments(tmp_path) == []


async def test_what_had_arrived_before_is_not_written_again(topics: Topics, tmp_path: Path) -> None:
    """The process may have died between an acknowledgement and noting it."""
    topics.standard()
    them = records(topics, 40)
    fill(topics.bootstrap_servers, them[:25])
    await spooled(tmp_path, them)

    code, document, _ = drain(topics.bootstrap_servers, tmp_path)

    assert (code, document["drained"]) == (0, 40)
    assert len(await written(topics.bootstrap_servers, them)) == 40


async def test_a_topic_that_no_route_leads_to_any_more_gets_what_was_accepted_for_it_once(
    topics: Topics, tmp_path: Path
) -> None:
    topics.standard()
    them = records(topics, 40, topic=topics.fresh(partitions=PARTITIONS))
    fill(topics.bootstrap_servers, them[:25])
    await spooled(tmp_path, them)

    code, document, _ = drain(topics.bootstrap_servers, tmp_path)

    assert (code, document["drained"]) == (0, 40)
    found = await read_all(topics.bootstrap_servers, them[0].topic)
    assert sorted((dict(each.headers)["ce_id"] or b"").decode() for each in found) == sorted(
        dict(each.headers)["ce_id"].decode() for each in them
    )


async def test_a_spool_that_a_process_has_is_left_to_it(topics: Topics, tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(1)
        code, document, complaint = drain(topics.bootstrap_servers, tmp_path)

    assert (code, document) == (2, {})
    assert "a process has this spool open" in complaint
    assert complaint.count("\n") == 1


async def test_what_is_locked_stays_and_fails_it(topics: Topics, tmp_path: Path) -> None:
    topics.standard()
    them = records(topics, 10)
    write_key(tmp_path / "keys", secret=b"a" * 32)
    await spooled(tmp_path, them[:5])
    (tmp_path / "keys" / "current").rename(tmp_path / "vault")
    write_key(tmp_path / "keys", secret=b"b" * 32)
    await spooled(tmp_path, them[5:])

    code, document, _ = drain(topics.bootstrap_servers, tmp_path)
    assert (code, document["drained"], document["locked"]) == (1, 5, 5)

    (tmp_path / "vault").rename(tmp_path / "keys" / "old")
    code, document, _ = drain(topics.bootstrap_servers, tmp_path)
    assert (code, document["drained"], document["locked"]) == (0, 5, 0)
    assert len(await written(topics.bootstrap_servers, them)) == 10


async def test_what_another_version_wrote_stays_and_fails_it(topics: Topics, tmp_path: Path) -> None:
    topics.standard()
    them = records(topics, 5)
    await spooled(tmp_path, them)
    async with open_spool(tmp_path) as kept:
        await kept.spool.append([an_entry(99, payload=b"\xff" + pack(them[0]))])
    foreign = tmp_path / f"{5:016x}.segment"
    foreign.write_bytes(PREFIX + b"\xff" + b"of a later version" * 100)
    before = foreign.read_bytes()

    code, document, _ = drain(topics.bootstrap_servers, tmp_path)

    assert (code, document["drained"], document["locked"], document["damaged"]) == (1, 5, 2, 0)
    assert len(await written(topics.bootstrap_servers, them)) == 5
    assert len(segments(tmp_path)) == 2
    assert foreign.read_bytes() == before


async def test_without_kafka_it_ends_and_keeps_everything(topics: Topics, tmp_path: Path) -> None:
    them = records(topics, 10)
    await spooled(tmp_path, them)

    code, document, _ = drain(f"127.0.0.1:{free_port()}", tmp_path, "--patience", "2")

    assert (code, document["drained"], document["left"]) == (1, 0, 10)
    async with open_spool(tmp_path) as kept:
        assert len(kept.found) == 10


async def test_the_file_of_a_mapped_source_need_not_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What drains a spool in another pod maps nothing."""
    monkeypatch.setitem(SOURCE, "BRIDGE_SOURCES__drx__PROFILE", "mapped")
    monkeypatch.setitem(SOURCE, "BRIDGE_SOURCES__drx__OPTIONS__MAPPING", "/nowhere/mapping.toml")

    await spooled(tmp_path, records(cast("Topics", SimpleNamespace(unique_key=lambda: "rx_1")), 3))

    code, document, said = drain(f"127.0.0.1:{free_port()}", tmp_path, "--patience", "1")

    assert (code, document.get("left")) == (1, 3), said


async def test_a_record_that_is_refused_for_good_is_set_aside_by_the_drain_and_put_back_later(
    topics: Topics, tmp_path: Path
) -> None:
    topic = topics.fresh(partitions=1)
    topics.standard()
    them = [record._replace(partition=0) for record in records(topics, 5, topic=topic)]
    them[1] = them[1]._replace(value=b"x" * 20_000)
    limit_messages(topics.bootstrap_servers, topic, 10_000)
    await spooled(tmp_path, them)

    code, document, said = drain(topics.bootstrap_servers, tmp_path, "--patience", "6")

    assert (code, document["drained"], document["left"], document["blocked"]) == (1, 4, 0, 0), said
    assert document["set_aside"] == 1
    ids = [dict(record.headers)["ce_id"] for record in them]
    assert await ids_in(topics.bootstrap_servers, topic) == [ids[0], *ids[2:]]
    code, (kept,), _ = run(topics.bootstrap_servers, "aside", "--dir", str(tmp_path))
    assert (code, kept["code"], kept["topic"], kept["partition"]) == (0, "record_too_large", topic, 0)

    words = ("aside", "--dir", str(tmp_path), "--put-back", "--reason", "the topic takes it now")
    code, document, said = run(topics.bootstrap_servers, *words)
    assert (code, document["left"]) == (1, {kept["name"]: "record_too_large"}), said
    assert audit_lines(said)[-1]["outcome"] == "failed"

    limit_messages(topics.bootstrap_servers, topic, 1_000_000)
    async with open_spool(tmp_path):  # as a process would
        code, document, said = await asyncio.to_thread(run, topics.bootstrap_servers, *words)
    assert (code, document) == (0, {"ok": True, "delivered": 1, "left": {}}), said
    assert await ids_in(topics.bootstrap_servers, topic) == [ids[0], *ids[2:], ids[1]]
    assert files(tmp_path, "set-aside/*") == []


async def ids_in(bootstrap_servers: str, topic: str) -> list[bytes]:
    found = await read_all(bootstrap_servers, topic)
    return [dict(record.headers)["ce_id"] or b"" for record in found]
