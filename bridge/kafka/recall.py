"""At a start, find out what is already in our own topics, so that a repeat of it is known."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol

import structlog

from bridge.errors import BridgeError
from bridge.event import Identity
from bridge.kafka.connection import Connection
from bridge.kafka.reader import SLICE_RECORDS, open_tail
from bridge.kafka.transport import ConsumedRecord, Place
from bridge.runtime.logging import trail

log = structlog.get_logger()

# After each slice, about as long as a slice takes: deliveries are already accepted and have the loop half of the time.
PAUSE_S = 0.002

_SHA256 = re.compile(rb"[0-9a-f]{64}")


class Memory(Protocol):
    """Who is told.

    Attributes:
        ready: Set when everything has been found.
        finished: Set then, or when nobody should wait for it any longer.
    """

    ready: bool
    finished: bool

    def recalled(self, identity: Identity, at_s: float) -> None:
        """Note what is in a topic, of a delivery received at `at_s` (Unix seconds); the same may be told twice."""


@dataclass(frozen=True, slots=True)
class RecallPatience:
    """How long is waited for what.

    Attributes:
        retry_s: Between two attempts.
        give_up_s: With brokers that can be reached, nobody waits longer for what cannot be read.
        retry_late_s: Between two attempts after that.
    """

    retry_s: float = 1.0
    give_up_s: float = 120.0
    retry_late_s: float = 60.0


class Recall:
    """A worker that reads the tail of each topic once, from headers only."""

    def __init__(
        self,
        *,
        connection: Connection,
        topics: Callable[[], Collection[str]],
        memory: Memory,
        window_s: float,
        records_max: int,
        oldest_s: Callable[[], float | None] = lambda: None,
        now: Callable[[], float] = time.time,
        patience: RecallPatience = RecallPatience(),
    ) -> None:
        """Tell `memory` what is in the topics.

        Args:
            connection: How the brokers are reached.
            topics: Those that are written, and those that what waits was accepted for; asked until all are read.
            memory: Who is told.
            window_s: The longest that anything is remembered; what is older is not read.
            records_max: Most records of one topic, the newest.
            oldest_s: Receipt (Unix seconds) of the oldest delivery that waits to be written, if any: a process that
                died may have written it already, so this far back is read, too.
            now: Unix seconds.
            patience: How long is waited for what.
        """
        self._connection = connection
        self._topics = topics
        self._memory = memory
        self._window_s = window_s
        self._records_max = records_max
        self._oldest_s = oldest_s
        self._now = now
        self._patience = patience

    async def run(self, stop: asyncio.Event) -> None:
        """Read, as soon as the brokers can be reached and as often as it takes; then wait for `stop`."""
        reading = asyncio.create_task(self._read_all())
        await stop.wait()
        reading.cancel()
        await asyncio.wait({reading})
        if not reading.cancelled():
            reading.result()

    async def _read_all(self) -> None:
        loop = asyncio.get_running_loop()
        read: set[str] = set()
        reachable_since: float | None = None
        while left := set(self._topics()) - read:
            codes = {topic: code for topic in left if (code := await self._attempt(topic))}
            read |= left - codes.keys()
            if not codes:
                continue
            if "unreachable" in codes.values():
                reachable_since = None
            elif reachable_since is None:
                reachable_since = loop.time()
            elif loop.time() - reachable_since >= self._patience.give_up_s and not self._memory.finished:
                self._memory.finished = True
                for topic, code in codes.items():
                    log.warning("worker.recall_given_up", topic=topic, code=code)
            await asyncio.sleep(self._patience.retry_late_s if self._memory.finished else self._patience.retry_s)
        self._memory.ready = self._memory.finished = True

    async def _attempt(self, topic: str) -> str:
        """Read the tail of a topic; return why it could not be read, or an empty string."""
        try:
            await self._read(topic)
        except BridgeError as exc:
            return exc.code
        except Exception as exc:  # noqa: BLE001 - whatever a client raises, deliveries do not depend on this
            log.error("worker.failed", topic=topic, where=trail(exc))
            return "unexpected"
        return ""

    async def _read(self, topic: str) -> None:
        since_s = self._now() - self._window_s
        oldest_s = self._oldest_s()
        if oldest_s is not None:
            since_s = min(since_s, oldest_s)
        seen = 0
        tail = open_tail(
            self._connection,
            topic,
            since_ms=int(since_s * 1000),
            records_max=self._records_max,
            unreadable=_passed_over,
        )
        async with tail as reader:
            async for record in reader.until_end():
                identity = identity_of(record)
                if identity is not None:
                    self._memory.recalled(identity, record.timestamp_ms / 1000)
                seen += 1
                if seen % SLICE_RECORDS == 0:
                    await asyncio.sleep(PAUSE_S)


def _passed_over(place: Place, offset: int, after: int) -> None:
    """Say that a repeat of what lies there will be taken for new: no time would make it readable."""
    where = {"topic": place.topic, "partition": place.partition, "offset": offset, "next_offset": after}
    log.error("worker.recall_batch_unreadable", **where)


def identity_of(record: ConsumedRecord) -> Identity | None:
    """Return what the headers of a record identify, or None where they are not ours."""
    headers = dict(record.headers)
    body_sha256 = headers.get("drx_body_sha256", b"")
    if _SHA256.fullmatch(body_sha256) is None or not {"ce_source", "ce_id"} <= headers.keys():
        return None
    try:
        return Identity(
            source=headers["ce_source"].decode(),
            id=headers["ce_id"].decode(),
            body_sha256=body_sha256.decode(),
            reason=headers.get("drx_reason", b"").decode(),
        )
    except UnicodeDecodeError:
        return None
