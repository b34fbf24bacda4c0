"""Fakes of the interfaces; a suite in tests/contract runs on each fake and on the real implementation."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from bridge.errors import NotDurableError, RecordRefusedError
from bridge.event import Identity, Settled
from bridge.kafka.record import Record
from bridge.known.known_ids import KnownIds
from bridge.spool.segment import Entry

if TYPE_CHECKING:  # a fake must have the signatures of what it stands for, and nothing of it besides
    from bridge.kafka.producer import KafkaProducer as Producer
    from bridge.spool.store import Spool
else:
    Producer = Spool = object


class FakeProducer(Producer):
    """Kafka in memory; every write fails with the code `failure`, and with `refusal` for what is `too_large`."""

    def __init__(self, topics: dict[str, int], *, batch_max: int = 100) -> None:
        self.topics, self.batch_max = topics, batch_max
        self.log: defaultdict[tuple[str, int], list[Record]] = defaultdict(list)
        self.batches: list[int] = []
        self.too_large: Callable[[Record], bool] = lambda _: False
        self.refusal = RecordRefusedError("record_too_large", size=1_048_589)
        self.failure: str | None = None
        self.connected, self.closed = True, False
        self._writing = asyncio.Semaphore(0)
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._in_flight: set[asyncio.Task[Literal[True]]] = set()

    @property
    def ready(self) -> bool:
        return self.connected and not self.closed

    @property
    def records(self) -> list[Record]:
        return [record for records in self.log.values() for record in records]

    def hold(self) -> None:
        """Leave every write without a response until `flow`."""
        self._flowing.clear()

    def flow(self) -> None:
        self._flowing.set()

    async def wait_for_write(self) -> None:
        """Return when one more write has been handed over."""
        await self._writing.acquire()

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        if not self.ready:
            raise NotDurableError("kafka_unavailable")
        if not 0 <= partition < self.topics.get(topic, 0):
            raise NotDurableError("topic_missing")
        batch = records[: self.batch_max]
        self._writing.release()
        await self._answer()
        if self.failure is not None:
            raise NotDurableError(self.failure)
        if any(map(self.too_large, batch)):
            raise self.refusal
        self.log[topic, partition].extend(batch)
        self.batches.append(len(batch))
        return len(batch)

    async def close(self, timeout_s: float) -> None:
        """Wait for the writes in flight; the outcome of those without a response is unknown."""
        self.closed = True
        if self._in_flight:
            await asyncio.wait(self._in_flight, timeout=timeout_s)
        for waiting in self._in_flight:
            waiting.cancel()

    async def _answer(self) -> None:
        waiting = asyncio.ensure_future(self._flowing.wait())
        self._in_flight.add(waiting)
        try:
            await asyncio.wait({waiting})
        finally:
            self._in_flight.discard(waiting)
        if waiting.cancelled():
            raise NotDurableError("outcome_unknown")


class FakeSpool(Spool):
    """A spool in memory; `code` is the reason for accepting nothing, `failure` the code of every `append`."""

    code = ""

    def __init__(self) -> None:
        """Begin empty; every call returns at once until `hold`, and `peek` returns at most `peek_max`."""
        self.peek_max = 1000
        self.kept: defaultdict[tuple[str, int], list[Entry]] = defaultdict(list)
        self.failure: str | None = None
        self.refused = 0
        self.unreadable = False
        self.aside: list[Entry] = []
        self._held: list[tuple[Sequence[Entry], asyncio.Future[None]]] | None = None

    @property
    def entries(self) -> list[Entry]:
        return [entry for entries in self.kept.values() for entry in entries]

    def hold(self) -> None:
        """Block every call of `append` until `flow`."""
        self._held = self._held or []

    def flow(self) -> None:
        held, self._held = self._held or [], None
        for entries, future in held:
            self._settle(entries, future)

    def depth(self, partition: tuple[str, int]) -> int:
        return len(self.kept[partition])

    async def set_aside(self, partition: tuple[str, int], *, code: str) -> bool:
        del code
        self.aside.append(self.kept[partition].pop(0))
        return True

    async def append(self, entries: Sequence[Entry]) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._held is None:
            self._settle(entries, future)
        else:
            self._held.append((entries, future))
        await future

    async def peek(self, partition: tuple[str, int], *, most: int, most_bytes: int) -> list[Entry]:
        del most_bytes
        return [] if self.unreadable else self.kept[partition][: min(most, self.peek_max)]

    def acknowledge(self, partition: tuple[str, int], count: int) -> None:
        assert count <= len(self.kept[partition])
        del self.kept[partition][:count]

    def _settle(self, entries: Sequence[Entry], future: asyncio.Future[None]) -> None:
        if self.failure is not None:
            self.refused += 1
            future.set_exception(NotDurableError(self.failure))
            return
        for entry in entries:
            self.kept[entry.partition].append(entry)
        future.set_result(None)


class FakeKnownIds(KnownIds):
    """Remembers ids, in order."""

    def __init__(self) -> None:
        super().__init__(windows_s={}, capacity=1)
        self.finished = True
        self.told: list[tuple[str, Settled]] = []
        self.committed: set[str] = set()
        self.others: set[str] = set()  # ids that are in the topic with another body

    def in_topic(self, identity: Identity) -> bool | None:
        return True if identity.id in self.committed else False if identity.id in self.others else None

    def settled(self, identity: Identity, state: Settled) -> None:
        """Keep it; committed ids are in their topic."""
        self.told.append((identity.id, state))
        if state == "committed":
            self.committed.add(identity.id)
