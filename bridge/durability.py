"""How the ingress makes things durable: producer, spool and memory of ids, put together around the publisher."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from bridge.avro.schema_ids import RECORDS
from bridge.ingress.deduplicator import KnownIds
from bridge.kafka.follower import Follower
from bridge.kafka.ordinals import Ordinals
from bridge.kafka.partition_writer import Limits, NoSpool, PartitionWriters
from bridge.kafka.publisher import Encode, Publisher
from bridge.kafka.routing import RoutingTable
from bridge.kafka.supervisor import KafkaProducer, Patience
from bridge.runtime.hand import Hand
from bridge.runtime.health import Check
from bridge.runtime.lifecycle import EndOf, Worker, background
from bridge.runtime.metrics import IngressMetrics
from bridge.settings import Settings
from bridge.spool.store import Spool

Result = TypeVar("Result")

# For the rest of a stop, such as closing files; the parts with a wait of their own have settings.
CLOSE_S = 1.0
# A connection takes tenths of a second, and so do the tails of topics with some 10,000 records. Brokers that are silent
# are an outage; longer tails are read while deliveries are spooled.
START_S = 5.0
# In the spool's directory, which stays as long as what was given an ordinal.
ORDINALS = "ordinals"


@dataclass(frozen=True, slots=True)
class Durability:
    """The running parts.

    Attributes:
        workers: What must run beside them.
        checks: Whether something can be made durable now.
    """

    publisher: Publisher
    dedupe: KnownIds
    writers: PartitionWriters
    producer: KafkaProducer
    spool: Spool | NoSpool
    workers: list[Worker]
    checks: dict[str, Check]


@asynccontextmanager
async def open_durability(
    settings: Settings,
    *,
    routing: RoutingTable,
    encode: Encode,
    windows_s: Mapping[str, float],
    metrics: IngressMetrics,
) -> AsyncIterator[Durability]:
    """Recover what the spool holds, connect in the background, and end in order: all that was taken is kept.

    Args:
        settings: The whole configuration.
        routing: Event type to topic.
        encode: Record name and value to wire format.
        windows_s: By source, how long ids are remembered.
        metrics: Those of the process.
    """
    async with AsyncExitStack() as stack:
        dedupe = _dedupe(settings, windows_s, metrics)
        # A fault is said at the start; later the producer could only be not ready.
        await aside(settings.kafka.connection.options)
        producer = _producer(settings, routing, metrics)
        spool = _spool(settings, metrics)
        follower = Follower(
            connection=settings.kafka.connection,
            topics=routing.topics,
            dedupe=dedupe,
            window_s=max(windows_s.values(), default=0.0),
            records_max=settings.dedupe.capacity,
            oldest_s=lambda: spool.oldest_ms() / 1000 or None,
            mode=settings.dedupe.follow,
        )
        metrics.dedupe_ready.set_function(lambda: follower.ready)
        metrics.dedupe_follow_lag_seconds.set_function(lambda: follower.lag_s)
        writers = PartitionWriters(
            producer=producer,
            spool=spool,
            dedupe=dedupe,
            late_acks=metrics.late_acks,
            limits=Limits(deadline_s=settings.http.deadline_s, spool_after_s=settings.spool_after_s),
            follower=follower,
        )
        metrics.spooling_partitions.set_function(lambda: writers.spooling)
        metrics.spool_blocked_partitions.set_function(lambda: writers.blocked)
        workers: list[Worker] = [follower]
        if isinstance(spool, Spool):
            stack.push_async_callback(spool.close)
            await spool.open(writers.recovered)
            workers.append(spool)
        ordinals = Ordinals(
            settings.spool.dir / ORDINALS, first=spool.last_ordinal + 1, is_usable=lambda: spool.is_open
        )
        await ordinals.keep()
        workers.append(ordinals)
        flush_s = settings.shutdown.flush_s
        workers.append(EndOf(await stack.enter_async_context(background(producer, drain_timeout_s=flush_s + CLOSE_S))))
        publisher = Publisher(
            writers=writers,
            encode=encode,
            schemas=RECORDS,
            routing=routing,
            partitions=settings.kafka.partitions,
            instance=settings.instance,
            ordinals=ordinals,
            message_max_bytes=settings.kafka.message_max_bytes,
        )
        stack.push_async_callback(publisher.close, flush_s)
        checks = _checks(producer, spool, dedupe, partitions=settings.kafka.partitions)
        yield Durability(publisher, dedupe, writers, producer, spool, workers, checks)


async def aside(work: Callable[[], Result]) -> Result:
    """Do what may hang on a volume without the loop, which would not see a stop."""
    hand = Hand("start")
    try:
        return await hand.do(work)
    finally:
        hand.end()


def patience_beside_spool(after_s: float) -> Patience:
    """See an outage before its first delivery is spooled, `after_s` after it came, so that no second one waits."""
    return Patience(tick_s=min(Patience().tick_s, after_s / 8), stalled_s=after_s * 3 / 4)


def _dedupe(settings: Settings, windows_s: Mapping[str, float], metrics: IngressMetrics) -> KnownIds:
    dedupe = KnownIds(
        windows_s=windows_s, capacity=settings.dedupe.capacity, evicted_early=metrics.dedupe_evicted_early.inc
    )
    metrics.dedupe_ids.set_function(lambda: len(dedupe))
    return dedupe


def _producer(settings: Settings, routing: RoutingTable, metrics: IngressMetrics) -> KafkaProducer:
    patience = patience_beside_spool(settings.spool_after_s) if settings.spool.enabled else Patience()
    return KafkaProducer(
        connection=settings.kafka.connection,
        topics=routing.topics,
        partitions=settings.kafka.partitions,
        metrics=metrics,
        patience=patience,
    )


def _spool(settings: Settings, metrics: IngressMetrics) -> Spool | NoSpool:
    wanted = settings.spool
    if not wanted.enabled:
        return NoSpool()
    return Spool(
        directory=wanted.dir,
        key_dir=wanted.key_dir or wanted.dir / "keys",
        capacity_bytes=wanted.capacity_bytes,
        metrics=metrics,
    )


def _checks(producer: KafkaProducer, spool: Spool | NoSpool, dedupe: KnownIds, *, partitions: int) -> dict[str, Check]:
    """Ready means: an event can be made durable now, in Kafka or, which is only second best, on disk."""

    def second_best(result: str) -> str:
        return result if result == "ok" or spool.code else "degraded"

    started = time.monotonic()

    def kafka() -> str:
        # The first attempt to connect and the reading of the topics are waited for, so that a start beside a sound
        # Kafka spools nothing.
        if time.monotonic() - started < START_S:
            if producer.untried:
                return producer.state
            if producer.ready and None not in producer.wrong_counts.values() and not dedupe.finished:
                return "recalling"
        return second_best("ok" if producer.ready else producer.code or producer.state)

    def topics() -> str:
        counts = producer.wrong_counts.values()
        if None in counts:
            return second_best("topic_missing")
        # More than expected raises an alarm but takes nothing away, as the expected count stays in use; of fewer, the
        # ones that are not there are wanted by some keys.
        few = any(seen < partitions for seen in counts if seen is not None)
        return second_best("too_few_partitions" if few else "ok")

    def disk() -> str:
        return "degraded" if spool.code and producer.ready else spool.code or "ok"

    checks: dict[str, Check] = {"kafka": kafka, "topics": topics}
    return checks if isinstance(spool, NoSpool) else {**checks, "spool": disk}
