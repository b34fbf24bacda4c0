"""What a delivery that comes again is answered and what of it is written, over a real socket.

All between the socket and Kafka is real; Kafka and the disk are fakes that keep what they are given.
"""

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client import Counter as Metric

from bridge.avro.codec import Codec
from bridge.avro.schema_ids import RECORDS
from bridge.ingress.deduplicator import Deduplicator
from bridge.kafka.accepted import from_entry
from bridge.kafka.partition_writer import PartitionWriters, WriterLimits
from bridge.kafka.publisher import Publisher
from bridge.kafka.record import MESSAGE_MAX_BYTES, MESSAGE_MAX_LEAST_BYTES
from bridge.kafka.routing import RoutingTable
from bridge.known.known_ids import KnownIds
from bridge.registry.loader import bundled
from tests.builders import a_body, a_growing_body, signed_headers
from tests.component.test_ingress import Ingress, running
from tests.fakes import FakeProducer, FakeSpool
from tests.unit.mapping_files import compiled
from tests.unit.test_mapped_batches import WITH_ID
from tests.waiting import until

State = Literal["pending", "spooled", "committed"]
Answer = tuple[int, dict[str, Any]]

PARTITIONS = 12
WINDOW_S = 3600.0
# Never reached unless a test is about the deadline.
LONG_S = 60.0
BODY = a_body()
OTHER = a_body(account_id="acct_other")
ACCEPTED = (200, {"outcome": "accepted", "id": "evt_1"})
DUPLICATE = (200, {"outcome": "duplicate", "id": "evt_1"})
SPOOLED = (202, {"outcome": "spooled", "id": "evt_1"})
UNAVAILABLE = (503, {"outcome": "unavailable", "code": "deadline"})


def parked(reason: str, field: str = "") -> Answer:
    where = {"field": field} if field else {}
    return 202, {"outcome": "parked", "id": "evt_1", "reason": reason, **where}


CONFLICT = parked("id_conflict")


@dataclass
class Wired:
    ingress: Ingress
    producer: FakeProducer
    spool: FakeSpool
    known_ids: KnownIds
    clock: list[float]
    writers: PartitionWriters
    once: Deduplicator

    def be_patient(self) -> None:
        self.writers.limits = WriterLimits(deadline_s=LONG_S, spool_after_s=LONG_S)
        self.once.deadline_s = LONG_S

    async def post(self, body: bytes = BODY, *, webhook_id: str = "evt_1") -> Answer:
        return await self.ingress.post(body, webhook_id=webhook_id)

    def send(self, body: bytes = BODY) -> asyncio.Task[Answer]:
        return asyncio.create_task(self.post(body))

    async def until_waiting(self, count: int) -> None:
        """Wait until `count` deliveries wait for the end of another one."""
        await until(lambda: sum(len(each.waiting) for each in self.known_ids._pending.values()) == count)

    async def bring(self, state: State) -> asyncio.Task[Answer]:
        """Deliver once, and leave it in this state."""
        if state == "spooled":
            self.producer.connected = False
        if state == "pending":
            self.producer.hold()
        first = self.send()
        if state == "pending":
            await self.producer.wait_for_write()
        else:
            await first
        return first

    def written(self) -> Counter[tuple[str, str]]:
        return Counter(_kind(record.headers) for record in self.producer.records)

    def kept(self) -> Counter[tuple[str, str]]:
        return Counter(_kind(from_entry(entry).record.headers) for entry in self.spool.entries)


def _kind(headers: list[tuple[str, bytes]]) -> tuple[str, str]:
    """Reason of a parked delivery or `event`, and id."""
    found = dict(headers)
    return found.get("drx_reason", b"event").decode(), found["ce_id"].decode()


@contextlib.asynccontextmanager
async def wired(
    *, profile: Any = None, deadline_s: float = LONG_S, message_max_bytes: int = MESSAGE_MAX_BYTES
) -> AsyncIterator[Wired]:
    clock = [1_700_000_000.0]
    known_ids = KnownIds(windows_s={"drx": WINDOW_S}, capacity=1000, now=lambda: clock[0])
    known_ids.finished = True
    producer, spool = FakeProducer(dict.fromkeys(RoutingTable().topics, PARTITIONS)), FakeSpool()
    writers = PartitionWriters(
        producer=producer,
        spool=spool,
        known_ids=known_ids,
        late_acks=Metric("late", "late", registry=CollectorRegistry()),
        limits=WriterLimits(deadline_s=deadline_s, spool_after_s=LONG_S),
    )
    lock = bundled()
    publisher = Publisher(
        writers=writers,
        encode=Codec(schemas=lock.schemas(), ids=lock.ids()).encode,
        schemas=RECORDS,
        routing=RoutingTable(),
        partitions=PARTITIONS,
        instance="pod-1",
        ordinals=itertools.count(1),
        message_max_bytes=message_max_bytes,
    )
    once = Deduplicator(publisher=publisher, known_ids=known_ids, deadline_s=deadline_s)
    async with running(profile=profile, deduplicator=once) as ingress:
        yield Wired(ingress, producer, spool, known_ids, clock, writers, once)
        producer.flow()
    await publisher.writers.close(5)


@pytest.fixture
async def at() -> AsyncIterator[Wired]:
    async with wired() as one:
        yield one


@pytest.mark.parametrize("body", [BODY, OTHER], ids=["same body", "another body"])
@pytest.mark.parametrize("state", ["pending", "spooled", "committed"])
async def test_what_comes_again_is_answered_as_the_first_ended_and_written_once(
    at: Wired, state: State, body: bytes
) -> None:
    first = await at.bring(state)
    again = [at.send(body) for _ in range(3)]
    if state == "pending":
        await at.until_waiting(3)
        assert at.written() == {}
        at.producer.flow()
    answers = [await each for each in again]

    spooled = state == "spooled"
    assert await first == (SPOOLED if spooled else ACCEPTED)
    assert answers == [CONFLICT if body == OTHER else SPOOLED if spooled else DUPLICATE] * 3
    found = at.kept() if spooled else at.written()
    assert found == Counter([("event", "evt_1"), *[("id_conflict", "evt_1")] * (body == OTHER)])
    if spooled:
        at.clock[0] += 100 * WINDOW_S
        assert await at.post() == SPOOLED
        at.once.spooled_is_durable = lambda: False  # a start found it, and the disk fails
        assert await at.post() == (503, {"outcome": "unavailable", "code": "spool_unavailable"})
        at.producer.connected = True
        await until(lambda: not at.spool.entries)
    assert await at.post() == DUPLICATE


async def test_a_late_acknowledgement_makes_the_retry_a_duplicate() -> None:
    """The write outlived its deadline: unknown is not failed."""
    async with wired(deadline_s=0.2) as at:
        at.spool.code = "disabled"
        first = await at.bring("pending")
        assert await first == UNAVAILABLE
        assert await at.post() == UNAVAILABLE  # still unknown, so it was not written again

        at.be_patient()
        at.producer.flow()
        await until(lambda: bool(at.written()))

        assert await at.post() == DUPLICATE
        assert await at.post(OTHER) == CONFLICT
        assert at.written() == {("event", "evt_1"): 1, ("id_conflict", "evt_1"): 1}


async def test_a_conflict_is_parked_byte_for_byte_and_once_and_the_first_body_stands(at: Wired) -> None:
    await at.bring("committed")

    third = a_body(account_id="acct_third")
    answers = [await at.post(body) for body in (OTHER, OTHER, third, OTHER, third, BODY)]

    assert answers == [CONFLICT] * 5 + [DUPLICATE]
    assert at.written() == {("event", "evt_1"): 1, ("id_conflict", "evt_1"): 2}
    kept = [each for each in at.producer.records if each.topic == "drx.unrecognized.v1"]
    assert all(body in (each.value or b"") for body, each in zip((OTHER, third), kept, strict=True))
    assert [each.key for each in kept] == [b"rx_1"] * 2
    assert at.ingress.metrics.registry.get_sample_value("drxbridge_id_conflicts_total", {"source": "drx"}) == 2


@pytest.mark.parametrize(
    ("body", "headers", "answer"),
    [
        (OTHER, {"webhook-signature": "v1,AAAA"}, (401, {"outcome": "refused", "code": "signature_mismatch"})),
        (OTHER + b",", {}, parked("malformed_json")),
        (a_body(type="prescription unheard of"), {}, parked("unknown_type", "/type")),
        (a_body(environment="production"), {}, parked("environment_mismatch", "/environment")),
        (a_body(timestamp="yesterday"), {}, parked("unusable", "/timestamp")),
    ],
)
async def test_the_identity_is_looked_at_last(at: Wired, body: bytes, headers: dict[str, str], answer: Answer) -> None:
    """All these come under an id that is known with another body."""
    await at.bring("committed")

    assert await at.ingress.post(body, headers=signed_headers(body) | headers) == answer


async def test_what_becomes_larger_than_a_topic_takes_is_parked_as_it_came_and_blocks_nothing() -> None:
    """Taken as an event, it and all behind it would wait for ever."""
    body = a_growing_body(262_144)
    async with wired(message_max_bytes=MESSAGE_MAX_LEAST_BYTES) as at:
        assert [await at.post(body), await at.post(body)] == [parked("unusable")] * 2
        assert await at.post(a_growing_body(100_000, id="evt_2"), webhook_id="evt_2") == (
            200,
            {"outcome": "accepted", "id": "evt_2"},
        )

        assert at.written() == {("unusable", "evt_1"): 1, ("event", "evt_2"): 1}
        (kept,) = (record for record in at.producer.records if _kind(record.headers) == ("unusable", "evt_1"))
        value = Codec(schemas=bundled().schemas(), ids=bundled().ids()).decode(kept.value or b"", kept.headers).value
        assert (value["detail"], value["field"], value["body"], kept.key) == ("too_large", "", body, b"rx_1")


FACTS = [{"no": f"f{number}", "type": "P", "rx": str(number % 3)} for number in range(10)]


async def test_a_fact_in_another_batch_is_a_repeat_and_the_rest_of_the_batch_is_taken() -> None:
    def batch(*facts: dict[str, str], **around: str) -> bytes:
        return orjson.dumps({"events": facts, **around})

    async with wired(profile=compiled(WITH_ID)) as at:
        nine = await at.post(batch(*FACTS[:9]), webhook_id="b1")
        assert (nine[1]["outcome"], at.written().total()) == ("accepted", 9)
        ten = await at.post(batch(*FACTS[::-1], sent="later"), webhook_id="b2")
        assert (ten[1]["outcome"], at.written().total()) == ("accepted", 10)
        assert set(at.written().values()) == {1}
        turned = await at.post(batch(FACTS[7], FACTS[2]), webhook_id="b3")
        alone = await at.post(orjson.dumps({"events": FACTS[9]}), webhook_id="b4")
        assert [answer[1]["outcome"] for answer in (turned, alone)] == ["duplicate"] * 2
        other = await at.post(batch(FACTS[0], FACTS[1] | {"note": "x"}), webhook_id="b5")
        assert (other[1]["reason"], at.written().total()) == ("id_conflict", 11)


async def test_an_element_in_conflict_keeps_no_other_from_being_an_event() -> None:
    batch = orjson.dumps({"events": [FACTS[0], FACTS[1] | {"note": "x"}, FACTS[2], FACTS[5]]})
    async with wired(profile=compiled(WITH_ID)) as at:
        await at.post(orjson.dumps({"events": FACTS[:2]}), webhook_id="b1")
        for _ in range(2):
            answer = await at.post(batch, webhook_id="b2")
            assert (answer[0], answer[1]["reason"]) == (202, "id_conflict")

        written = [(_kind(record.headers), dict(record.headers).get("ce_id")) for record in at.producer.records]
        own = [event_id for (kind, _), event_id in written if kind == "event"]
        assert own == [f"f{number}/prescription.updated".encode() for number in (0, 1, 2, 5)]
        assert at.written()["id_conflict", "b2"] == 1
