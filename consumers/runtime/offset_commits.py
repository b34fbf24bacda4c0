"""Commit the group's offsets to Kafka, to show its lag; PostgreSQL is authoritative, and none is read back."""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping

from bridge.kafka.consumed_record import TopicPartition
from bridge.runtime.logging import log
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.transport import GroupTransport, TransportError

# Seconds of one commit, including the wait for another one in progress.
COMMIT_S = 5.0


class OffsetCommits:
    """Commits what was settled since the last commit, one commit at a time."""

    def __init__(self, transport: GroupTransport, *, metrics: ConsumerMetrics, group: str) -> None:
        self._transport = transport
        self._metrics = metrics
        self._group = group
        self._committed: dict[TopicPartition, int] = {}
        self._committing = asyncio.Lock()
        self._outcome = "ok"

    async def commit(self, settled: Callable[[], Mapping[TopicPartition, int]]) -> str:
        """Commit the next offset of each partition; return `ok`, or the code of a failure, which the next repeats."""
        try:
            async with asyncio.timeout(COMMIT_S), self._committing:
                # Read only now: more may have been settled, and partitions revoked, during another commit.
                outcome = await self._send(settled())
        except TimeoutError:
            outcome = "no_answer"
        if outcome not in {"ok", self._outcome}:  # logged once, not once a period
            log.warning("worker.commit_failed", group=self._group, code=outcome)
        self._outcome = outcome
        return outcome

    def forget(self, tps: Collection[TopicPartition]) -> None:
        """Commit these again if they are assigned again: meanwhile another member may have committed."""
        for each in tps:
            self._committed.pop(each, None)

    async def _send(self, settled: Mapping[TopicPartition, int]) -> str:
        news = {tp: offset for tp, offset in settled.items() if offset != self._committed.get(tp)}
        if not news:
            return "ok"
        begun = time.monotonic()
        try:
            await self._transport.commit(news)
        except TransportError as exc:
            return exc.code
        finally:
            self._metrics.commit.observe(time.monotonic() - begun)
        self._committed |= news
        return "ok"
