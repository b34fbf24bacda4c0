"""What docs/engines.md shows runs in the engines themselves, and finds what PostgreSQL has."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg  # noqa: TID251 - asks as a reader would
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from bridge.dev.jars import JarCache
from bridge.dev.programs import find_java
from tests.engines.engines import FLINK, PYTHON, ROOT, SPARK, environment, jars
from tests.integration.dev_process import DevProcess
from tests.integration.service_process import until

PROGRAM = re.compile(r"<!-- engine: ([\w.]+) -->\n```python\n(.*?)```", re.DOTALL)
TOPIC = "drx.prescriptions.v1"
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


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Give a folder with the programs of the page, and a stack with all types, repeats and an aborted transaction."""
    folder = tmp_path_factory.mktemp("engines")
    for name, text in PROGRAM.findall((ROOT / "docs" / "engines.md").read_text(encoding="utf-8")):
        (folder / name).write_text(text, encoding="utf-8")
    with DevProcess(folder / "stack") as dev:
        endpoints = dev.ready()
        secret = endpoints["sources"]["drx"]["secret_file"]
        bridge("simulate", "--url", endpoints["ingress"], "--secret-file", secret, "--count", str(DELIVERIES))
        events = [record for record in read(endpoints) if record.topic() == TOPIC]
        rewrite(endpoints, events[:DUPLICATES], commit=True)
        rewrite(endpoints, events[:DUPLICATES], commit=False)
        expected = len({record.key() + dict(record.headers())["ce_id"] for record in events})
        until(
            lambda: rows(endpoints, "select count(*) from read_model.timeline")[0][0] == expected,
            what=f"{expected} events in the read model",
        )
        yield folder, endpoints


def bridge(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own command line
        [str(ROOT / ".venv" / "bin" / "drx-bridge"), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


def read(endpoints: dict[str, Any]) -> list[Any]:
    """Return every record of the topic."""
    consumer = Consumer({"bootstrap.servers": endpoints["bootstrap_servers"], "group.id": "engines-test"})
    places = [TopicPartition(TOPIC, number, 0) for number in range(12)]
    ends = sum(consumer.get_watermark_offsets(each)[1] for each in places)
    consumer.assign(places)
    records: list[Any] = []
    while len(records) < ends:
        records += consumer.consume(1_000, timeout=10)
    consumer.close()
    return records


def rewrite(endpoints: dict[str, Any], records: Sequence[Any], *, commit: bool) -> None:
    """Write records once more, in a transaction that is committed or aborted."""
    producer = Producer({"bootstrap.servers": endpoints["bootstrap_servers"], "transactional.id": "engines-test"})
    producer.init_transactions()
    producer.begin_transaction()
    for each in records:
        producer.produce(TOPIC, each.value(), each.key(), each.partition(), headers=each.headers())
        producer.poll(0)
    producer.flush()
    producer.commit_transaction() if commit else producer.abort_transaction()


def rows(endpoints: dict[str, Any], query: str) -> list[Any]:
    async def ask() -> list[Any]:
        connection = await asyncpg.connect(endpoints["postgres"])
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()

    return asyncio.run(ask())


def run(folder: Path, program: str, java: Path, **more: str) -> str:
    """Run a program of the page in its engine, and return what it prints."""
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
    """Return the rows of a table in ASCII, without its head."""
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
    java = shutil.which("java")
    if java is None:
        pytest.skip("no java on the PATH: Spark needs a whole JDK, of 17 or newer")
    script = bridge("schemas", "spark", "fill.status_changed", "--bootstrap-servers", endpoints["bootstrap_servers"])
    (folder / "fills.py").write_text(script, encoding="utf-8")
    submit = f"--master local[2] --jars {','.join(paths(jars(SPARK)))} pyspark-shell"

    found = table(run(folder, "month.py", Path(java), PYSPARK_SUBMIT_ARGS=submit))
    assert sorted(found) == sorted((status, str(count)) for status, count in rows(endpoints, FILLS))
    assert any((folder / "fills").glob("*.parquet"))
