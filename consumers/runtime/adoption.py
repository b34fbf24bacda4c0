"""Find out where a partition that was given to us goes on, and whether that place is still what it was."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from bridge.errors import TransientError
from bridge.kafka.transport import Bounds, ConsumedRecord, Place, Transport, TransportError
from bridge.runtime.failpoints import BETWEEN_CLAIM_AND_SEEK, hit
from consumers.postgres.text import stored_text
from consumers.runtime.settles import Adoption, Settles

StartPolicy = Literal["none", "earliest", "latest"]

# The end that a new leader tells right after a failover may lie behind what consumers have read already.
BEYOND_END_LOOKS = 10
BEYOND_END_S = 1.0
RETRY_FIRST_S = 0.2
RETRY_MAX_S = 10.0

_INIT = "drx-consumer init NAME --from earliest|latest|<time>"
HINTS = {
    "not_initialized": _INIT,
    "offset_expired": f"records were deleted before they were settled; to go on without them: {_INIT}",
    "offset_beyond_end": f"the topic is not what it was; to begin anew: {_INIT}",
    "batch_unreadable": "a batch is corrupt; let another replica lead, or go on behind it: runbook PartitionStopped",
    "topic_recreated": f"the topic is not what it was; to begin anew: {_INIT}",
}

Sleep = Callable[[float], Awaitable[None]]
Answer = TypeVar("Answer")


class Start(NamedTuple):
    """Where to go on.

    Attributes:
        expected_id: `stored_text` of the `ce_id` that the record before `offset` must have; None when there is nothing
            to compare.
        committed: The group's offset in Kafka, below which no commit may go.
    """

    offset: int
    expected_id: str | None
    committed: int | None


class Stopped(NamedTuple):
    """Why a partition is not read.

    Codes: `not_initialized` (nobody has said where to begin), `offset_expired` (records were deleted before they were
    settled), `offset_beyond_end` and `topic_recreated` (the log is another one, or was cut off), `batch_unreadable`
    (the next batch is corrupt).
    """

    code: str


@dataclass(slots=True, eq=False)
class Tenure:
    """One partition from the moment it is ours until it is taken, or must be adopted anew.

    Attributes:
        generation: Another one each time, so that what belongs to an earlier tenure can be told.
        claim: The task that finds out where to go on, once it was asked for.
        expected: What the record before the first one must be, until that was seen.
        reading: True from then on.
        halted: True while nothing of it can be settled, and it is not read for that.
        stopped: Code, once it is certain that it cannot be read.
    """

    place: Place
    generation: int
    claim: asyncio.Task[Start | Stopped] | None = None
    expected: Start | None = None
    reading: bool = False
    halted: bool = False
    stopped: str = ""

    def end(self) -> None:
        """Give the claim up, if it is still out."""
        if self.claim is not None:
            self.claim.cancel()


def judge(
    adoption: Adoption,
    *,
    committed: int | None,
    bounds: Bounds,
    policy: StartPolicy,
) -> Start | Stopped:
    """Decide where a partition goes on: as settled, else as committed, else as the policy says; never past a gap."""
    offset = committed if adoption.next_offset is None else adoption.next_offset
    if offset is None:
        if policy == "none":
            return Stopped("not_initialized")
        return Start(bounds.start if policy == "earliest" else bounds.end, None, committed)
    if offset < bounds.start:
        return Stopped("offset_expired")
    if offset > bounds.end:
        return Stopped("offset_beyond_end")
    # What lies before the start cannot be read any more, and nothing lies before it that could have been missed.
    return Start(offset, adoption.last_event_id if offset > bounds.start else None, committed)


def is_same_log(start: Start, records: Sequence[ConsumedRecord]) -> bool:
    """Whether the records, read from the one before `start`, begin with the one that was settled last.

    A gap there proves nothing: compaction and the markers of transactions leave some.
    """
    first = records[0]
    return first.offset != start.offset - 1 or stored_text(first.header("ce_id")) == start.expected_id


class Adopter:
    """Claims partitions, for as long as it takes."""

    def __init__(
        self, *, transport: Transport, settles: Settles, policy: StartPolicy, sleep: Sleep = asyncio.sleep
    ) -> None:
        """Ask `settles` for what is settled and `transport` for what is there."""
        self._transport = transport
        self._settles = settles
        self._policy = policy
        self._sleep = sleep

    async def adopt(self, place: Place, generation: int) -> Start | Stopped:
        """Claim a partition, then look at its log; both are asked again until they answer."""

        async def claim() -> Adoption:
            return await self._settles.adopt(place, generation)

        adoption = await self._until_answered(claim)
        hit(BETWEEN_CLAIM_AND_SEEK)
        for _ in range(BEYOND_END_LOOKS):
            bounds, committed = await self._until_answered(lambda: self._look(place))
            verdict = judge(adoption, committed=committed, bounds=bounds, policy=self._policy)
            if verdict != Stopped("offset_beyond_end"):
                break
            await self._sleep(BEYOND_END_S)
        return verdict

    async def _look(self, place: Place) -> tuple[Bounds, int | None]:
        committed = await self._transport.committed([place])
        bounds = await self._transport.bounds([place])
        return bounds[place], committed[place]

    async def _until_answered(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        delay_s = RETRY_FIRST_S
        while True:
            try:
                return await ask()
            except (TransientError, TransportError):
                await self._sleep(random.uniform(delay_s / 2, delay_s))  # noqa: S311 - spreads load, guards nothing
            delay_s = min(delay_s * 2, RETRY_MAX_S)
