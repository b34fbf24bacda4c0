"""Composition root: builds a consumer process; the only module that knows all of its concrete classes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry

from bridge.avro.event_decoder import EventDecoder, open_decoder
from bridge.errors import BridgeError, TransientError
from bridge.kafka.admin import AdminError
from bridge.kafka.producer import KafkaProducer
from bridge.kafka.reader import ReadError
from bridge.runtime.announce import Readiness
from bridge.runtime.health import MANAGEMENT_CLOSE_S, Check, ManagementPort
from bridge.runtime.lifecycle import EndOf, Worker, background, first_of, pause, run_workers
from bridge.runtime.logging import log
from bridge.runtime.metrics import IngressMetrics, LoopLag
from bridge.runtime.tracing import Tracing, open_tracing
from consumers.api import Consumer
from consumers.options import database_of
from consumers.postgres.pool import COMMAND_TIMEOUT_S, SERVER_SHARE, Database, open_database
from consumers.runtime.groups import GroupView, open_group
from consumers.runtime.jobs import Jobs
from consumers.runtime.ledger import Ledger
from consumers.runtime.member import Membership, WatchLimits
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.processor import Processor
from consumers.runtime.start_checks import check_start
from consumers.runtime.subscriber import Subscriber
from consumers.runtime.transport import GroupTransport, Timing
from consumers.settings import ConsumerSettings

# Seconds between two attempts to start while Kafka or PostgreSQL is away.
RETRY_S = 2.0
# Seconds to join; a new member adopts its partitions one by one before it reads them.
SETTLE_S = 5.0
# Seconds to leave the group and close connections, after drain and commit.
LEAVE_S = 3.0
# Seconds; above the session timeout, after which a silent client has lost its partitions anyway.
SILENT_MARGIN_S = 15.0
# A member that does not poll for this long leaves its group. It polls while handlers run, unless the process is paused
# or its event loop hangs.
MAX_POLL_S = 600.0
# Seconds added to a handler's timeout and to its time to end once cancelled. If the server ended a transaction earlier,
# the database would seem away; an ended statement would seem the record's fault.
IDLE_MARGIN_S = 10.0
Made = TypeVar("Made")


class Seams(NamedTuple):
    """The view of the group, its client and the processor of a process; tests replace them."""

    view: Callable[..., AbstractAsyncContextManager[GroupView]] = open_group
    transport: Callable[..., GroupTransport] = GroupTransport
    processor: Callable[..., Processor] = Processor


REAL = Seams()


@asynccontextmanager
async def open_consumer(
    settings: ConsumerSettings, consumer: Consumer, registry: CollectorRegistry
) -> AsyncIterator[list[Worker]]:
    """Build the parts that outlive a group membership, and yield the workers to run until the stop."""
    metrics = ConsumerMetrics(registry, service=consumer.group)
    async with AsyncExitStack() as stack:
        tracing = stack.enter_context(open_tracing(consumer.group))
        database = await stack.enter_async_context(
            open_database(
                settings.postgres.address(),
                size=settings.postgres.pool_size,
                application_name=f"drx-consumer {consumer.name}",
                command_timeout_s=max(COMMAND_TIMEOUT_S, (consumer.handler_timeout_s + IDLE_MARGIN_S) / SERVER_SHARE),
                idle_in_transaction_timeout_s=consumer.handler_timeout_s + IDLE_MARGIN_S,
                # A handler's statements may change the session.
                reset=consumer.transactional or bool(consumer.jobs),
            )
        )
        decoder = await stack.enter_async_context(open_decoder(settings.registry))
        worker = ConsumerWorker(settings, consumer, database, decoder, metrics, tracing)
        management = ManagementPort(
            checks=worker.checks,
            live=worker.live,
            registry=registry,
            host=settings.management.host,
            port=settings.management.port,
            section="CONSUMER_MANAGEMENT",
        )
        # Outlives all others, so that probes see the shutdown to its end.
        managing = await stack.enter_async_context(background(management, drain_timeout_s=MANAGEMENT_CLOSE_S))
        await first_of({managing}, management.listening)
        if managing.done():
            managing.result()
        log.info(
            "worker.started",
            version=version("drx-bridge"),
            group=consumer.group,
            topics=list(consumer.topics),
            brokers=settings.kafka.bootstrap_servers,
            database=database_of(settings.postgres.address()),
            management=f"{settings.management.host}:{settings.management.port}",
        )
        announcing = Readiness(worker.checks, settle_s=SETTLE_S, group=consumer.group)
        yield [worker, EndOf(managing), announcing, LoopLag(metrics.event_loop_lag)]


@dataclass(eq=False, repr=False)
class ConsumerWorker:
    """A worker that runs the start checks, joins its group, and settles what it reads."""

    _settings: ConsumerSettings
    _consumer: Consumer
    _database: Database
    _decoder: EventDecoder
    _metrics: ConsumerMetrics
    _tracing: Tracing | None = None
    _seams: Seams = REAL
    _start: str = "starting"
    _processor: Processor | None = None
    _subscriber: Subscriber | None = None

    @property
    def checks(self) -> dict[str, Check]:
        """Return the readiness checks by name."""
        return {
            "start": lambda: self._start,
            "group": lambda: "ok" if self._subscriber is None else self._subscriber.ready(),
            "parking": lambda: "ok" if self._processor is None else self._processor.standing(),
            "settling": lambda: "ok" if self._processor is None else self._processor.waiting(),
            "reading": lambda: "ok" if self._subscriber is None else self._subscriber.degraded(),
        }

    def live(self) -> str:
        """Return `ok`, or a code if only a restart can help."""
        return "ok" if self._subscriber is None else self._subscriber.live()

    async def run(self, stop: asyncio.Event) -> None:
        """Retry the start as long as needed, then consume until `stop`; `ConfigError` if an operator must act."""
        async with AsyncExitStack() as stack:
            around = self._consumer.around
            # Entered and exited by this task, as a task group or timeout within `around` requires.
            resource = None if around is None else await self._until(stop, lambda: stack.enter_async_context(around()))
            checked = await self._until(stop, self._check)
            if checked is None:
                return
            cluster_id, begun = checked
            processor = await self._open_processor(stack, cluster_id, resource)
            # Outlives the subscriber, which drains it.
            settling = await stack.enter_async_context(background(processor, drain_timeout_s=LEAVE_S))
            subscriber = self._subscribe(processor, begun)
            consumer = self._consumer
            jobs = Jobs(
                consumer.jobs,
                group=consumer.group,
                database=self._database,
                timeout_s=consumer.handler_timeout_s,
                resource=resource,
            )
            self._processor, self._subscriber, self._start = processor, subscriber, "ok"
            workers: list[Worker] = [subscriber, EndOf(settling), jobs]
            await run_workers(workers, stop=stop, drain_timeout_s=self._settings.shutdown.workers_s)

    async def _until(self, stop: asyncio.Event, attempt: Callable[[], Awaitable[Made]]) -> Made | None:
        """Retry `attempt` until it succeeds; None if `stop` was set first."""
        while not stop.is_set():
            try:
                return await attempt()
            except BridgeError as exc:
                if not exc.retriable:
                    raise
                if exc.code != self._start:
                    log.warning("worker.start_waits", group=self._consumer.group, code=exc.code, **self._away(exc))
                self._start = exc.code
            await pause(stop, RETRY_S)
        return None

    def _away(self, exc: BridgeError) -> dict[str, str]:
        """Return the server that a start waits for, as a log field."""
        if isinstance(exc, ReadError | AdminError):
            return {"address": self._settings.kafka.bootstrap_servers}
        return {"address": database_of(self._settings.postgres.address())} if isinstance(exc, TransientError) else {}

    async def _check(self) -> tuple[str, frozenset[str]]:
        """Query Kafka and PostgreSQL, and return the result of `check_start`."""
        kafka = self._settings.kafka
        return await check_start(
            self._consumer,
            database=self._database,
            view=self._seams.view(kafka.connection, self._consumer.group, self._consumer.topics),
            accepted_cluster=kafka.accept_cluster_id,
            begins_by_itself=kafka.offset_reset != "none",
        )

    async def _open_processor(self, stack: AsyncExitStack, cluster_id: str, resource: Any) -> Processor:
        consumer = self._consumer
        return self._seams.processor(
            producer=await self._open_producer(stack) if consumer.publishes else None,
            consumer=consumer.within(self._settings.postgres.pool_size),
            database=self._database,
            ledger=Ledger(self._database, group=consumer.group, cluster_id=cluster_id),
            decoder=self._decoder,
            metrics=self._metrics,
            resource=resource,
            tracing=self._tracing,
        )

    async def _open_producer(self, stack: AsyncExitStack) -> KafkaProducer:
        """Open the producer of the outbox; its topics may have any number of partitions."""
        producer = KafkaProducer(
            connection=self._settings.kafka.connection,
            topics=self._consumer.publishes,
            partitions=None,
            metrics=IngressMetrics(CollectorRegistry()),  # made for the ingress; the outbox has its own metrics
        )
        await stack.enter_async_context(background(producer, drain_timeout_s=LEAVE_S))
        return producer

    def _subscribe(self, processor: Processor, begun: Collection[str]) -> Subscriber:
        settings, consumer = self._settings, self._consumer
        kafka = settings.kafka
        timing = Timing(session_s=kafka.session_s, max_poll_s=MAX_POLL_S)
        membership = Membership(
            name=consumer.group,
            consumer=consumer.name,
            processor=processor,
            metrics=self._metrics,
            policy=kafka.offset_reset,
            begun=begun,
            drain_s=settings.shutdown.drain_s,
            limits=WatchLimits(silent_s=kafka.session_s + SILENT_MARGIN_S, join_s=2 * timing.rebalance_s),
        )
        named = {"group": consumer.group, "topics": consumer.topics}
        opening = partial(self._seams.transport, kafka.connection, **named, timing=timing)
        return Subscriber(membership, open_transport=opening, address=kafka.bootstrap_servers)
