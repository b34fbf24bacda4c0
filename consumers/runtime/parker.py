"""Park the key of a record that cannot be applied, and append what follows it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from bridge.kafka.transport import ConsumedRecord
from bridge.runtime.failpoints import WHILE_PARKING, hit
from consumers.runtime import parking
from consumers.runtime.breaker import ParkBreakerOpenError
from consumers.runtime.failure import Failure
from consumers.runtime.ledger import Settlement
from consumers.runtime.parking import key_text
from consumers.runtime.parts import Parts
from consumers.runtime.share import Share


class Parker:
    """Carries out what `failure` has decided."""

    def __init__(self, parts: Parts) -> None:
        """Take the shared parts."""
        self._parts = parts

    @contextmanager
    def _room(self) -> Iterator[None]:
        """Hold room for one more, among all that are being parked at the same time."""
        breaker = self._parts.breaker
        if not breaker.reserve():
            breaker.note(parked=1)
            raise ParkBreakerOpenError
        try:
            yield
        finally:
            breaker.give_back()

    async def set_aside(self, share: Share, record: ConsumedRecord, failure: Failure, *, attempts: int) -> None:
        """Settle a record that was not applied, in a transaction of its own, however long the database is away.

        Raises:
            ParkBreakerOpenError: Too much was parked already; nothing was written.
            ParkingFullError: The lot is full; nothing was written.
            FencedError: The partition is not ours.
        """

        async def write() -> None:
            async with self._parts.settling(share, frozenset((record.offset,))) as settlement:
                await self.park(settlement, record, failure, attempts=attempts)

        with self._room():
            if await self._parts.persist(share, write):
                self.parked(share, record, failure, attempts=attempts)

    async def park(self, settlement: Settlement, record: ConsumedRecord, failure: Failure, *, attempts: int) -> None:
        """Park inside a transaction; `parked` is called once that is committed."""
        await parking.park(settlement, record, cls=failure.cls, code=failure.code, attempts=attempts)
        hit(WHILE_PARKING)

    def parked(self, share: Share, record: ConsumedRecord, failure: Failure, *, attempts: int) -> None:
        """Note what is parked now."""
        share.parked.add(key_text(record))
        self._parts.breaker.note(parked=1)
        self._parts.tally.parked(record, failure, attempts=attempts)

    async def append(self, share: Share, record: ConsumedRecord) -> bool:
        """Append a record behind its parked key and settle it; False when the key is parked no more."""
        appended = False

        async def write() -> None:
            nonlocal appended
            appended = False
            async with self._parts.settling(share, frozenset((record.offset,))) as settlement:
                appended = await parking.append(settlement, record)
                if not appended:
                    raise _LiveError

        try:
            await self._parts.persist(share, write)
        except _LiveError:
            return False
        if appended:
            self._parts.tally.appended(record.topic)
        return True


class _LiveError(Exception):
    """Nothing is to be written: an operator has dropped the key, or released it."""
