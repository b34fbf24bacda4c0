"""Commands of operators on a host, next to its process or instead of it: the workers of `drx-bridge`'s commands."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any

from prometheus_client import CollectorRegistry

from bridge.app import Seams, open_durability
from bridge.commands.spool_aside import PutBack
from bridge.commands.spool_drain import Watch
from bridge.commands.unrecognized_replay import Parked, by_first_receipt
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.routing import UNRECOGNIZED_TOPIC, RoutingTable
from bridge.proof.origin import sign_origin
from bridge.runtime.lifecycle import run_workers
from bridge.runtime.metrics import IngressMetrics
from bridge.spool.keys import KeyRing
from bridge.spool.set_aside import names_of, read_aside
from bridge.spool.store import Spool
from tests.builders import codec
from tests.simulation.dialects import WINDOW_S, Delivery, slots, sources
from tests.simulation.disk import InlineThread
from tests.simulation.kafka import Connection, Kafka
from tests.simulation.loop import Process
from tests.simulation.replica import SPOOL, Host, settings_of
from tests.simulation.senders import Senders

PATIENCE_S = 30.0
TRIES = 6


def begin(host: Host, name: str, work: Any) -> "asyncio.Task[None]":
    """Run a command as a separate process."""
    process = Process(host.world.loop, f"{host.name}.{name}")
    host.world.note(host.name, "runs", name)
    return host.world.loop.create_task(work, context=process.context)


async def drain(host: Host) -> None:
    """Do as `drx-bridge spool drain`, on a host whose process does not run."""
    async with _opened(host, spooling=True, set_aside_after_s=PATIENCE_S / 2) as parts:
        if isinstance(parts.spool, Spool) and parts.spool.is_open:
            watch = Watch(parts, parts.spool, patience_s=PATIENCE_S)
            await run_workers([*parts.workers, watch], stop=asyncio.Event(), drain_timeout_s=10.0)
            host.world.note(host.name, "drained", watch.outcome)


async def put_back(host: Host) -> None:
    """Do as `drx-bridge spool aside --put-back`, beside the process or without one."""
    keys = KeyRing(host.key_dir)
    keys.load()
    names = names_of(host.disk, SPOOL)
    asides = [read_aside(host.disk, SPOOL, name, keys.decrypting) for name in names]
    work = PutBack(SPOOL, asides, patience_s=PATIENCE_S, disk=host.disk)
    async with _opened(host, spooling=False) as parts:
        work.parts = parts
        await run_workers([*parts.workers, work], stop=asyncio.Event(), drain_timeout_s=10.0)
    host.world.note(host.name, "put back", work.codes)


def _opened(host: Host, *, spooling: bool, **options: float) -> Any:
    settings = settings_of(host.name, host.variant, host.partitions, host.key_dir, spooling=spooling)
    return open_durability(
        settings,
        routing=RoutingTable(settings.kafka.routes),
        encode=codec().encode,
        windows_s=dict.fromkeys(sources("whole"), float(WINDOW_S)),
        metrics=IngressMetrics(CollectorRegistry()),
        seams=Seams(
            now=host.clock.now,
            now_ns=host.clock.now_ns,
            disk=host.disk,
            thread=partial(InlineThread, host.disk),
            connection=Connection(kafka=host.kafka, host=host.name),
        ),
        **options,
    )


async def replay(kafka: Kafka, senders: Senders, host: Host, source: str) -> bool:
    """Do as `drx-bridge unrecognized replay`; return whether every delivery was accepted."""
    sent = [each.delivery for each in senders.attempts if each.delivery.kind != "hostile"]
    known = {(each.source, each.sha256): each for each in sent}

    async def read(*, first: bool) -> AsyncIterator[Parked]:
        del first
        for partition in kafka.topics[UNRECOGNIZED_TOPIC].partitions:
            end = partition.end(kafka.world.loop.time())
            for offset, record in enumerate(partition.records[:end]):
                value = codec().decode(record.value or b"").value
                if value["source"] == source and value["reason"] != "id_conflict":
                    yield ConsumedRecord(*partition.tp, offset, 0, b"", b"", ()), value

    rng = random.Random(f"{kafka.world.seed} replay")  # noqa: S311 - of the seed
    for _, value in [each async for each in by_first_receipt(read)]:
        digest = sha256(value["body"]).hexdigest()
        delivery: Delivery = known[source, digest]
        for number in range(TRIES):
            received_us = round(value["received_at"].timestamp() * 1e6)
            at = int(datetime.fromtimestamp(kafka.world.true_clock.now(), UTC).timestamp())
            key = slots(source, senders.keys[source])[0].key
            given = {"content-type": "application/json"}
            given |= sign_origin(key, value["webhook_id"], at, delivery.body, origin="replay", received_us=received_us)
            attempt = await senders.attempt(delivery, host, rng, patience_s=8.0, origin="replay", given=given)
            if attempt.received and attempt.promised:
                break
            await asyncio.sleep(2.0**number / 4)
        else:
            return False
    return True
