"""Whatever befalls Kafka, the disk and the process, in any order: every promise to every sender is kept.

The writers, the deduplication and what makes things durable once are the real ones; time is virtual. Kafka keeps, loses
or keeps without saying so; the disk fills up and fails; the process is killed and comes back with what the disk holds.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from prometheus_client import CollectorRegistry, Counter

from bridge.errors import NotDurableError
from bridge.ingress.deduplicator import Deduplicator
from bridge.kafka.partition_writer import PartitionWriters, WriterLimits, from_entry
from bridge.kafka.publisher import Publisher
from bridge.kafka.record import MESSAGE_MAX_BYTES, Record
from bridge.kafka.routing import RoutingTable
from bridge.known.known_ids import KnownIds
from bridge.spool.segment import Entry
from tests.builders import a_delivery, an_event, identity_in
from tests.fakes import FakeSpool
from tests.virtual_time import VirtualLoop

Mood = Literal["well", "away", "silent", "deaf", "mute"]
SOURCE = "drx"
KEYS = ("rx_1", "rx_2", "rx_3")
# Of these two share a partition, so that a key meets a stranger in its partition.
PARTITIONS = 2
DEADLINE_S, SPOOL_AFTER_S = 4.0, 2.0
# Small, so that a drain takes several turns, and things happen in between.
BATCH_MAX = 2
# After this no write is in flight any more: the producer has given it up.
GIVEN_UP_S = 20.0


class MoodyKafka:
    """A log, and a way to it that answers, refuses, or leaves everything open.

    Attributes:
        mood: `well`; `away`: refuses at once; `silent`: says nothing for 20 s, then that the outcome is unknown, and
            has nothing; `mute`: the same, but has it; `deaf`: takes 3 s and then acknowledges.
    """

    def __init__(self) -> None:
        """Begin well, and empty."""
        self.log: defaultdict[tuple[str, int], list[Record]] = defaultdict(list)
        self.mood: Mood = "well"

    @property
    def ready(self) -> bool:
        return self.mood != "away"

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        mood, records = self.mood, records[:BATCH_MAX]
        if mood == "away":
            raise NotDurableError("kafka_unavailable")
        if mood == "deaf":
            await asyncio.sleep(3)
        if mood == "mute":
            self.log[topic, partition].extend(records)
        if mood in {"silent", "mute"}:
            await asyncio.sleep(GIVEN_UP_S)
            raise NotDurableError("outcome_unknown")
        self.log[topic, partition].extend(records)
        return len(records)

    async def close(self, timeout_s: float) -> None:
        self.mood = "away"
        await asyncio.sleep(min(timeout_s, 0.1))


@dataclass
class Sent:
    """One event of a sender, and what it was told about it.

    Attributes:
        began: When it was first sent, by the sender's own count of what happens.
        promised: When it was first told that the event is durable, by the same count; None until then.
        answers: What each life has answered, in order.
        unseen: What was on a disk that could not be read when this was sent: nobody could know that it goes before.
    """

    id: str
    key: str
    began: int
    promised: int | None = None
    answers: defaultdict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    unseen: set[str] = field(default_factory=set)


class Life:
    """One life of the process: everything that a kill takes away."""

    def __init__(self, kafka: MoodyKafka, spool: FakeSpool, loop: VirtualLoop, first_ordinal: int) -> None:
        """Begin with what the disk holds."""
        self.known_ids = KnownIds(windows_s={SOURCE: 86_400}, capacity=1000, now=loop.time)
        self.writers = PartitionWriters(
            producer=kafka,
            spool=spool,
            known_ids=self.known_ids,
            late_acks=Counter("late", "late", registry=CollectorRegistry()),
            limits=WriterLimits(deadline_s=DEADLINE_S, spool_after_s=SPOOL_AFTER_S),
        )
        publisher = Publisher(
            writers=self.writers,
            encode=lambda _, value: str(value).encode(),
            schemas={"prescription.processed": "drx.v1.PrescriptionProcessed"},
            routing=RoutingTable(),
            partitions=PARTITIONS,
            instance="i",
            ordinals=itertools.count(first_ordinal),
            message_max_bytes=MESSAGE_MAX_BYTES,
        )
        self.once = Deduplicator(publisher=publisher, known_ids=self.known_ids, deadline_s=DEADLINE_S)
        for entry in spool.entries:
            self.writers.recovered(entry)


class Durability(RuleBasedStateMachine):
    """A sender, a bridge, and everything that goes wrong around them."""

    @initialize()
    def begin(self) -> None:
        self.loop = VirtualLoop()
        self.kafka = MoodyKafka()
        self.spool = FakeSpool(peek_max=BATCH_MAX)
        self.unread: list[Entry] = []
        self.sent: list[Sent] = []
        self.moments = 0
        self.lives = 0
        self.loop.run(self._live())
        self.topics_are_read()

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=6))
    def send(self, keys: list[str]) -> None:
        """New events; the sender does not wait for what became of the one before."""
        for key in keys:
            self.moments += 1
            self.sent.append(Sent(f"e{len(self.sent)}", key, self.moments))
            self._deliver(self.sent[-1])

    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        """Retries, whatever the sender was told."""
        if self.sent:
            for one in data.draw(st.lists(st.sampled_from(self.sent), max_size=4)):
                self._deliver(one)

    @rule(mood=st.sampled_from(get_args(Mood)))
    def kafka_changes(self, mood: Mood) -> None:
        self.kafka.mood = mood

    @rule(change=st.sampled_from(["well", "full", "io_error", "fails", "slow", "stalled", "unreadable"]))
    def disk_changes(self, change: str) -> None:
        """It is known to take nothing, the next writes fail, nothing is heard of them, or nothing is given back.

        What is `slow` hangs; the spool knows it when it is `stalled`, and takes nothing more until it has gone on.
        """
        self.spool.unreadable = change == "unreadable"
        self.spool.code = change if change in {"full", "io_error", "stalled"} else ""
        self.spool.failure = "io_error" if change == "fails" else None
        if change in {"slow", "stalled"}:
            self.spool.hold()
        else:
            self.spool.flow()

    @rule(seconds=st.sampled_from([0.01, 0.5, 2.5, 5.0, 25.0]))
    def time_passes(self, seconds: float) -> None:
        self.loop.run(asyncio.sleep(seconds))

    @rule(
        orderly=st.booleans(), read=st.sampled_from([True, True, False]), disk_read=st.sampled_from([True, True, False])
    )
    def begins_anew(self, orderly: bool, read: bool, disk_read: bool) -> None:  # noqa: FBT001 - values of strategies
        """SIGKILL: what waited, was in flight or on its way to the disk is gone; or SIGTERM; then a start.

        What the disk holds may be beyond reach for now.
        """
        if orderly:
            mood = self.kafka.mood
            self.loop.run(self.life.writers.close(10))
            self.kafka.mood = mood
        self.loop.run(self._die())
        if not disk_read:
            self.unread += self.spool.entries
            self.spool.kept.clear()
        self.loop.run(self._live())
        if read:
            self.topics_are_read()

    @rule()
    def disk_finds_the_rest(self) -> None:
        self.loop.run(self._find())

    @rule()
    def topics_are_read(self) -> None:
        for record in self._records():
            self.life.known_ids.recalled(identity_in(record), self.loop.time())
        self.life.known_ids.finished = True

    @invariant()
    def nothing_is_forged(self) -> None:
        if hasattr(self, "sent"):
            assert {identity_in(record).id for record in self._records()} <= {one.id for one in self.sent}

    def teardown(self) -> None:
        """Heal everything, let it drain, then hold the bridge to what it has said."""
        if not hasattr(self, "loop"):
            return
        self.kafka.mood, self.spool.code, self.spool.failure = "well", "", None
        self.spool.unreadable = False
        self.spool.flow()
        self.topics_are_read()
        self.disk_finds_the_rest()
        # A write in flight is given up, and a drain tries again at once or at most 5 s later.
        self.loop.run(asyncio.sleep(2 * GIVEN_UP_S))
        try:
            self._judge()
        finally:
            self.loop.run(self.life.writers.close(1))
            self.loop.run(self._die())
            self.loop.close()

    def _judge(self) -> None:
        assert not self.spool.entries, "left on disk"
        assert not self.life.writers.spooling
        firsts: defaultdict[str, list[str]] = defaultdict(list)
        for record in self._records():
            name, seen = identity_in(record).id, firsts[record.key.decode()]
            if name not in seen:
                seen.append(name)
        for one in self.sent:
            assert one.promised is None or one.id in firsts[one.key], f"lost: {one}"
            assert all(answers.count("accepted") <= 1 for answers in one.answers.values()), f"accepted twice: {one}"
        for first, second in itertools.permutations(self.sent, 2):
            if first.id in second.unseen:
                continue
            if first.key == second.key and first.promised is not None and first.promised < second.began:
                seen = firsts[first.key]
                assert second.id not in seen or seen.index(first.id) < seen.index(second.id), f"{second} before {first}"

    def _deliver(self, one: Sent) -> None:
        one.unseen |= {from_entry(each).identity.id for each in self.unread}
        self.loop.run(self._begin(one, self.life, self.lives))

    async def _begin(self, one: Sent, life: Life, number: int) -> None:
        self.tasks.add(asyncio.create_task(self._told(one, life, number)))
        await asyncio.sleep(0)

    async def _told(self, one: Sent, life: Life, number: int) -> None:
        event = an_event(id=one.id, key=one.key, source=SOURCE)
        try:
            outcome: str = await life.once.take(
                a_delivery(one.id.encode(), id=one.id), (event,), ends_at=life.once.ends_at()
            )
        except NotDurableError:
            outcome = "unavailable"
        one.answers[number].append(outcome)
        self.moments += 1
        if outcome != "unavailable" and one.promised is None:
            one.promised = self.moments

    async def _live(self) -> None:
        self.lives += 1
        self.tasks: set[asyncio.Task[None]] = set()
        self.life = Life(self.kafka, self.spool, self.loop, first_ordinal=self.lives * 1_000_000)

    async def _find(self) -> None:
        for entry in self.unread:
            self.spool.kept[entry.partition].append(entry)
            self.life.writers.recovered(entry)
        self.unread.clear()

    async def _die(self) -> None:
        others = asyncio.all_tasks(self.loop) - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self.spool.forget_unfinished()

    def _records(self) -> list[Record]:
        return [record for records in self.kafka.log.values() for record in records]


Durability.TestCase.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
TestEveryPromiseIsKept = Durability.TestCase
