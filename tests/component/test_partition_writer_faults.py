"""Whatever is raised at whichever await of a partition's task, the partition goes on, and every promise is kept."""

import asyncio
from collections.abc import Callable, Sequence

import pytest

from bridge.errors import NotDurableError
from bridge.event import Durable, Identity, Settled
from bridge.kafka import partition_writer
from bridge.kafka.partition_writer import PartitionWriter
from bridge.kafka.record import Record
from bridge.spool.segment import Entry
from tests.component.test_partition_writer import TOPIC, Subject
from tests.fakes import FakeKnownIds, FakeProducer, FakeSpool
from tests.faulty_awaits import FaultyTasks, awaits_of
from tests.waiting import HANG_S, until

pytestmark = pytest.mark.virtual_time

AWAITS = sorted(
    awaits_of(
        PartitionWriter._run,
        PartitionWriter._write,
        PartitionWriter._reconcile,
        PartitionWriter._drain,
        PartitionWriter._drain_refused,
        PartitionWriter._put,
    )
)
# Of a delivery under whatever fault: sooner or later it is answered.
DEADLINE_S = 2.0


class CountingSpool(FakeSpool):
    """A disk that takes a turn of the loop to answer, and counts how often it is asked."""

    asked = read = unkept = 0

    def depth(self, partition: tuple[str, int], /) -> int:
        self.asked += 1
        return super().depth(partition)

    async def set_aside(self, partition: tuple[str, int], /, *, code: str) -> bool:
        del partition, code
        self.unkept += 1
        await asyncio.sleep(0)
        return False

    async def peek(self, partition: tuple[str, int], /, *, most: int, most_bytes: int) -> list[Entry]:
        self.read += 1
        await asyncio.sleep(0)
        return await super().peek(partition, most=most, most_bytes=most_bytes)


class CountingKnownIds(FakeKnownIds):
    """Counts how often it is asked whether a drain may begin."""

    asked = 0

    @property
    def finished(self) -> bool:
        self.asked += 1
        return self._finished

    @finished.setter
    def finished(self, finished: bool) -> None:
        self._finished = finished


class CountingProducer(FakeProducer):
    """Counts how often it is asked to write."""

    asked = 0

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        self.asked += 1
        return await super().write(topic, partition, records)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partition_writer, "FAULT_PAUSE_S", 0.01)
    monkeypatch.setattr(partition_writer, "RETRY_FIRST_S", 0.01)


class Sender:
    def __init__(self, *, spool: CountingSpool | None = None, known_ids: CountingKnownIds | None = None) -> None:
        self.spool = spool or CountingSpool()
        self.known_ids = CountingKnownIds() if known_ids is None else known_ids
        self.producer = CountingProducer({TOPIC: 12})
        self.subject = Subject(
            spool_after_s=0.05,
            deadline_s=DEADLINE_S,
            set_aside_after_s=0.0,
            producer=self.producer,
            spool=self.spool,
            known_ids=self.known_ids,
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
    """Take every way that a partition knows: direct, over the disk, late acknowledgements, drains that fail or wait.

    What is counted twice more has been suspended, and has gone on, in between.
    """
    producer, spool, known_ids = sender.producer, sender.spool, sender.known_ids
    await _direct(sender)
    # An outage that nobody needs to find out about; its drain waits for the topics, for the disk, for Kafka.
    producer.connected = False
    sender.send()
    await sender.answered()
    known_ids.finished = False
    producer.connected = True
    await _twice_more(lambda: known_ids.asked)
    spool.unreadable, known_ids.finished = True, True
    await _twice_more(lambda: spool.read)
    producer.failure, spool.unreadable = "kafka_unavailable", False
    await _twice_more(lambda: producer.asked)
    producer.failure, producer.too_large = None, lambda _: True
    await _twice_more(lambda: spool.unkept)
    producer.too_large = lambda _: False
    await _direct(sender)
    # One whose first delivery is in flight, and is acknowledged late while the disk takes its time with the next.
    producer.hold()
    first = sender.send()
    asked = producer.asked
    await until(lambda: producer.asked > asked or first.done())
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
    waiting = sender.send()
    asked = spool.asked
    await until(lambda: spool.asked > asked + 1 or waiting.done())
    spool.flow()
    producer.connected = True
    await _direct(sender)


async def _twice_more(count: Callable[[], int]) -> None:
    before = count()
    await until(lambda: count() > before + 1)


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


class ForgetfulKnownIds(CountingKnownIds):
    """Raises at every second call or so."""

    def settled(self, identity: Identity, state: Settled) -> None:
        super().settled(identity, state)
        if len(self.told) % 2:
            raise TypeError

    def committed_before(self, identity: Identity) -> bool:
        if len(self.told) % 5 == 0:
            self.told.append((identity.id, "failed"))
            raise TypeError
        return super().committed_before(identity)


class RaisingSpool(CountingSpool):
    """Raises at every third call, at once instead of by its future."""

    calls = 0

    def append(self, entries: Sequence[Entry], /) -> asyncio.Future[None]:
        self.calls += 1
        if self.calls % 3 == 0:
            raise TypeError
        return super().append(entries)


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
