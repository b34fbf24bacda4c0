"""A consumer group in the world: eager rebalances, and sessions that end; logs and polls are `tests.fake_transport`'s.

A member that is frozen, or does not reach Kafka, learns with its next heartbeat that it was removed.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.reader import ReadError
from consumers.runtime.transport import Rebalances, TransportError
from tests.fake_transport import FakeKafka, FakeTransport
from tests.simulation.loop import PROCESS
from tests.simulation.world import World

SESSION_S = 10.0
CLUSTER = "here"
HEARTBEAT_S = 3.0


class Group:
    """One group; `kafka` has the logs and its committed offsets."""

    def __init__(self, world: World, kafka: FakeKafka, name: str) -> None:
        self.world, self.kafka, self.name = world, kafka, name
        self.rng = world.stream(f"group {name}")
        self.members: list[Member] = []
        self.generation = 0
        self._is_due = False
        self._task: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def view(self, *_: object) -> AsyncIterator[Any]:
        """View the group from outside, as `open_group`."""
        await asyncio.sleep(self.rng.uniform(0.005, 0.05))
        if not self.kafka.reachable:
            raise ReadError("unreachable", "no broker")
        yield self

    async def cluster_id(self) -> str:
        return CLUSTER

    def join(self, member: "Member") -> None:
        self.members.append(member)
        self.shake()

    def leave(self, member: "Member") -> None:
        if member in self.members:
            self.members.remove(member)
            self.shake()

    def shake(self) -> None:
        """Begin a rebalance, or another one after the current one."""
        self._is_due = True
        if self._task is None:
            self._task = self.world.loop.create_task(self._rebalance(), context=self.world.context)

    def look(self) -> None:
        """Remove members without a heartbeat for a session."""
        for each in list(self.members):
            if self.world.loop.time() - each.heard_at > SESSION_S:
                self.leave(each)

    async def _rebalance(self) -> None:
        while self._is_due:
            self._is_due = False
            await asyncio.sleep(self.rng.uniform(0.05, 1.0))
            joined = list(self.members)
            tasks = [each.call(each.discard()) for each in joined]
            while any(not t.done() and m in self.members for m, t in zip(joined, tasks, strict=True)):  # noqa: ASYNC110 - of several
                await asyncio.sleep(0.1)
            self.generation += 1
            members = [each for each in self.members if each in joined]
            self._is_due |= len(members) < len(self.members)
            tps = sorted(self.kafka.logs)
            self.rng.shuffle(tps)
            for number, each in enumerate(members):
                given = tps[number :: len(members)]
                self.world.note(self.name, "gives", each.process.name, *sorted(given))
                each.call(each.take(given, self.generation))
        self._task = None


class Member(FakeTransport):
    """The client of one member."""

    def __init__(self, group: Group) -> None:
        super().__init__(group.kafka)
        process = PROCESS.get()
        assert process is not None
        self.group, self.process = group, process
        self.heard_at = group.world.loop.time()
        self.generation = 0

    def call(self, work: "asyncio._CoroutineLike[None]") -> "asyncio.Task[None]":
        """Run a call in the member's process."""
        task = self.group.world.loop.create_task(work, context=self.process.context)
        self.hooks.append(task)
        return task

    async def start(self, rebalances: Rebalances) -> None:
        await asyncio.sleep(self.group.rng.uniform(0.005, 0.05))
        if not self.kafka.reachable:
            raise TransportError("no_answer")
        self._rebalances = rebalances
        self.group.join(self)
        self._beating = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if not self.kafka.reachable:
                continue
            if self in self.group.members:
                self.heard_at = self.group.world.loop.time()
            else:
                await self.discard()
                self.heard_at = self.group.world.loop.time()
                self.group.join(self)

    async def poll(
        self, tps: Collection[TopicPartition], *, timeout_s: float
    ) -> Mapping[TopicPartition, Sequence[ConsumedRecord]]:
        """Poll; it may take longer than it was given."""
        return await super().poll(tps, timeout_s=timeout_s * self.group.rng.uniform(1, 8))

    async def discard(self) -> None:
        self._rebalancing = True
        assert self._rebalances is not None
        await self._rebalances.revoked(self._assigned)
        self._assigned = frozenset()

    async def take(self, tps: Iterable[TopicPartition], generation: int) -> None:
        """Store the assignment, unless there is a newer one."""
        if generation != self.group.generation or self.stopped:
            return
        assert self._rebalances is not None
        self.generation = generation
        self._assigned = frozenset(tps)
        self.positions.clear()
        self.paused.clear()
        self._rebalancing = False
        self._rebalances.assigned(self._assigned)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        if self not in self.group.members or self.generation != self.group.generation:
            raise TransportError("not_member", offsets)
        await super().commit(offsets)

    async def stop(self) -> None:
        if not self.stopped:
            self.stopped = True
            self._assigned = frozenset()
            if self._rebalances is not None:
                self._beating.cancel()
            self.group.leave(self)
