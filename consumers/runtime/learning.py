"""Ask the registry for a schema that a record names and we do not know: once at a time, without holding a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from bridge.avro.codec import UNKNOWN_SCHEMA_ID, unknown_schema
from bridge.errors import DecodeError, TransientError
from bridge.kafka.transport import ConsumedRecord
from consumers.runtime.failure import Failure, classify
from consumers.runtime.sorting import Decoder

# A producer may be quicker than the registry's replicas (a healthy "no" counts after this).
GRACE_S = 60.0
# Between two questions for one schema.
AGAIN_S = 1.0
# How long a no counts after the grace: whoever asks later has it asked again, since a key may be released by then.
REFUSED_S = 5.0
# Questions remembered; a flood of made-up ids must not grow without a bound.
QUESTIONS_MAX = 1024


@dataclass(slots=True)
class _Question:
    task: asyncio.Task[None] | None = None
    asked_at: float = 0.0
    refused_at: float | None = None
    failure: Failure | None = None
    away: bool = False


class Learner:
    """Learns schemas in the background; who needs one comes again."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        clock: Callable[[], float] | None = None,
        grace_s: float = GRACE_S,
        again_s: float = AGAIN_S,
    ) -> None:
        """Ask through `decoder`; `clock` counts seconds, the loop's by default."""
        self._decoder = decoder
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._grace_s = grace_s
        self._again_s = again_s
        self._questions: dict[Hashable, _Question] = {}

    def ask(self, record: ConsumedRecord) -> float | Failure:
        """Return after how many seconds to try again, or that there is no such schema."""
        key = unknown_schema(record.value or b"", record.headers)
        if key is None:
            return Failure("poison", UNKNOWN_SCHEMA_ID)
        question = self._questions.get(key)
        if question is None:
            if len(self._questions) >= QUESTIONS_MAX:
                self._questions.pop(next(iter(self._questions)))
            question = self._questions[key] = _Question()
        if question.failure is not None:
            return question.failure
        now = self._clock()
        if self._refused(question, now):
            return Failure("poison", UNKNOWN_SCHEMA_ID)
        if question.task is None or (question.task.done() and now - question.asked_at >= self._again_s):
            question.asked_at = now
            question.task = asyncio.get_running_loop().create_task(self._learn(key, question, record))
        return self._again_s

    def away(self, record: ConsumedRecord) -> bool:
        """Whether nobody answered when the record's schema was last asked for."""
        question = self._questions.get(unknown_schema(record.value or b"", record.headers))
        return question is not None and question.away

    async def end(self) -> None:
        """Ask no more."""
        tasks = [each.task for each in self._questions.values() if each.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _refused(self, question: _Question, now: float) -> bool:
        """Whether the registry says no, now and all through the grace."""
        if question.refused_at is None or question.away or question.task is None or not question.task.done():
            return False
        return now - question.refused_at >= self._grace_s and now - question.asked_at < REFUSED_S

    async def _learn(self, key: Hashable, question: _Question, record: ConsumedRecord) -> None:
        try:
            await self._decoder.learn(record)
        except TransientError:
            question.away = True
        except DecodeError as exc:
            question.away = False
            if exc.code == UNKNOWN_SCHEMA_ID:
                question.refused_at = question.refused_at if question.refused_at is not None else self._clock()
            else:
                question.failure = classify(exc)
        else:
            self._questions.pop(key, None)
