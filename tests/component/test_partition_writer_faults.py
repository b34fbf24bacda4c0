"""After an exception at any await of a partition's task, the partition continues, and every promise holds."""

import asyncio
from collections.abc import Sequence

import pytest

from bridge.errors import NotDurableError
from bridge.event import Durable, Identity, Settled
from bridge.kafka import partition_writer
from bridge.kafka.partition_writer import PartitionWriter
from bridge.spool.segment import Entry
from tests.component.test_partition_writer import Subject
from tests.fakes import FakeKnownIds, FakeSpool
from tests.faulty_awaits import FaultyTasks, awaits_of
from tests.waiting import HANG_S, until

pytestmark = pytest.mark.virtual_time

AWAITS = sorted(
    awaits_of(
        PartitionWriter._run,
        PartitionWriter._write,
        PartitionWriter._drain,
        PartitionWriter._drain_refused,
        PartitionWriter._put,
    )
)
# Of a delivery under whatever fault: sooner or later it is answered.
DEADLINE_S = 2.0
# Long enough to look, and to look many times, at what is in the way; the clock jumps.
A_LOOK_S, MANY_LOOKS_S = 0.02, 3.0


class SlowSpool(FakeSpool):
    """A disk that responds after one turn of the loop, and sets no records aside."""

    async def set_aside(self, partition: tuple[str, int], /, *, code: str) -> bool:
        del partition, code
        await asyncio.sleep(0)
        return False

    async def peek(self, partition: tuple[str, int], /, *, most: int, most_bytes: int) -> list[Entry]:
        await asyncio.sleep(0)
        return await super().peek(partition, most=most, most_bytes=most_bytes)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_writer, "FAULT_PAUSE_S", 0.01)
    monkeypatch.setattr(partition_writer, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(partition_writer, "RETRY_MAX_S", 0.1)


class Sender:
    def __init__(self, *, spool: FakeSpool | None = None, known_ids: FakeKnownIds | None = None) -> None:
        self.subject = Subject(
            spool_after_s=0.05,
            deadline_s=DEADLINE_S,
            set_aside_after_s=0.0,
            spool=spool or SlowSpool(),
            known_ids=known_ids,
        )
        self.sent: dict[str, asyncio.Future[Durable]] = {}

    def send(self) -> asyncio.Future[Durable]:
        name = f"e{len(self.sent)}"
        try:
            (self.sent[name],) = self.subject.send(name)
        except NotDurableError as exc:
            self.sent[name] = asyncio.get_running_loop().create_future()
            self.sent[name].set_exception(exc)
        return self.sent[name]

    async def answered(self) -> None:
        await until(lambda: all(each.done() for each in self.sent.values()))

    @property
    def promised(self) -> list[str]:
        return [name for name, sent in self.sent.items() if sent.exception() is None]


async def take_every_way(sender: Sender) -> None:
    """Take every way that a partition knows: direct, over the disk, late acknowledgements, drains that fail or wait."""
    producer, spool, known_ids = sender.subject.producer, sender.subject.spool, sender.subject.known_ids
    await _direct(sender)
    # An outage that nobody needs to find out about; its drain waits for the topics, for the disk, for Kafka,
    # and finds another body in the topic.
    producer.connected = False
    sender.send()
    await sender.answered()
    known_ids.finished = False
    known_ids.others.update(sender.sent)
    producer.connected = True
    await asyncio.sleep(MANY_LOOKS_S)
    spool.unreadable, known_ids.finished = True, True
    await asyncio.sleep(MANY_LOOKS_S)
    producer.failure, spool.unreadable = "kafka_unavailable", False
    await asyncio.sleep(MANY_LOOKS_S)
    producer.failure, producer.too_large = None, lambda _: True
    await asyncio.sleep(MANY_LOOKS_S)
    producer.too_large = lambda _: False
    await _direct(sender)
    # One whose first delivery is in flight, and is acknowledged late while the disk takes its time with the next.
    producer.hold()
    first = sender.send()
    await asyncio.sleep(A_LOOK_S)
    spool.hold()
    sender.send()
    await until(lambda: sender.subject.writers.spooling or first.done())
    producer.flow()
    await until(first.done)
    spool.flow()
    await _direct(sender)
    # What comes first finds only the disk, which takes its time.
    producer.connected = False
    spool.hold()
    sender.send()
    await asyncio.sleep(A_LOOK_S)
    spool.flow()
    producer.connected = True
    await _direct(sender)


async def _direct(sender: Sender) -> None:
    """Send until one is acknowledged by Kafka, with nothing on disk any more."""
    while (sent := sender.send()) is not None:
        await sender.answered()
        if not sent.exception() and sent.result() == "committed":
            break
        await asyncio.sleep(0.01)
    await until(lambda: not sender.subject.spool.entries and not sender.subject.writers.spooling)


def check(sender: Sender) -> None:
    firsts = list(dict.fromkeys(sender.subject.written))
    assert [each for each in firsts if each in sender.promised] == sender.promised
    assert sender.subject.writers.records == sender.subject.writers.bytes == 0
    assert not sender.subject.writers.blocked


@pytest.mark.parametrize("exc", [TypeError, asyncio.CancelledError])
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("at", AWAITS, ids=lambda at: f"{at[0]}:{at[1]}")
async def test_it_survives_whatever_is_raised_at_an_await(
    at: tuple[str, int], nth: int, exc: type[BaseException]
) -> None:
    tasks = FaultyTasks(PartitionWriter._run, at, exc(), nth=nth)
    asyncio.get_running_loop().set_task_factory(tasks)
    sender = Sender()

    async with asyncio.timeout(HANG_S):
        await take_every_way(sender)

    assert tasks.raised or nth > 1
    check(sender)
    await sender.subject.writers.close(1)


class ForgetfulKnownIds(FakeKnownIds):
    """Raises at every second call or so."""

    def settled(self, identity: Identity, state: Settled) -> None:
        super().settled(identity, state)
        if len(self.told) % 2:
            raise TypeError

    def in_topic(self, identity: Identity) -> bool | None:
        if len(self.told) % 5 == 0:
            self.told.append((identity.id, "failed"))
            raise TypeError
        return super().in_topic(identity)


class RaisingSpool(SlowSpool):
    """Raises at every third call."""

    calls = 0

    async def append(self, entries: Sequence[Entry], /) -> None:
        self.calls += 1
        if self.calls % 3 == 0:
            raise TypeError
        await super().append(entries)


async def test_it_survives_whatever_its_known_ids_and_its_disk_raise() -> None:
    sender = Sender(spool=RaisingSpool(), known_ids=ForgetfulKnownIds())

    async with asyncio.timeout(2 * HANG_S):
        await take_every_way(sender)
        for _ in range(5):
            sender.subject.producer.connected = False
            sender.send()
            await sender.answered()
            sender.subject.producer.connected = True
            await _direct(sender)

    check(sender)
    await sender.subject.writers.close(1)
