"""Asking the registry for schemas that records name: how long to wait for an unknown id, how many to remember."""

from __future__ import annotations

import asyncio

from bridge.avro.codec import UNKNOWN_SCHEMA_ID
from bridge.errors import DecodeError, TransientError
from bridge.event import Event
from bridge.kafka.transport import ConsumedRecord
from consumers.runtime.failure import Failure
from consumers.runtime.sorting import REFUSED_S, REQUESTS_MAX, UNKNOWN_GRACE_S, Learner


class Registry:
    """Answers every question the same way."""

    def __init__(self) -> None:
        self.answer: Exception = DecodeError(UNKNOWN_SCHEMA_ID)
        self.asked = 0

    def decode(self, record: ConsumedRecord) -> Event:
        raise AssertionError(record)

    async def learn(self, record: ConsumedRecord) -> None:
        del record
        self.asked += 1
        raise self.answer


def a_record(schema_id: int) -> ConsumedRecord:
    return ConsumedRecord("drx.prescriptions.v1", 0, 0, 0, b"rx", b"\0" + schema_id.to_bytes(4) + b"\0", [])


async def settle() -> None:
    """Let the question that was put be answered."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_an_unknown_id_is_a_failure_only_after_the_grace_and_asked_for_again_later() -> None:
    now = [0.0]
    registry = Registry()
    learner = Learner(registry, clock=lambda: now[0])
    answers = []
    for now[0] in (0.0, 0.5, 30.0, UNKNOWN_GRACE_S - 0.1, UNKNOWN_GRACE_S + 0.1, UNKNOWN_GRACE_S + REFUSED_S):
        answers.append(learner.ask(a_record(7)))
        await settle()

    assert [isinstance(each, Failure) for each in answers] == [False, False, False, False, True, False]
    assert registry.asked == 4


async def test_silence_does_not_count_towards_the_grace() -> None:
    now = 0.0
    registry = Registry()
    learner = Learner(registry, clock=lambda: now)
    learner.ask(a_record(7))
    await settle()
    registry.answer, now = TransientError("registry_unreachable", systemic=True), UNKNOWN_GRACE_S + 1
    learner.ask(a_record(7))
    await settle()

    assert learner.away(a_record(7))
    assert isinstance(learner.ask(a_record(7)), float)


async def test_garbage_ids_do_not_fill_the_memory() -> None:
    learner = Learner(Registry(), clock=lambda: 0.0)
    for schema_id in range(REQUESTS_MAX + 100):
        learner.ask(a_record(schema_id))
    await learner.end()

    assert len(learner._requests) == REQUESTS_MAX
