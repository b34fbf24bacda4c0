"""What a record costs in the client alone: aiokafka against the asyncio classes of confluent-kafka.

`python -m tests.bench.clients CANDIDATE BOOTSTRAP_SERVERS TOPIC` is one candidate: it writes RECORDS of them, at most
AT_ONCE in flight, all in-sync replicas, idempotent; then it reads them. Prints one JSON line.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import psutil
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # noqa: TID251 - a candidate
from confluent_kafka.aio import AIOConsumer, AIOProducer
from rich.console import Console
from rich.table import Table

from bridge.dev.kafka import create_topics
from tests.cluster import EmbeddedCluster

RECORDS = 20_000
AT_ONCE = 64
VALUE = b"x" * 700
ROUNDS = 2
# What waits for a batch that does not fill; by itself it is a second.
BUFFER_S = 0.005
CANDIDATES = ("aiokafka", "confluent")
PARTITIONS = 12
Figures = dict[str, float]


async def aiokafka(bootstrap_servers: str, topic: str) -> Figures:
    """Write and read with aiokafka."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        written = await _timed(lambda: _written(lambda key: producer.send_and_wait(topic, VALUE, key=key)))
    finally:
        await producer.stop()
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap_servers, group_id="bench-aiokafka", auto_offset_reset="earliest"
    )
    await consumer.start()

    async def read() -> None:
        left = RECORDS
        while left > 0:
            left -= sum(map(len, (await consumer.getmany(timeout_ms=500)).values()))

    try:
        return written | {f"read_{name}": value for name, value in (await _timed(read)).items()}
    finally:
        await consumer.stop()


async def confluent(bootstrap_servers: str, topic: str) -> Figures:
    """Write and read with confluent-kafka."""
    reach = {"bootstrap.servers": bootstrap_servers}
    producer = AIOProducer(
        {**reach, "acks": "all", "enable.idempotence": True}, batch_size=AT_ONCE, buffer_timeout=BUFFER_S
    )

    async def send(key: bytes) -> None:
        await (await producer.produce(topic, VALUE, key=key))

    try:
        written = await _timed(lambda: _written(send))
    finally:
        await producer.close()
    consumer = AIOConsumer({**reach, "group.id": "bench-confluent", "auto.offset.reset": "earliest"})
    await consumer.subscribe([topic])

    async def read() -> None:
        left = RECORDS
        while left > 0:
            left -= len(await consumer.consume(500, timeout=0.5))

    try:
        return written | {f"read_{name}": value for name, value in (await _timed(read)).items()}
    finally:
        await consumer.close()


async def _written(send: Callable[[bytes], Awaitable[Any]]) -> None:
    numbers = iter(range(RECORDS))

    async def lane() -> None:
        for number in numbers:
            await send(b"rx_%d" % number)

    await asyncio.gather(*(lane() for _ in range(AT_ONCE)))


async def _timed(work: Callable[[], Awaitable[None]]) -> Figures:
    began, cpu = time.perf_counter(), time.process_time()
    await work()
    return {
        "per_s": RECORDS / (time.perf_counter() - began),
        "cpu_us": (time.process_time() - cpu) / RECORDS * 1e6,
    }


def run(console: Console, results: Path, *, quick: bool = False) -> dict[str, Any]:
    """Measure the candidates in turn; the figures of each are those of its best round."""
    directory = Path(tempfile.mkdtemp(prefix="clients-", dir=results)).absolute()
    cluster = EmbeddedCluster(directory, brokers=1)
    cluster.start()
    rounds: dict[str, list[Figures]] = {name: [] for name in CANDIDATES}
    try:
        for number in range(1 if quick else ROUNDS):
            for name in CANDIDATES:
                topic = f"bench.{name}.{number}"
                create_topics(cluster.bootstrap_servers, {topic: PARTITIONS})
                command = [sys.executable, "-m", "tests.bench.clients", name, cluster.bootstrap_servers, topic]
                done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 - ours
                rounds[name].append(orjson.loads(done.stdout))
                console.print(f"{name}: {rounds[name][-1]['cpu_us']:.0f} µs a record written")
    finally:
        cluster.stop()
        shutil.rmtree(directory, ignore_errors=True)
    best = {name: min(found, key=lambda each: each["cpu_us"]) for name, found in rounds.items()}
    return {"machine": {"cpus": os.cpu_count(), "load_1m": psutil.getloadavg()[0]}, "rounds": rounds, "best": best}


def table(figures: dict[str, Any]) -> Table:
    """Show the figures."""
    shown = Table(title=f"{RECORDS:,} records of {len(VALUE)} bytes, {AT_ONCE} at once")
    for column in ("client", "written/s", "CPU µs", "read/s", "CPU µs"):
        shown.add_column(column, justify="left" if column == "client" else "right")
    for name, best in figures["best"].items():
        values = (best[each] for each in ("per_s", "cpu_us", "read_per_s", "read_cpu_us"))
        shown.add_row(name, *(f"{each:,.0f}" for each in values))
    return shown


if __name__ == "__main__":
    candidate = {"aiokafka": aiokafka, "confluent": confluent}[sys.argv[1]]
    sys.stdout.buffer.write(orjson.dumps(asyncio.run(candidate(*sys.argv[2:]))))
