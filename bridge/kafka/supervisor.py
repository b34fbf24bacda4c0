"""Keep a working producer at hand: connect in the background, watch it, and replace it when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import structlog
from prometheus_client import Counter, Gauge, Histogram

from bridge.errors import ConfigError, NotDurableError
from bridge.kafka.connection import Connection, reachable
from bridge.kafka.producer import END_S, Generation
from bridge.kafka.record import Record
from bridge.runtime.lifecycle import first_of, is_cancelled
from bridge.runtime.logging import trail

log = structlog.get_logger()

# One partition's trouble must not leave the writes of the others unknown: they are answered in milliseconds.
SETTLE_S = 1.0

State = Literal["connecting", "ready", "stalled", "failed", "closed"]


class ProducerMetrics(Protocol):
    """What the producer reports."""

    produce_duration: Histogram
    produce: Counter
    producer_state: Gauge
    producer_generation: Gauge
    oldest_unacked: Gauge
    partition_count_mismatch: Gauge


@dataclass(frozen=True, slots=True)
class Patience:
    """How long the supervisor waits for what.

    Attributes:
        tick_s: Between two looks.
        missing_s: Between two questions for a topic that is not there yet.
        stalled_s: Without any answer, new deliveries are turned away at once; a little over the answer deadline.
        silent_s: Without any answer, the producer is replaced; above the 11 s that a lost leader was seen to cost.
        stuck_s: The same for one partition while others answer.
        retry_first_s: Before the second attempt to connect; doubles from there.
        retry_max_s: Most between two attempts.
        close_s: For the end, when `run` ends it.
    """

    tick_s: float = 0.25
    missing_s: float = 1.0
    stalled_s: float = 5.0
    silent_s: float = 20.0
    stuck_s: float = 120.0
    retry_first_s: float = 0.25
    retry_max_s: float = 5.0
    close_s: float = 10.0


class KafkaProducer:
    """The producer of the bridge: there from the start, ready when Kafka is."""

    def __init__(
        self,
        *,
        connection: Connection,
        topics: Sequence[str],
        partitions: int | None,
        metrics: ProducerMetrics,
        patience: Patience = Patience(),
        now: Callable[[], float] = time.time,
    ) -> None:
        """Watch `topics`, each of which must have `partitions`, or any number if None; others may be written, too.

        `now` gives Unix seconds.
        """
        self._connection = connection
        self._topics = topics
        self._partitions = partitions
        self._metrics = metrics
        self._patience = patience
        self._now = now
        self._generation: Generation | None = None
        self._retired: Generation | None = None  # not ended yet, or not begun
        self._attempts = 0  # to connect, since the last that succeeded
        self._generations = 0
        self._work: asyncio.Task[None] | None = None
        self._closed = False
        self._counts: dict[str, int | None] = {}
        for topic in topics:
            metrics.produce_duration.labels(topic)
            metrics.produce.labels(topic, "acknowledged")
            metrics.partition_count_mismatch.labels(topic).set(0)
        self.code = ""
        self._enter("connecting")

    @property
    def ready(self) -> bool:
        """True when a write may succeed now."""
        return self.state == "ready"

    @property
    def untried(self) -> bool:
        """True until the first attempt to connect has ended, one way or the other."""
        return self.state == "connecting" and not self.code

    @property
    def wrong_counts(self) -> dict[str, int | None]:
        """Topics that have another partition count than expected, or None where there is no such topic."""
        return {topic: seen for topic, seen in self._counts.items() if not self._expects(seen)}

    def _expects(self, seen: int | None) -> bool:
        return seen is not None and self._partitions in {None, seen}

    def partitions(self, topic: str) -> int | None:
        """Return how many partitions a topic has; None while that is not known."""
        return None if self._generation is None else self._generation.partitions(topic)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set or `close` is called; then nothing is sent any more."""
        self._work = asyncio.create_task(self._keep())
        try:
            await first_of({self._work}, stop)
        finally:
            await self.close(self._patience.close_s)
        if not self._work.cancelled():
            self._work.result()

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Write as many `records`, from the first, as one batch holds; return how many all in-sync replicas have.

        Raises:
            RecordRefusedError: One of the records is at fault.
            NotDurableError: Not written, or not known to be.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        generation = self._generation
        if generation is None:
            raise NotDurableError("kafka_unavailable")
        try:
            written = await generation.write(topic, partition, records)
        except NotDurableError as exc:
            self._metrics.produce.labels(topic, exc.code).inc(len(records))
            raise
        self._metrics.produce_duration.labels(topic).observe(loop.time() - began)
        self._metrics.produce.labels(topic, "acknowledged").inc(written)
        return written

    async def close(self, timeout_s: float) -> None:
        """Finish what is in flight within `timeout_s`, then end every connection; with Kafka away it is as quick."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._generation is not None:
                await self._generation.settle(max(0.0, timeout_s - 2 * END_S))
            if self._work is not None:
                self._work.cancel()
                await asyncio.wait({self._work})
        finally:
            await self._retire(settle_s=0.0)
            self._enter("closed")

    async def _keep(self) -> None:
        """Have one producer after the other, whatever a client raises: the next may fare better."""
        while True:
            try:
                await self._have_one()
            except (Exception, asyncio.CancelledError) as exc:
                if is_cancelled():
                    raise
                # aiokafka raises more than it says: a `TypeError` for bytes that are no answer, a `CancelledError` for
                # a connection that was closed under it.
                log.error("worker.failed", where=trail(exc))
                self._enter("failed", "unexpected")

    async def _have_one(self) -> None:
        """Connect, watch the producer, and say why it must be replaced; the one before is ended first."""
        await self._retire(settle_s=SETTLE_S)
        if self._attempts:
            await asyncio.sleep(self._backoff_s(self._attempts - 1))
        self._attempts += 1
        if await self._connect():
            self._attempts = 0
            reason = await self._watch()
            self._enter("connecting", reason)
            log.warning("worker.producer_replaced", code=reason, generation=self._generations)

    async def _connect(self) -> bool:
        try:
            await self._open()
        except (ConfigError, NotDurableError) as exc:
            if exc.code != self.code:
                log.warning("worker.producer_unavailable", code=exc.code)
            self._enter("connecting" if exc.code == "unreachable" else "failed", exc.code)
            return False
        self._generations += 1
        self._metrics.producer_generation.set(self._generations)
        self._enter("ready")
        return True

    async def _open(self) -> None:
        options = await asyncio.to_thread(self._connection.options)
        options["bootstrap_servers"] = await reachable(self._connection.servers)
        if not options["bootstrap_servers"]:
            raise NotDurableError("unreachable")
        self._retired = Generation(options, now=self._now)
        await self._retired.start()
        self._generation, self._retired = self._retired, None

    async def _watch(self) -> str:
        """Return why the generation must be replaced, when it must."""
        generation, patience = self._generation, self._patience
        if generation is None:
            return "ended"
        loop = asyncio.get_running_loop()
        looked_at = loop.time()
        while True:
            self._look_at_topics(generation)
            if None in self._counts.values() and loop.time() - looked_at > patience.missing_s:
                looked_at = loop.time()
                generation.look_again()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience.tick_s):
                    await generation.broken.wait()
            now = loop.time()
            oldest, silent = generation.oldest_s(now), generation.silent_s(now)
            self._metrics.oldest_unacked.set(oldest)
            if generation.broken.is_set() or generation.dead:
                return "broken"
            if silent > patience.silent_s or oldest > patience.stuck_s:
                return "no_answer"
            self._enter("stalled" if silent > patience.stalled_s else "ready")

    def _look_at_topics(self, generation: Generation) -> None:
        """Raise the alarm for another partition count; the expected one stays in use, so that no key moves."""
        for topic in self._topics:
            seen = generation.partitions(topic)
            if seen == self._counts.get(topic, self._partitions):
                continue
            self._counts[topic] = seen
            self._metrics.partition_count_mismatch.labels(topic).set(not self._expects(seen))
            if not self._expects(seen):
                log.error("worker.partition_count", topic=topic, seen=seen, expected=self._partitions)

    async def _retire(self, *, settle_s: float) -> None:
        """End the generation there is, or one that could not start, or whose end was interrupted."""
        self._retired, self._generation = self._generation or self._retired, None
        if self._retired is not None:
            try:
                await self._retired.settle(settle_s)
            finally:
                await self._retired.end()
            self._retired = None
        self._metrics.oldest_unacked.set(0)

    def _enter(self, state: State, code: str = "") -> None:
        if (getattr(self, "state", None), self.code) == (state, code):
            return
        self.state: State = state
        self.code = code
        for each in get_args(State):
            self._metrics.producer_state.labels(each).set(each == state)

    def _backoff_s(self, attempt: int) -> float:
        """Double up to the most, and spread: many bridges must not come back in step."""
        most = min(self._patience.retry_max_s, self._patience.retry_first_s * 2 ** min(attempt, 16))
        return random.uniform(most / 2, most)  # noqa: S311 - spreads load, guards nothing
