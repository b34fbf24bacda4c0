"""Write what lanes have finished, many records to a transaction, and marks that moved without one."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple

from bridge.errors import BridgeError, TransientError
from consumers.api import Outgoing
from consumers.runtime.breaker import ParkBreakerOpenError
from consumers.runtime.failure import ID_CONFLICT, Failure, classify
from consumers.runtime.ledger import FencedError, Inbox, Verdict
from consumers.runtime.parker import Parker
from consumers.runtime.parking import ParkingFullError
from consumers.runtime.parts import Parts
from consumers.runtime.share import Lane, Share
from consumers.runtime.sorting import Sorted

# A mark that moved over records nobody wanted is written this often; it costs a repeated skip to lose it.
MARK_S = 1.0


class _Finished(NamedTuple):
    lane: Lane
    event: Sorted
    applied: bool
    outgoing: Sequence[Outgoing]


class Rounds:
    """Settles in rounds, one at a time for each share: what is finished meanwhile makes the next one."""

    def __init__(
        self,
        parts: Parts,
        *,
        parker: Parker,
        start: Callable[[Coroutine[Any, Any, None]], object],
        settled: Callable[[Lane], None],
        fenced: Callable[[Share], None],
        stopped: Callable[[Share, BridgeError], None],
    ) -> None:
        """Run rounds as tasks by `start`; tell `settled` of each lane that may go on, the others of a share's end."""
        self._parts = parts
        self._parker = parker
        self._start = start
        self._settled = settled
        self._fenced = fenced
        self._stopped = stopped
        self._finished: defaultdict[Share, list[_Finished]] = defaultdict(list)
        self._writing: set[Share] = set()

    async def look(self, share: Share, entry: Inbox) -> Verdict:
        """Return whether an event was settled before; writes nothing."""
        async with self._parts.ledger.begin(share.place, share.epoch) as settlement:
            (verdict,) = await settlement.look((entry,))
        return verdict

    def finish(self, lane: Lane, event: Sorted, *, applied: bool, outgoing: Sequence[Outgoing]) -> None:
        """Take a record whose handler is done; its key goes on when it is settled."""
        share = lane.share
        self._finished[share].append(_Finished(lane, event, applied, outgoing))
        if share not in self._writing:
            self._writing.add(share)
            self._start(self._write_rounds(share))

    async def work(self, shares: Callable[[], Iterable[Share]]) -> None:
        """Write the marks of `shares` once in a while, until cancelled."""
        while True:
            await asyncio.sleep(MARK_S)
            await self.write_marks(shares())

    async def write_marks(self, shares: Iterable[Share]) -> None:
        """Bring what is written of each share up to its mark."""
        for share in list(shares):
            if share.gone or not share.opened or share.written == share.window.mark:
                continue
            if not self._parts.circuit.closed:
                return
            try:
                async with self._parts.settling(share, frozenset()):
                    pass
            except FencedError:
                self._fenced(share)
            except TransientError:
                return  # what settles records will find out the same, and says so

    async def _write_rounds(self, share: Share) -> None:
        try:
            while finished := self._finished.pop(share, None):
                await self._write(share, finished)
        finally:
            self._writing.discard(share)

    async def _write(self, share: Share, finished: Sequence[_Finished]) -> None:
        """Settle records of one share; when one of them is at fault, each by itself."""
        try:
            await self._parts.persist(share, lambda: self._settle(share, finished))
        except FencedError:
            self._fenced(share)
        except Exception as exc:
            if len(finished) > 1:
                for each in finished:
                    await self._write(share, (each,))
                return
            failure = classify(exc)
            if failure.cls == "bug":
                raise
            await self._set_aside(share, finished[0], failure)
        for each in finished:
            self._settled(each.lane)

    async def _settle(self, share: Share, finished: Sequence[_Finished]) -> None:
        offsets = frozenset(each.event.record.offset for each in finished)
        async with self._parts.settling(share, offsets) as settlement:
            verdicts = await settlement.admit([each.event.inbox for each in finished])
            for each, verdict in zip(finished, verdicts, strict=True):
                if verdict == "fresh":
                    settlement.outgoing += each.outgoing
        for each, verdict in zip(finished, verdicts, strict=True):
            if verdict == "conflict":  # of another key, and at the same moment: both were handled
                self._parts.tally.conflicted(each.event)
        applied = [each.event for each in finished if each.applied]
        self._parts.tally.applied(applied)
        if len(applied) < len(finished):
            self._parts.tally.count(share.place.topic, "duplicate", len(finished) - len(applied))
        self._parts.breaker.note(other=len(finished))

    async def _set_aside(self, share: Share, one: _Finished, failure: Failure) -> None:
        if failure.code == ID_CONFLICT:
            self._parts.tally.conflicted(one.event)
        try:
            await self._parker.set_aside(share, one.event.record, failure, attempts=1)
        except FencedError:
            self._fenced(share)
        except (ParkBreakerOpenError, ParkingFullError) as exc:
            self._stopped(share, exc)
