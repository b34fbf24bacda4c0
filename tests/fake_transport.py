"""Kafka and a group member in memory; tests/contract compares them with the real client."""

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence

from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from consumers.runtime.transport import Bounds, GroupTransport, Rebalances, TransportError


class FakeKafka:
    """Logs from offset 0 and the offsets of one group, which are kept after the members end.

    `refuses` has the error codes of the next commits; `leaderless` partitions have no known bounds; `corrupt` is the
    offset of a corrupt batch; `unstable` is the number of unreadable records after an open transaction.
    """

    def __init__(self, topics: Mapping[str, int]) -> None:
        self.logs: dict[TopicPartition, list[ConsumedRecord]] = {
            TopicPartition(topic, number): [] for topic, partitions in topics.items() for number in range(partitions)
        }
        self.starts = dict.fromkeys(self.logs, 0)
        self.offsets: dict[TopicPartition, int] = {}
        self.commits: list[dict[TopicPartition, int]] = []
        self.reachable = True
        self.waiting = 0
        self.refuses: list[str] = []
        self.leaderless: set[TopicPartition] = set()
        self.corrupt: dict[TopicPartition, int] = {}
        self.unstable: dict[TopicPartition, int] = {}
        self.news = asyncio.Event()
        self._back = asyncio.Event()
        self._back.set()

    def add(self, tp: TopicPartition, *ids: str, key: bytes = b"rx_1") -> None:
        log = self.logs[tp]
        for each in ids:
            headers = [("ce_id", each.encode())]
            log.append(ConsumedRecord(*tp, len(log), 1_772_366_400_000 + len(log), key, each.encode(), headers))
        self.news.set()

    def expire(self, tp: TopicPartition, start: int) -> None:
        self.starts[tp] = start

    def go_away(self) -> None:
        """Do not respond until `come_back`."""
        self.reachable = False
        self._back.clear()

    def come_back(self) -> None:
        self.reachable = True
        self._back.set()
        self.news.set()

    async def answer(self, timeout_s: float) -> None:
        self.waiting += 1
        try:
            async with asyncio.timeout(timeout_s):
                await self._back.wait()
        except TimeoutError as exc:
            raise TransportError("no_answer") from exc
        finally:
            self.waiting -= 1

    def bounds(self, tp: TopicPartition) -> Bounds:
        if tp in self.leaderless:
            raise TransportError("no_answer")
        return Bounds(self.starts[tp], len(self.logs[tp]))


class FakeTransport(GroupTransport):
    """A member with the partitions that a test assigns, at first all; `failure` is the code of the next poll."""

    def __init__(self, kafka: FakeKafka, *, gives: Iterable[TopicPartition] | None = None) -> None:
        """Belong to the group of `kafka`; `gives` is the first assignment, all partitions when None."""
        self.kafka = kafka
        self.polled: list[frozenset[TopicPartition]] = []
        self.paused: set[TopicPartition] = set()
        self.positions: dict[TopicPartition, int] = {}
        self.failure: str | None = None
        self.answer_s = 0.05
        self.renewed, self.stopped = False, False
        self.hooks: list[asyncio.Task[None]] = []
        self._gives = frozenset(kafka.logs if gives is None else gives)
        self._assigned: frozenset[TopicPartition] = frozenset()
        self._rebalances: Rebalances | None = None
        self._rebalancing = False

    async def start(self, rebalances: Rebalances) -> None:
        """Join; the first assignment follows soon, as in the real group."""
        if not self.kafka.reachable:
            raise TransportError("no_answer")
        self._rebalances = rebalances
        self.hooks.append(asyncio.create_task(self.rebalance(self._gives)))

    async def rebalance(self, tps: Iterable[TopicPartition]) -> None:
        """Revoke everything and assign `tps`, as the eager protocol does."""
        assert self._rebalances is not None
        self._rebalancing = True
        await self._rebalances.revoked(self._assigned)
        self._assigned = frozenset(tps)
        self.positions.clear()
        self.paused.clear()
        self._rebalancing = False
        self._rebalances.assigned(self._assigned)

    async def poll(
        self, tps: Collection[TopicPartition], *, timeout_s: float
    ) -> Mapping[TopicPartition, Sequence[ConsumedRecord]]:
        """Return the records of `tps`, or wait for new ones."""
        asked = frozenset(tps)
        self.polled.append(asked)
        found = self._taken(asked)
        if not found and timeout_s > 0:
            self.kafka.news.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self.kafka.news.wait()
            except TimeoutError:
                return {}
            found = self._taken(asked)
        return found

    def _taken(self, asked: frozenset[TopicPartition]) -> dict[TopicPartition, list[ConsumedRecord]]:
        if self.failure is not None:
            code, self.failure = self.failure, None
            raise TransportError(code)
        if self._rebalancing or not self.kafka.reachable:
            return {}
        found: dict[TopicPartition, list[ConsumedRecord]] = {}
        for tp in sorted(asked & self._assigned - self.paused):
            position = self.positions.get(tp, self.kafka.offsets.get(tp))
            if position is None:
                raise TransportError("offset_missing", [tp])
            start, end = self.kafka.bounds(tp)
            if not start <= position <= end:
                raise TransportError("offset_out_of_range", [tp])
            corrupt = self.kafka.corrupt.get(tp)
            if position == corrupt:
                if found:
                    break
                raise TransportError("batch_unreadable", [tp], offset=corrupt)
            if corrupt is not None and position < corrupt:
                end = corrupt
            if position < end:
                found[tp] = self.kafka.logs[tp][position:end]
                self.positions[tp] = end
        return found

    def position(self, tp: TopicPartition) -> int | None:
        return self.positions.get(tp)

    def high_watermark(self, tp: TopicPartition) -> int | None:
        """Return the end of the log, including records after an open transaction."""
        return len(self.kafka.logs[tp]) + self.kafka.unstable.get(tp, 0)

    def assigned(self) -> frozenset[TopicPartition]:
        return self._assigned

    def seek(self, tp: TopicPartition, offset: int) -> None:
        if tp in self._assigned:
            self.positions[tp] = offset

    def pause(self, tps: Collection[TopicPartition]) -> None:
        self.paused |= self._assigned.intersection(tps)

    def resume(self, tps: Collection[TopicPartition]) -> None:
        self.paused -= set(tps)
        self.kafka.news.set()

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        await self.kafka.answer(self.answer_s)
        if self.kafka.refuses:
            raise TransportError(self.kafka.refuses.pop(0))
        lost = offsets.keys() - self._assigned
        if lost:
            raise TransportError("not_member", lost)
        self.kafka.offsets.update(offsets)
        self.kafka.commits.append(dict(offsets))

    async def bounds(self, tps: Collection[TopicPartition]) -> Mapping[TopicPartition, Bounds]:
        await self.kafka.answer(self.answer_s)
        return {tp: self.kafka.bounds(tp) for tp in tps}

    def outdated(self) -> bool:
        return self.renewed

    async def stop(self) -> None:
        self.stopped = True
        self._assigned = frozenset()
        await asyncio.gather(*self.hooks)
