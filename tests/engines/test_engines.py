"""The examples of docs/engines.md run in the engines, with the same results as PostgreSQL."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import fastavro  # noqa: TID251 - writes what no release of ours has
import pytest
from aiohttp import web
from confluent_kafka import Consumer, Producer, TopicPartition

from bridge.dev.jars import JarCache
from bridge.dev.ports import free_port
from bridge.dev.processes import spawn
from bridge.dev.programs import find_java
from bridge.registry.loader import bundled
from bridge.registry.lock import Lock
from bridge.registry.server import registry_app
from tests.engines.engines import CONNECT, FLINK, HOME, PYTHON, ROOT, SPARK, environment, jars
from tests.integration.consumer_process import ConsumerProcess
from tests.integration.dev_process import DevProcess
from tests.integration.service_process import until
from tests.postgres import execute

PROGRAM = re.compile(r"<!-- engine: ([\w.]+) -->\n```\w+\n(.*?)```", re.DOTALL)
TOPIC = "drx.prescriptions.v1"
FILL = "drx.v1.FillStatusChanged"
DELIVERIES, DUPLICATES = 2_000, 1_000
HANG_S = 900

# As the program for Flink asks, of what the read model has: each event once.
WAITING = """
    with sent as (
        select prescription_id, min(body -> 'pharmacy' ->> 'ncpdp_id') as pharmacy, min(occurred_at) as sent_at
        from read_model.timeline where event_type = 'prescription.sent' group by prescription_id
    ), filled as (
        select prescription_id, min(occurred_at) as filled_at from read_model.timeline
        where event_type = 'fill.status_changed' and body ->> 'fill_status' in ('dispensed', 'partially_dispensed')
        group by prescription_id
    )
    select pharmacy, count(*) from sent left join filled
        on filled.prescription_id = sent.prescription_id and filled_at < sent_at + interval '7 days'
    where filled.prescription_id is null group by pharmacy
"""
FILLS = """
    select body ->> 'fill_status', count(*) from read_model.timeline
    where event_type = 'fill.status_changed' group by 1
"""

RENEWALS = """
    with asked as (
        select body ->> 'request_id' as id, min(body -> 'pharmacy' ->> 'ncpdp_id') as pharmacy,
            min(occurred_at) as asked_at
        from read_model.timeline where event_type = 'renewal.requested' group by 1
    ), answered as (
        select body ->> 'request_id' as id, min(occurred_at) as answered_at
        from read_model.timeline where event_type = 'renewal.responded' group by 1
    )
    select pharmacy, count(*), count(answered_at), count(*) filter (where answered_at < asked_at + interval '1 day')
    from asked left join answered using (id) group by 1
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give a folder with the programs of the page, and a stack with all types, repeats and an aborted transaction."""
    folder = tmp_path_factory.mktemp("engines")
    lock = with_newer_fill()
    registry = serve(lock)
    with DevProcess(folder / "stack", "--no-consumers") as dev:
        endpoints = dev.ready() | {"registry": registry}
        servers, dsn = endpoints["bootstrap_servers"], endpoints["postgres"]
        secret = endpoints["sources"]["drx"]["secret_file"]
        bridge("simulate", "--url", endpoints["ingress"], "--secret-file", secret, "--count", str(DELIVERIES))
        events = [record for record in read(endpoints) if record.topic() == TOPIC]
        newer = [written_newer(record, lock) for record in events if header(record, "ce_type") == "fill.status_changed"]
        produced = [(record.value(), record.key(), record.partition(), record.headers()) for record in events]
        rewrite(endpoints, produced[:DUPLICATES] + newer, commit=True)
        rewrite(endpoints, produced[:DUPLICATES], commit=False)
        expected = len({(record.key(), header(record, "ce_id")) for record in events}) + len(newer)
        endpoints |= {"records": len(events) + DUPLICATES + len(newer), "newer": len(newer)}
        with ConsumerProcess(
            folder, "read_model", bootstrap_servers=servers, dsn=dsn, REGISTRY__URL=registry
        ) as consumer:
            consumer.ready()
            until(
                lambda: rows(endpoints, "select count(*) from read_model.timeline")[0][0] == expected,
                what=f"{expected} events in the read model",
            )
        for name, text in PROGRAM.findall((ROOT / "docs" / "engines.md").read_text(encoding="utf-8")):
            placed = (
                text.replace("BROKERS", servers).replace("URL", registry).replace("/path/to/lake", f"{folder}/lake")
            )
            (folder / name).write_text(placed, encoding="utf-8")
        yield folder, endpoints


def with_newer_fill() -> Lock:
    """Return the lock with a further version of a record, whose new field stands before others."""
    schemas = bundled().schemas()
    fields = [*schemas[FILL]["fields"]]
    fields.insert(-3, {"name": "shelf", "type": ["null", "string"], "default": None})
    return bundled().extended(schemas | {FILL: {**schemas[FILL], "fields": fields}})


def serve(lock: Lock) -> str:
    port = free_port()
    options = {"host": "127.0.0.1", "port": port, "handle_signals": False, "print": None}
    threading.Thread(target=web.run_app, args=(registry_app(lock),), kwargs=options, daemon=True).start()
    return f"http://127.0.0.1:{port}"


def written_newer(record: Any, lock: Lock) -> tuple[Any, ...]:
    """Return value, key, partition and headers of another such event, written by the newest schema of the lock."""
    older, newest = bundled().latest()[FILL], lock.latest()[FILL]
    event: Any = fastavro.schemaless_reader(BytesIO(record.value()[5:]), dict(older.schema), None)
    event |= {"event_id": str(uuid4()), "shelf": "A-12"}
    out = BytesIO(struct.pack(">bI", 0, newest.id))
    out.seek(0, os.SEEK_END)
    fastavro.schemaless_writer(out, dict(newest.schema), event)
    headers = dict(record.headers()) | {"ce_id": event["event_id"].encode()}
    return out.getvalue(), record.key(), record.partition(), [*headers.items()]


def header(record: Any, name: str) -> str:
    value: bytes = dict(record.headers())[name]
    return value.decode()


def bridge(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own command line
        [str(ROOT / ".venv" / "bin" / "drx-bridge"), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def read(endpoints: dict[str, Any]) -> list[Any]:
    consumer = Consumer({"bootstrap.servers": endpoints["bootstrap_servers"], "group.id": "engines-test"})
    places = [TopicPartition(TOPIC, number, 0) for number in range(12)]
    ends = sum(consumer.get_watermark_offsets(each)[1] for each in places)
    consumer.assign(places)
    records: list[Any] = []
    while len(records) < ends:
        records += consumer.consume(1_000, timeout=10)
    consumer.close()
    return records


def rewrite(endpoints: dict[str, Any], records: Sequence[tuple[Any, ...]], *, commit: bool) -> None:
    producer = Producer(
        {
            "bootstrap.servers": endpoints["bootstrap_servers"],
            "transactional.id": "engines-test",
            "partitioner": "murmur2",
        }
    )
    producer.init_transactions()
    producer.begin_transaction()
    for value, key, partition, headers in records:
        producer.produce(TOPIC, value, key, partition, headers=headers)
        producer.poll(0)
    producer.flush()
    producer.commit_transaction() if commit else producer.abort_transaction()


def rows(endpoints: dict[str, Any], query: str) -> list[Any]:
    return execute(endpoints["postgres"], query)[0]


def run(folder: Path, program: str, java: Path, **more: str) -> str:
    done = subprocess.run(  # noqa: S603 - the pages are ours
        [str(PYTHON), program],
        cwd=folder,
        env=environment(java) | more,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def table(printed: str) -> list[tuple[str, ...]]:
    lines = [line.split("|")[1:-1] for line in printed.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line) for line in lines[1:]]


def paths(cache: JarCache) -> list[str]:
    return cache.class_path.split(os.pathsep)


def test_flink_finds_who_waits_as_postgresql_does(stack: tuple[Path, dict[str, Any]]) -> None:
    folder, endpoints = stack
    (folder / "jars").mkdir()
    for path in paths(jars(FLINK)):
        (folder / "jars" / Path(path).name).symlink_to(path)
    addresses = "--bootstrap-servers", endpoints["bootstrap_servers"], "--registry", endpoints["registry"]
    (folder / "drx_events.sql").write_text(bridge("schemas", "flink", *addresses), encoding="utf-8")

    found = table(run(folder, "waiting.py", find_java()))
    wanted = [(pharmacy or "<NULL>", str(count)) for pharmacy, count in rows(endpoints, WAITING)]
    assert wanted
    assert sorted(found) == sorted(wanted)


def test_spark_writes_a_month_of_fills_each_once(stack: tuple[Path, dict[str, Any]]) -> None:
    folder, endpoints = stack

    found = table(run_spark(folder, "month.py"))
    assert sorted(found) == sorted((status, str(count)) for status, count in rows(endpoints, FILLS))
    assert any((folder / "fills").glob("*.parquet"))


def test_connect_writes_a_table_for_each_type_also_when_it_is_killed(stack: tuple[Path, dict[str, Any]]) -> None:
    folder, endpoints = stack
    subprocess.run([sys.executable, "control.py"], cwd=folder, check=True)
    # What `install` would fetch.
    (extensions,) = HOME.glob("lib/*/site-packages/duckdb_ext/extensions")
    (folder / ".duckdb").mkdir()
    (folder / ".duckdb" / "extensions").symlink_to(extensions)
    command = [str(old_java()), "-Xmx1g", "-cp", jars(CONNECT).class_path]
    command += ["org.apache.kafka.connect.cli.ConnectStandalone", "worker.properties", "sink.properties"]
    log = folder / "connect.log"
    for wanted in (1, endpoints["records"]):
        with log.open("a") as written:
            worker = spawn(command, cwd=folder, stdout=written, stderr=written)
        deadline = time.monotonic() + HANG_S
        while (found := stored(folder / "lake")) < wanted:
            failed = worker.poll() is not None or "will not recover" in log.read_text()
            assert not failed, log.read_text()[-5_000:]
            assert time.monotonic() < deadline, log.read_text()[-5_000:]
            time.sleep(1)
        worker.kill()
        worker.wait()
    assert found == endpoints["records"]

    wanted_rows = sorted(" ".join(map(str, row)) for row in rows(endpoints, RENEWALS))
    assert sorted(run(folder, "renewals_duckdb.py", old_java(), HOME=str(folder)).splitlines()) == wanted_rows
    assert sorted(run_spark(folder, "renewals_spark.py").splitlines()) == wanted_rows
    assert "shelf" in json.dumps(metadata(folder / "lake" / "fill" / "status_changed"))


def old_java() -> Path:
    """Return the `java` of this machine: ours is a newer one, on which Hadoop's classes fail, and no whole JDK."""
    java = shutil.which("java")
    if java is None:
        pytest.skip("no java on the PATH: Spark and Kafka Connect need a JDK of 17 or 21")
    return Path(java)


def run_spark(folder: Path, program: str) -> str:
    submit = f"--master local[2] --jars {','.join(paths(jars(SPARK)))} pyspark-shell"
    return run(folder, program, old_java(), PYSPARK_SUBMIT_ARGS=submit)


def stored(lake: Path) -> int:
    found = [metadata(path) for path in lake.glob("*/*")]
    current = [(each.get("current-snapshot-id"), each.get("snapshots", [])) for each in found]
    summaries = [one["summary"] for id_, snapshots in current for one in snapshots if one["snapshot-id"] == id_]
    return sum(int(each["total-records"]) for each in summaries)


def metadata(table_folder: Path) -> dict[str, Any]:
    versions = sorted(
        (table_folder / "metadata").glob("v*.metadata.json"), key=lambda path: int(path.name[1:].split(".")[0])
    )
    content: dict[str, Any] = json.loads(versions[-1].read_bytes()) if versions else {}
    return content
