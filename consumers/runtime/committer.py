"""Keep the group's offsets in Kafka close behind what is settled: never back, and only for what is ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

import structlog
from prometheus_client import Histogram

from bridge.kafka.transport import Place, Transport, TransportError
from bridge.runtime.lifecycle import pause

log = structlog.get_logger()

# Others see our lag by these commits, and nothing is lost by one that is late: PostgreSQL knows what is settled.
PERIOD_S = 1.0
# For the last commit, also when another has to end first.
COMMIT_S = 5.0


class Committer:
    """Commits marks; the offsets in Kafka follow them and are never the first to know."""

    def __init__(
        self, *, transport: Transport, mark: Callable[[Place], int | None], group: str, duration: Histogram
    ) -> None:
        """Commit what `mark` says of the partitions that are held; `duration` has its labels."""
        self._transport = transport
        self._mark = mark
        self._group = group
        self._duration = duration
        self._kept: dict[Place, int] = {}
        self._lock = asyncio.Lock()
        self._outcome = "ok"

    def hold(self, place: Place, committed: int | None) -> None:
        """Begin to commit for a partition of which Kafka has `committed`."""
        self._kept[place] = -1 if committed is None else committed

    def let_go(self, places: Collection[Place]) -> None:
        """Commit no more for these: they are not ours."""
        for place in places:
            self._kept.pop(place, None)

    async def run(self, stop: asyncio.Event) -> None:
        """Commit once a period until `stop` is set."""
        while not stop.is_set():
            await self.commit(list(self._kept))
            await pause(stop, PERIOD_S)

    async def commit(self, places: Collection[Place]) -> str:
        """Commit what is new of `places`; return `ok` or the code of a failure, after which the next one makes good.

        An old owner's commit is accepted by the broker and would rewind the new one's, so marks and holdings are looked
        at in the step that sends.
        """
        try:
            async with asyncio.timeout(COMMIT_S), self._lock:
                offsets = {place: mark for place in places if (mark := self._news(place)) is not None}
                outcome = await self._send(offsets) if offsets else "ok"
        except TimeoutError:
            outcome = "no_answer"
        if outcome not in {"ok", self._outcome}:  # once, not once a period
            log.warning("worker.commit_failed", group=self._group, code=outcome)
        self._outcome = outcome
        return outcome

    async def _send(self, offsets: Mapping[Place, int]) -> str:
        begun = asyncio.get_running_loop().time()
        try:
            await self._transport.commit(offsets)
        except TransportError as exc:
            return exc.code
        finally:
            self._duration.observe(asyncio.get_running_loop().time() - begun)
        self._kept.update({place: offset for place, offset in offsets.items() if place in self._kept})
        return "ok"

    def _news(self, place: Place) -> int | None:
        kept = self._kept.get(place)
        mark = self._mark(place) if kept is not None else None
        return mark if mark is not None and kept is not None and mark > kept else None
