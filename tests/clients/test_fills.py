"""The consumers of docs/examples/clients on a real broker, registry and database: their tables and commits."""

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # noqa: TID251 - writes what the bridge never does

from bridge.dev.jars import JarCache
from bridge.dev.services import PARTITIONS
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, partition
from tests.integration.dev_process import DevProcess
from tests.integration.service_process import until
from tests.node import node_packages
from tests.postgres import execute

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "clients"
KEY = "rx_fills"
PARTITION = partition(KEY.encode(), PARTITIONS)
# What DRx sends, and what the table must then hold.
FILLS: tuple[tuple[Mapping[str, Any], tuple[Any, ...]], ...] = (
    (
        {"fill_number": 0, "fill_status": "dispensed", "quantity_dispensed": "30", "fill_date": "2026-02-28"},
        (0, "dispensed", Decimal("30.000"), date(2026, 2, 28)),
    ),
    (
        {"fill_number": 1, "fill_status": "partially_dispensed", "quantity_dispensed": "123456789.125"},
        (1, "partially_dispensed", Decimal("123456789.125"), None),
    ),
    (
        {"fill_number": 2, "fill_status": "dispensed", "quantity_dispensed": "0.5", "fill_date": "1969-12-31"},
        (2, "dispensed", Decimal("0.500"), date(1969, 12, 31)),
    ),
    ({"fill_number": 3, "fill_status": "not_dispensed"}, (3, "not_dispensed", None, None)),
)
INSTANTS = [datetime(2026, 9, 15, 17, 45, number, 123_456 + number, UTC) for number in range(len(FILLS))]


class Stack(NamedTuple):
    """A running stack, seen from the folder beside it."""

    folder: Path
    endpoints: Mapping[str, Any]
    expected: list[tuple[Any, ...]]
    end: int  # offset behind the last record of the partition that has the fills


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("clients")
    with DevProcess(folder / "stack", "--no-consumers") as process:
        endpoints = process.ready()
        bodies = [
            {
                "id": f"evt_{number}",
                "type": "fill.status_changed",
                "version": "1",
                "timestamp": at.isoformat().replace("+00:00", "Z"),
                "environment": "sandbox",
                "account_id": "acct_1",
                "data": {"prescription_id": KEY, **data},
            }
            for number, ((data, _), at) in enumerate(zip(FILLS, INSTANTS, strict=True))
        ]
        scenario = folder / "fills.ndjson"
        scenario.write_text("".join(f"{json.dumps(body)}\n" for body in bodies))
        send = ("simulate", "--url", endpoints["ingress"], "--secret-file", endpoints["sources"]["drx"]["secret_file"])
        subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "bridge", *send, "--scenario", str(scenario)], check=True, capture_output=True
        )
        end = asyncio.run(add_what_the_bridge_never_writes(endpoints["bootstrap_servers"]))
        expected = [
            ("drx", f"evt_{number}", KEY, *row, at)
            for number, ((_, row), at) in enumerate(zip(FILLS, INSTANTS, strict=True))
        ]
        yield Stack(folder, endpoints, expected, end)


async def add_what_the_bridge_never_writes(servers: str) -> int:
    """Write a record that is no Avro, of another type, and every fill once more; return the offset behind these."""
    async with AIOKafkaConsumer(
        PRESCRIPTIONS_TOPIC, bootstrap_servers=servers, auto_offset_reset="earliest"
    ) as consumer:
        records = [await consumer.getone() for _ in FILLS]
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        where = {"key": KEY.encode(), "partition": PARTITION}
        await producer.send_and_wait(PRESCRIPTIONS_TOPIC, b"no Avro", headers=[("ce_type", b"note.written")], **where)
        for each in records:
            last = await producer.send_and_wait(PRESCRIPTIONS_TOPIC, each.value, headers=list(each.headers), **where)
    return int(last.offset) + 1


def in_java(folder: Path) -> list[str]:
    jars = JarCache(lock=Path(__file__).with_name("java.lock.toml"))
    pom = (EXAMPLES / "java" / "pom.xml").read_text()
    assert all(f"<artifactId>{jar.artifact}</artifactId><version>{jar.version}<" in pom for jar in jars.jars)
    jars.fetch()
    class_path = os.pathsep.join([str(folder), JarCache().class_path, jars.class_path])
    run(f"javac -Xlint:all -Werror -d {folder} -classpath {shlex.quote(class_path)} java/Fills.java")
    return ["java", "-classpath", class_path, "Fills"]


def in_go(folder: Path) -> list[str]:
    run(f"cd go && go vet && go build -mod=readonly -o {folder}/fills")
    return [str(folder / "fills")]


def in_node(folder: Path) -> list[str]:
    node, home = node_packages(EXAMPLES / "node", "clients")
    (folder / "node_modules").symlink_to(home / "node_modules")
    shutil.copy(EXAMPLES / "node" / "fills.mjs", folder)
    return [node, "fills.mjs"]


def run(command: str) -> None:
    done = subprocess.run(["bash", "-euc", command], cwd=EXAMPLES, capture_output=True, text=True, check=False)  # noqa: S603, S607 - our own
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("language", "tool", "made"), [("java", "javac", in_java), ("go", "go", in_go), ("node", "node", in_node)]
)
def test_each_fill_is_in_the_table_once_and_exact_before_it_is_committed(
    stack: Stack, language: str, tool: str, made: Callable[[Path], list[str]]
) -> None:
    if language != "node" and shutil.which(tool) is None:
        pytest.skip(f"no {tool} on the PATH")
    command = made(stack.folder)
    table, group = f"fills_{language}", f"fills-{language}"

    def rows(query: str) -> list[tuple[Any, ...]]:
        return execute(stack.endpoints["postgres"], query)[0]

    def committed() -> int | None:
        return asyncio.run(offset_of(stack.endpoints["bootstrap_servers"], group))

    # Work that fails: what it belongs to must not be committed.
    rows(f"create table {table} (refused int)")
    with started(command, stack.folder) as refused:
        assert refused.wait(60) != 0
    assert committed() is None

    rows(f"drop table {table}")
    with started(command, stack.folder):
        until(lambda: committed() == stack.end, what="the commit")

    assert rows(f"select * from {table} order by id") == stack.expected  # noqa: S608 - our own names


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program, which never ends by itself, until the end of the block."""
    environment = {**os.environ, "JDK_JAVA_OPTIONS": ""}
    with subprocess.Popen(command, cwd=folder, env=environment) as process:  # noqa: S603 - our own program
        try:
            yield process
        finally:
            process.kill()


async def offset_of(servers: str, group: str) -> int | None:
    async with AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False) as consumer:
        offset: int | None = await consumer.committed(TopicPartition(PRESCRIPTIONS_TOPIC, PARTITION))
        return offset
