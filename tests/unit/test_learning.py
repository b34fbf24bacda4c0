"""Asking the registry for schemas that records name: how long to wait for an unknown id, and how many at a time."""

from __future__ import annotations

import asyncio

from bridge.avro.codec import UNKNOWN_SCHEMA_ID
from bridge.errors import DecodeError, TransientError
from bridge.event import Event
from bridge.kafka.transport import ConsumedRecord
from consumers.runtime.failure import Failure
from consumers.runtime.sorting import ASKING_MAX, UNKNOWN_GRACE_S, Asking, Learner

RECORD = ConsumedRecord("drx.prescriptions.v1", 0, 0, 0, b"rx", b"\0\0\0\0\7\0", [])


class Registry:
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


async def asked(learner: Learner, asking: Asking) -> float | Failure:
    """Ask, and let the question be answered."""
    answer = learner.ask(asking, RECORD)
    assert asking.task is not None
    await asyncio.wait([asking.task])
    return answer


async def test_an_unknown_id_is_a_failure_only_after_the_grace_and_asked_for_less_and_less() -> None:
    now = [0.0]
    learner, asking = Learner(Registry(), clock=lambda: now[0]), Asking()
    answers = []
    while not isinstance(answer := await asked(learner, asking), Failure):
        answers.append(answer)
        now[0] += answer

    assert answers == [1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0, 15.0]


async def test_silence_does_not_count_towards_the_grace() -> None:
    now = [0.0]
    registry = Registry()
    registry.answer = TransientError("registry_unreachable", systemic=True)
    learner, asking = Learner(registry, clock=lambda: now[0]), Asking()
    await asked(learner, asking)
    registry.answer, now[0] = DecodeError(UNKNOWN_SCHEMA_ID), UNKNOWN_GRACE_S + 1
    await asked(learner, asking)

    assert isinstance(learner.ask(asking, RECORD), float)
    await learner.end()


async def test_a_flood_of_made_up_ids_is_a_few_requests_at_a_time() -> None:
    registry = Registry()
    registry.answering.clear()
    learner = Learner(registry)
    for _ in range(100):
        learner.ask(Asking(), RECORD)
    for _ in range(10):
        await asyncio.sleep(0)
    await learner.end()

    assert registry.asked == ASKING_MAX
