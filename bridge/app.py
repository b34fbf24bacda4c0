"""Composition root: builds the ingress; the only module that knows all of its concrete classes."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import NamedTuple, TypeVar, get_args

from prometheus_client import CollectorRegistry

from bridge.avro.schema_ids import RECORDS, SchemaIds
from bridge.fast_path import FastPaths
from bridge.ingress.call import Source
from bridge.ingress.deduplicator import Deduplicator
from bridge.ingress.delivery_limits import Admission
from bridge.ingress.heartbeat import Heartbeat
from bridge.ingress.responses import SERVICE, Observations
from bridge.ingress.webhooks import Webhooks
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.known_ids_reader import KnownIdsReader
from bridge.kafka.partition_writer import SET_ASIDE_AFTER_S, PartitionWriters, WriterLimits
from bridge.kafka.producer import KafkaProducer, Patience
from bridge.kafka.publisher import EncodeRecord, Publisher, ordinals
from bridge.kafka.routing import RoutingTable
from bridge.known.known_ids import KnownIds
from bridge.mapping.lookup import open_profiles
from bridge.mapping.profile import bucket_s, dedupe_window_s
from bridge.mapping.record_keys import KEY_MAX
from bridge.proof.key_sets import KeySetReader
from bridge.proof.scheme import FixedSecrets, KeySlot, Secrets
from bridge.proof.secrets import senders, slots_of
from bridge.registry.loader import bundled
from bridge.runtime.announce import Readiness
from bridge.runtime.configuration import masked_url
from bridge.runtime.findings import refuse
from bridge.runtime.health import MANAGEMENT_CLOSE_S, Check, ManagementPort
from bridge.runtime.http_server import HardenedServer
from bridge.runtime.io_thread import IOThread
from bridge.runtime.lifecycle import EndOf, Worker, background
from bridge.runtime.logging import log
from bridge.runtime.metrics import IngressMetrics, LoopLag
from bridge.runtime.secret_files import Reload, SlotDirectory
from bridge.runtime.signing_secret import expires_at
from bridge.runtime.tracing import Tracing, open_tracing
from bridge.settings import HttpSettings, Management, Settings
from bridge.sources import address_limit, challenge_of, check_new_keys, rate_limit, scheme_of, slots_dir
from bridge.spool.disk import Disk
from bridge.spool.store import NoSpool, Spool
from bridge.start_checks import check_start

_Result = TypeVar("_Result")

# Seconds of shutdown beyond the configured waits, such as for closing files.
STOP_MARGIN_S = 1.0
# Seconds to receive the headers or the body: 256 KiB need 210 kbit/s; slower senders hit their own timeout first.
READ_TIMEOUT_S = 10.0
# Seconds between two heartbeats. The alert `HeartbeatMissing` fires after four missed ones.
HEARTBEAT_S = 30.0
# Bytes of incomplete requests: 16 KiB per connection at the default limit, or 128 bodies of maximum size.
READING_MAX_BYTES = 33_554_432
# Bytes of bodies being processed: the maximum number of concurrent deliveries at 64 KiB each; typical is 2 KiB.
INFLIGHT_MAX_BYTES = 67_108_864
# Seconds that readiness waits for Kafka at startup. Connecting and reading the last 10,000 records or so of the topics
# each take tenths of a second. After that, unresponsive brokers count as an outage: deliveries are spooled while the
# rest of the topics is read.
START_S = 5.0


class Seams(NamedTuple):
    """Clocks, memory, disk threads and Kafka clients of a process; tests replace them."""

    now: Callable[[], float] = time.time  # Unix seconds
    now_ns: Callable[[], int] = time.time_ns
    disk: Disk | None = None  # the local one when None
    thread: Callable[[str], IOThread] = IOThread  # runs disk operations that may block
    connection: KafkaConnection | None = None  # creates Kafka clients; from the settings when None


REAL = Seams()


@asynccontextmanager
async def open_ingress(settings: Settings) -> AsyncIterator[list[Worker]]:
    """Build all parts, yield the workers to run, and close them after; `ConfigError` if a start check fails."""
    await in_thread(lambda: refuse(check_start(settings)))
    async with AsyncExitStack() as stack:
        tracing = stack.enter_context(open_tracing("drx-bridge"))
        metrics = IngressMetrics(CollectorRegistry())
        key_sets = _key_sets(settings, metrics)
        await asyncio.gather(*(each.start() for each in key_sets))
        secrets = await in_thread(partial(_open_secrets, settings, metrics))
        heartbeat = _heartbeat(settings, metrics)
        configured = build_sources(settings, secrets)
        sources = configured | {each.source.name: each.source for each in heartbeat}
        sources = await in_thread(partial(with_fast_paths, sources))
        routing = RoutingTable(settings.kafka.routes)
        ids = await in_thread(
            partial(
                SchemaIds,
                settings.registry,
                ids_file=settings.registry.ids_file,
                routing=routing,
                requests=metrics.schema_registry_requests,
            )
        )
        _log_start(settings, configured)
        # Opened first and closed last, so that probes also see startup and shutdown. Not ready until all parts are.
        checks: dict[str, Check] = {"starting": lambda: "starting"}
        management = ManagementPort(
            checks=checks, registry=metrics.registry, host=settings.management.host, port=settings.management.port
        )
        managing = await stack.enter_async_context(background(management, drain_timeout_s=MANAGEMENT_CLOSE_S))
        durability = await stack.enter_async_context(
            open_durability(
                settings,
                routing=routing,
                encode=ids.encode,
                windows_s={name: _window_s(settings, source) for name, source in sources.items()},
                metrics=metrics,
            )
        )
        server = _server(settings, build_webhooks(settings, sources, durability, metrics, tracing), metrics)
        checks.update(_checks(server, durability, ids, configured))
        yield [
            server,
            EndOf(managing),
            *durability.workers,
            ids,
            LoopLag(metrics.event_loop_lag),
            Readiness(checks, http=_address(settings.http), management=_address(settings.management)),
            *heartbeat,
            *secrets.values(),
            *key_sets,
        ]


def _log_start(settings: Settings, sources: Mapping[str, Source]) -> None:
    """Log version, sources and configuration at startup; no secrets."""
    registry = settings.registry.url
    log.info(
        "worker.started",
        version=version("drx-bridge"),
        instance=settings.instance,
        sources={
            name: f"{settings.sources[name].profile}, {source.environment}, {source.scheme.describe()}"
            for name, source in sources.items()
        },
        http=_address(settings.http),
        management=_address(settings.management),
        brokers=settings.kafka.bootstrap_servers,
        registry=masked_url(registry) if registry else "none, ids of the bundled lock",
        spool=str(settings.spool.dir) if settings.spool.enabled else "off",
    )


def _address(port: HttpSettings | Management) -> str:
    return f"{port.host}:{port.port}"


def _window_s(settings: Settings, source: Source) -> float:
    """Return the seconds for which ids of a source are remembered."""
    configured = settings.sources.get(source.name)
    return (configured and configured.dedupe_window_s) or dedupe_window_s(source.profile)


def _heartbeat(settings: Settings, metrics: IngressMetrics) -> list[Heartbeat]:
    """Return the heartbeat worker; empty if heartbeats are off."""
    if not settings.heartbeat.enabled:
        return []
    environments = {source.environment for source in settings.sources.values()}
    heartbeat = Heartbeat(
        host=settings.http.host,
        port=settings.http.port,
        environment="production" if "production" in environments else "sandbox",
        account_id=f"heartbeat-{settings.instance}"[:KEY_MAX],  # the instance name may be as long as a record key
        every_s=HEARTBEAT_S,
        timeout_s=settings.http.deadline_s,
        seen=metrics.heartbeat_last_seen.labels(SERVICE),
    )
    return [heartbeat]


def _key_sets(settings: Settings, metrics: IngressMetrics) -> list[KeySetReader]:
    """Return the workers that fetch the keys of sources whose issuer publishes them."""
    return [
        KeySetReader(source.secrets_dir, scheme, source=name, observe=partial(_count_reload, metrics, name))
        for name, source in settings.sources.items()
        if (scheme := scheme_of(name, source)).jwks_url and source.secrets_dir
    ]


def _open_secrets(settings: Settings, metrics: IngressMetrics) -> dict[str, SlotDirectory[KeySlot]]:
    opened: dict[str, SlotDirectory[KeySlot]] = {}
    for name, source in settings.sources.items():
        scheme = scheme_of(name, source)
        if (directory := slots_dir(scheme, source)) is None:
            continue
        slots = opened[name] = SlotDirectory(
            directory,
            slots_of(scheme),
            source=name,
            observe=partial(_count_reload, metrics, name),
            check=partial(check_new_keys, settings, opened, name),
        )
        for outcome in get_args(Reload):
            metrics.secret_reload.labels(name, outcome)
        metrics.secret_expiry.labels(name).set_function(partial(lambda each: expires_at(senders(each.keys)), slots))
    return opened


def _count_reload(metrics: IngressMetrics, source: str, outcome: str) -> None:
    metrics.secret_reload.labels(source, outcome).inc()


def secret_checks(sources: Mapping[str, Source], *, now: Callable[[], float] = time.time) -> dict[str, Check]:
    """Return a check for each source that has keys.

    If a source has no valid key but another one has, the result is `degraded`, not a failure. Every replica has the
    same keys: if all became unready, the other sources would be unavailable too.
    """

    def has_key(source: Source) -> bool:
        return not source.scheme.keyed or any(slot.counts_at(now()) for slot in senders(source.secrets.keys))

    def check(source: Source) -> str:
        if has_key(source):
            return "ok"
        return "degraded no_active_secret" if any(map(has_key, sources.values())) else "no_active_secret"

    return {f"secrets_{name}": partial(check, source) for name, source in sources.items() if source.scheme.keyed}


def build_sources(settings: Settings, secrets: Mapping[str, Secrets]) -> dict[str, Source]:
    """Build the configured sources, each with its secrets if its scheme has any."""
    profiles = open_profiles(settings.sources)
    return {
        name: Source(
            name=name,
            environment=source.environment,
            profile=profiles[name],
            scheme=(scheme := scheme_of(name, source)),
            challenge=challenge_of(name, source, scheme),
            secrets=secrets.get(name, FixedSecrets(())),
            limit=rate_limit(source.rate_per_s),
            bucket_s=bucket_s(profiles[name]),
            answer_200=source.answer_200,
            content_types=tuple(each.encode() for each in getattr(profiles[name], "CONTENT_TYPES", ())),
            json=source.body == "json",
        )
        for name, source in settings.sources.items()
    }


def with_fast_paths(sources: Mapping[str, Source]) -> dict[str, Source]:
    """Give the sources of native DRx their fast path."""
    fast_paths = FastPaths(bundled().schemas(), RECORDS)
    return {
        name: replace(each, fast_path=fast_paths.of(each.profile, source=name, environment=each.environment))
        for name, each in sources.items()
    }


def build_webhooks(
    settings: Settings,
    sources: Mapping[str, Source],
    durability: "Durability",
    metrics: IngressMetrics,
    tracing: Tracing | None = None,
    *,
    now: Callable[[], float] = time.time,
) -> Webhooks:
    """Build the request handler of the public port."""
    http = settings.http
    admission = Admission(count_max=http.inflight_max, bytes_max=INFLIGHT_MAX_BYTES)
    metrics.http_inflight_requests.set_function(lambda: admission.count)
    return Webhooks(
        sources=sources,
        deduplicator=Deduplicator(
            publisher=durability.publisher,
            known_ids=durability.known_ids,
            deadline_s=http.deadline_s,
            spooled_is_durable=lambda: durability.spool.is_durable,
        ),
        admission=admission,
        observations=Observations(metrics, sources=sources, deadline_s=http.deadline_s),
        body_max_bytes=http.body_max_bytes,
        newest=durability.known_ids.newest,
        address_limit=address_limit(http),
        tracing=tracing,
        now=now,
    )


def _server(settings: Settings, webhooks: Webhooks, metrics: IngressMetrics) -> HardenedServer:
    http = settings.http
    server = HardenedServer(
        webhooks,
        read_timeout_s=READ_TIMEOUT_S,
        host=http.host,
        port=http.port,
        drain_s=settings.shutdown.drain_s,
        body_max_bytes=http.body_max_bytes,
        connections_max=http.connections_max,
        reading_max_bytes=READING_MAX_BYTES,
        on_malformed=webhooks.malformed,
        on_ended=lambda reason: metrics.http_connections_ended.labels(reason).inc(),
    )
    metrics.http_open_connections.set_function(lambda: server.open_connections)
    return server


def _checks(
    server: HardenedServer, durability: "Durability", ids: SchemaIds, sources: Mapping[str, Source]
) -> dict[str, Check]:
    """Return the readiness checks: deliveries are accepted, and some source's events can be made durable now."""
    return {
        "starting": lambda: "ok" if server.listening.is_set() else "starting",
        "draining": lambda: "draining" if server.draining else "ok",
        **durability.checks,
        "schema_ids": lambda: "ok" if ids.known else "unknown",
        **secret_checks(sources),
    }


@dataclass(frozen=True, slots=True)
class Durability:
    """The running parts; `checks` report whether something can be made durable now."""

    publisher: Publisher
    known_ids: KnownIds
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
    encode: EncodeRecord,
    windows_s: Mapping[str, float],
    metrics: IngressMetrics,
    set_aside_after_s: float = SET_ASIDE_AFTER_S,
    seams: Seams = REAL,
) -> AsyncIterator[Durability]:
    """Recover the spool and connect in the background; close in an order that loses no accepted record.

    `windows_s`: seconds for which ids are remembered, by source.
    """
    async with AsyncExitStack() as stack:
        known_ids = KnownIds(
            windows_s=windows_s,
            capacity=settings.dedupe.capacity,
            now=seams.now,
            evicted_early=metrics.dedupe_evicted_early.inc,
        )
        metrics.dedupe_ids.set_function(lambda: len(known_ids))
        # A wrong option fails the start here; later it would only keep the producer from becoming ready.
        connection = seams.connection or settings.kafka.connection
        await in_thread(connection.options, thread=seams.thread)
        producer = _producer(settings, connection, routing, metrics, seams)
        spool = _spool(settings, metrics, seams)
        window_s = max(windows_s.values(), default=0.0)
        known_ids_reader = KnownIdsReader(
            connection=connection,
            topics=routing.topics,
            known_ids=known_ids,
            window_s=window_s,
            records_max=settings.dedupe.capacity,
            oldest_s=lambda: spool.oldest_ms() / 1000 or None,
            now=seams.now,
        )
        metrics.dedupe_ready.set_function(lambda: known_ids_reader.ready)
        metrics.dedupe_follow_lag_seconds.set_function(lambda: known_ids_reader.lag_s)
        writers = PartitionWriters(
            producer=producer,
            spool=spool,
            known_ids=known_ids,
            late_acks=metrics.late_acks,
            limits=WriterLimits(
                deadline_s=settings.http.deadline_s,
                spool_after_s=settings.spool_after_s,
                set_aside_after_s=set_aside_after_s,
            ),
            known_ids_reader=known_ids_reader,
        )
        metrics.spooling_partitions.set_function(lambda: writers.spooling)
        metrics.spool_blocked_partitions.set_function(lambda: writers.blocked)
        workers: list[Worker] = []
        if isinstance(spool, Spool):
            stack.push_async_callback(spool.close)
            await spool.open(writers)
            workers.append(spool)
        flush_s = settings.shutdown.flush_s
        for worker in (producer, known_ids_reader):  # both outlive the writers
            working = background(worker, drain_timeout_s=flush_s + STOP_MARGIN_S)
            workers.append(EndOf(await stack.enter_async_context(working)))
        publisher = Publisher(
            writers=writers,
            encode=encode,
            schemas=RECORDS,
            routing=routing,
            partitions=settings.kafka.partitions,
            instance=settings.instance,
            ordinals=ordinals(spool.last_ordinal, now_ns=seams.now_ns),
            message_max_bytes=settings.kafka.message_max_bytes,
        )
        stack.push_async_callback(writers.close, flush_s)
        checks = _durability_checks(
            producer,
            spool,
            known_ids,
            partitions=settings.kafka.partitions,
            monotonic=asyncio.get_running_loop().time,
        )
        yield Durability(publisher, known_ids, writers, producer, spool, workers, checks)


async def in_thread(work: Callable[[], _Result], *, thread: Callable[[str], IOThread] = IOThread) -> _Result:
    """Run work that may block on a volume in a thread, so that the event loop still handles signals."""
    starting = thread("start")
    try:
        return await starting.run(work)
    finally:
        starting.end()


def patience_beside_spool(after_s: float) -> Patience:
    """Return producer timeouts that detect an outage within `after_s` seconds, after which records are spooled."""
    return Patience(tick_s=min(Patience().tick_s, after_s / 8), stalled_s=after_s * 3 / 4)


def _producer(
    settings: Settings, connection: KafkaConnection, routing: RoutingTable, metrics: IngressMetrics, seams: Seams
) -> KafkaProducer:
    patience = patience_beside_spool(settings.spool_after_s) if settings.spool.enabled else Patience()
    return KafkaProducer(
        connection=connection,
        topics=routing.topics,
        partitions=settings.kafka.partitions,
        metrics=metrics,
        patience=patience,
        now=seams.now,
    )


def _spool(settings: Settings, metrics: IngressMetrics, seams: Seams) -> Spool | NoSpool:
    wanted = settings.spool
    if not wanted.enabled:
        return NoSpool()
    return Spool(
        directory=wanted.dir,
        key_dir=wanted.key_dir or wanted.dir / "keys",
        capacity_bytes=wanted.capacity_bytes,
        metrics=metrics,
        disk=seams.disk,
        now_ns=seams.now_ns,
        thread=seams.thread,
    )


def _durability_checks(
    producer: KafkaProducer,
    spool: Spool | NoSpool,
    known_ids: KnownIds,
    *,
    partitions: int,
    monotonic: Callable[[], float] = time.monotonic,
) -> dict[str, Check]:
    """Return checks that an event can be made durable now: in Kafka or, `degraded`, on disk."""

    def second_best(result: str) -> str:
        return result if result == "ok" or spool.code else f"degraded {result}"

    started = monotonic()

    def kafka() -> str:
        # Not ready until the first connection attempt and the reading of the topics have ended, so that nothing is
        # spooled at startup while Kafka works.
        recalling = producer.ready and None not in producer.wrong_counts.values() and not known_ids.finished
        if monotonic() - started < START_S and (producer.untried or recalling):
            return "recalling" if recalling else producer.state
        if not producer.ready:
            return second_best(producer.code or producer.state)
        if producer.quiet:
            return second_best("no_answer")
        return "degraded recalling" if recalling and not spool.code else "ok"  # new deliveries are spooled

    def topics() -> str:
        counts = producer.wrong_counts.values()
        if None in counts:
            return second_best("topic_missing")
        # More partitions than expected only raise an alert, since the expected count stays in use. With fewer, some
        # keys have no partition.
        few = any(seen < partitions for seen in counts if seen is not None)
        return second_best("too_few_partitions" if few else "ok")

    checks: dict[str, Check] = {"kafka": kafka, "topics": topics}
    return checks if isinstance(spool, NoSpool) else {**checks, "spool": partial(check_spool, spool, producer)}


def check_spool(spool: Spool, producer: KafkaProducer) -> str:
    """Return `ok`, or why the spool accepts nothing; `degraded` if Kafka works, or about older segments only."""
    if not spool.code:
        old = "degraded failing_segments" if spool.failing else "ok"
        return "degraded locked_records" if spool.held.locked else old
    return f"degraded {spool.code}" if producer.ready else spool.code
