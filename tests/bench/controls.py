"""The controls of the read model, each a process that reads the first COUNT records of a topic.

Run as `python -m tests.bench.controls poll BOOTSTRAP_SERVERS TOPIC COUNT`, which only polls and decodes: what this
client and this schema allow at most; or `... one_by_one BOOTSTRAP_SERVERS TOPIC COUNT DSN`, which writes each event in
a transaction of its own, as a team would in an afternoon. Prints one JSON line.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg  # noqa: TID251 - the control stands beside the bridge, not in it
import orjson
import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition  # noqa: TID251 - as above

from tests.originals import codec

# As the consumers of the bridge fetch.
FETCH_MAX_BYTES = 8 * 2**20
PARTITION_MAX_BYTES = 2**20
POLL_MS = 500
Take = Callable[[Any, dict[str, Any]], Awaitable[None]]

TABLES = """
    create table if not exists event (
        source text, event_id text, prescription_id text, event_type text, occurred_at timestamptz, body jsonb,
        unique (source, event_id));
    create table if not exists prescription (prescription_id text primary key, display text, last_event_at timestamptz);
"""
INSERT = """
    insert into event (source, event_id, prescription_id, event_type, occurred_at, body)
    values ($1, $2, $3, $4, $5, $6) on conflict do nothing
"""
UPSERT = """
    insert into prescription as p (prescription_id, display, last_event_at) values ($1, $2, $3)
    on conflict (prescription_id) do update set display = excluded.display, last_event_at = excluded.last_event_at
    where p.last_event_at <= excluded.last_event_at
"""


async def poll(bootstrap_servers: str, topic: str, wanted: int) -> dict[str, float]:
    """Poll and decode, nothing more."""

    async def drop(record: Any, value: dict[str, Any]) -> None:
        """Let it go."""

    return await _read(bootstrap_servers, topic, wanted, drop)


async def one_by_one(bootstrap_servers: str, topic: str, wanted: int, dsn: str) -> dict[str, float]:
    """Write each event and where its prescription stands, in one transaction."""
    connection = await asyncpg.connect(dsn)
    await connection.execute(TABLES)

    async def write(record: Any, value: dict[str, Any]) -> None:
        kind, key, occurred_at = value["event_type"], record.key.decode(), value["occurred_at"]
        body = orjson.dumps(value, default=str).decode()
        async with connection.transaction():
            await connection.execute(INSERT, value["source"], value["event_id"], key, kind, occurred_at, body)
            await connection.execute(UPSERT, key, kind, occurred_at)

    try:
        return await _read(bootstrap_servers, topic, wanted, write)
    finally:
        await connection.close()


async def _read(bootstrap_servers: str, topic: str, wanted: int, take: Take) -> dict[str, float]:
    """Give `wanted` records to `take`; the time counts from the first of them."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        enable_auto_commit=False,
        fetch_max_bytes=FETCH_MAX_BYTES,
        max_partition_fetch_bytes=PARTITION_MAX_BYTES,
    )
    await consumer.start()
    try:
        # The bootstrap answer names no topics.
        await consumer._client.force_metadata_update()
        places = [TopicPartition(topic, each) for each in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        decode, left = codec().decode, wanted
        began = cpu = 0.0
        while left > 0:
            found = await consumer.getmany(timeout_ms=POLL_MS)
            if not began:
                began, cpu = time.perf_counter(), time.process_time()
            for records in found.values():
                for record in records[:left]:
                    await take(record, decode(record.value, record.headers).value)
                left -= len(records[:left])
        return {"records": wanted, "elapsed_s": time.perf_counter() - began, "cpu_s": time.process_time() - cpu}
    finally:
        await consumer.stop()


def main(control: str, bootstrap_servers: str, topic: str, wanted: str, *dsn: str) -> None:
    """Run one and print what it took."""
    if control == "poll":
        work = poll(bootstrap_servers, topic, int(wanted))
    else:
        work = one_by_one(bootstrap_servers, topic, int(wanted), *dsn)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        took = runner.run(work)
    print(orjson.dumps(took).decode())  # noqa: T201 - the answer to the process that started us


if __name__ == "__main__":
    main(*sys.argv[1:])
