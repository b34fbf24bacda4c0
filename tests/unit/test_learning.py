"""Requests to the registry for unknown schemas: waiting times and concurrency."""

import asyncio

from bridge.avro.codec import UNKNOWN_SCHEMA_ID
from bridge.avro.event_decoder import EventDecoder
from bridge.errors import DecodeError, TransientError
from bridge.event import Event
from bridge.kafka.consumed_record import ConsumedRecord
from consumers.runtime.decoding import ASKING_MAX, UNKNOWN_GRACE_S, Learner
from consumers.runtime.retry_policy import Failure

RECORD = ConsumedRecord("drx.prescriptions.v1", 0, 0, 0, b"rx", b"\0\0\0\0\7\0", [])


class Registry(EventDecoder):
    """Answers every question the same way, when it answers."""

    def __init__(self) -> None:
        self.answer: Exception = DecodeError(UNKNOWN_SCHEMA_ID)
        self.answering = asyncio.Event()
        self.answering.set()
        self.asked = 0

    def decode(self, record: ConsumedRecord) -> Event:
        raise AssertionError(record)

    async def learn(self, record: ConsumedRecord) -> None:
        del record
        self.asked += 1
        await self.answering.wait()
        raise self.answer


async def test_an_unknown_id_is_a_failure_only_after_the_grace_and_asked_for_less_and_less() -> None:
    now, pauses = [0.0], []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        now[0] += pause_s

    failure = await Learner(Registry(), clock=lambda: now[0], sleep=sleep).learn(RECORD)

    assert failure == Failure("poison", UNKNOWN_SCHEMA_ID)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


async def test_silence_does_not_count_towards_the_grace() -> None:
    now, pauses = [0.0], []
    registry = Registry()
    registry.answer = TransientError("registry_unreachable", systemic=True)

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)
        now[0] += UNKNOWN_GRACE_S / 2
        registry.answer = DecodeError(UNKNOWN_SCHEMA_ID)

    await Learner(registry, clock=lambda: now[0], sleep=sleep).learn(RECORD)

    assert len(pauses) == 3


async def test_a_flood_of_made_up_ids_is_a_few_requests_at_a_time() -> None:
    registry = Registry()
    registry.answering.clear()
    learner = Learner(registry)
    asking = [asyncio.create_task(learner.learn(RECORD)) for _ in range(100)]
    for _ in range(10):
        await asyncio.sleep(0)
    for each in asking:
        each.cancel()

    assert registry.asked == ASKING_MAX
