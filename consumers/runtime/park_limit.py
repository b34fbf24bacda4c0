"""Stop all processes of a group that parks too much, even after a restart, until an operator resumes it.

A bad software release must not park a whole topic. If the process exited instead, it would park as many records again
after each restart, and metrics would not show the stop. The metric is `drxbridge_park_breaker_open`, the alert
`ConsumerStuck`. Each process counts the records that it parks. When it exceeds the limit, it commits that state to
`drx_consumer.park_breaker`, which all processes of the group poll. A partition that reaches its own limit of parked
records stops separately, and continues once some of them are released or dropped.
"""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bridge.errors import TransientError
from bridge.runtime.logging import log
from consumers.postgres.pool import Database
from consumers.runtime import parking
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.parking import ParkingFullError, StoppedError
from consumers.runtime.partition import Partition, Partitions

# A tenth of the last 200 records: a bad release parks 20 records, and the 21st stops the group.
LAST_RECORDS = 200
PARKED_MAX_PERCENT = 10

_IS_OPEN = "select exists (select from drx_consumer.park_breaker where grp = $1 and opened_at is not null)"
_OPEN = """
insert into drx_consumer.park_breaker as b (grp, opened_at) values ($1, clock_timestamp())
on conflict (grp) do update set opened_at = coalesce(b.opened_at, excluded.opened_at)
"""


class ParkLimitError(StoppedError):
    """Too many records were parked: the group stops until an operator resumes it."""

    code = "park_breaker_open"
    command = "drx-consumer parked resume {name} --reason …"


class ParkCounter:
    """Counts how many of the last records were parked; later records of a parked key do not count."""

    def __init__(self, *, last: int = LAST_RECORDS, percent: float = PARKED_MAX_PERCENT) -> None:
        """Allow `percent` % of the `last` records to be parked, and the same number before so many were counted."""
        self._last: deque[bool] = deque(maxlen=last)
        self._parked = 0
        self._reserved = 0
        self._max = int(last * percent / 100)

    @property
    def left(self) -> int:
        """Number of records that may still be parked."""
        return max(0, self._max - self._parked - self._reserved)

    @contextmanager
    def room(self) -> Iterator[None]:
        """Reserve room for a record, to be counted by `note` once it is parked; `ParkLimitError` if no room is left."""
        if not self.left:
            self.note(parked=1)
            raise ParkLimitError
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1

    def reset(self) -> None:
        """Reset the count."""
        self._last.clear()
        self._parked = 0

    def note(self, *, parked: int = 0, other: int = 0) -> None:
        """Count settled records, parked ones last: if in doubt, too many count as parked."""
        if not parked and not self._parked:  # nearly always; `other` may be thousands, from a batch
            self._last.extend((False,) * other)
            return
        for each in (False,) * other + (True,) * parked:
            if len(self._last) == self._last.maxlen and self._last[0]:
                self._parked -= 1
            self._last.append(each)
            self._parked += each


class ParkLimit:
    """Stops partitions, and resumes them once the reason no longer applies; `work` must be running."""

    def __init__(
        self,
        counter: ParkCounter,
        partitions: Partitions,
        *,
        database: Database,
        group: str,
        metrics: ConsumerMetrics,
        poll_s: float,
    ) -> None:
        """Poll the group's state every `poll_s`."""
        self.counter = counter  # counts records parked by this process
        self._partitions = partitions
        self._database = database
        self._group = group
        self._gauge = metrics.park_breaker_open
        self._poll_s = poll_s
        # The limit was exceeded in this process, and that state is not committed yet.
        self._uncommitted = False
        self._wake = asyncio.Event()
        self._set(exceeded=False)

    async def look(self) -> None:
        """Read the group's state, before a partition is claimed."""
        if await self._database.fetchval(_IS_OPEN, self._group):
            self._set(exceeded=True)

    def stop(self, partition: Partition, why: StoppedError) -> None:
        """Stop settling a partition; on `ParkLimitError`, stop all partitions of the whole group."""
        if not isinstance(why, ParkLimitError):
            self._partitions.stop(partition, why)
        elif not self._exceeded:
            log.error("worker.park_breaker", code=why.code, group=self._group)
            self._stop_all()
            self._uncommitted = True
            self._wake.set()

    def stops(self, partition: Partition) -> bool:
        """Stop a newly claimed partition if the limit is exceeded; return whether it is exceeded."""
        if self._exceeded:
            self._partitions.stop(partition, ParkLimitError())
        return self._exceeded

    def renew(self, partition: Partition) -> None:
        """Have a stopped partition claimed again if the limit is not exceeded and no record is in progress."""
        if not (self._exceeded or partition.busy or partition.gone):
            self._partitions.renew(partition)

    def standing(self) -> str:
        """Return `ok`, or the code of the reason why records of a partition wait until an operator acts."""
        if self._exceeded:
            return ParkLimitError.code
        return next((each.stopped.code for each in self._partitions.all() if each.stopped), "ok")

    async def work(self) -> None:
        """Commit that this process exceeded the limit and follow the group's state, until cancelled."""
        while True:
            with suppress(TransientError):  # settling meets the same failure, and logs it
                await self._follow()
                await self._resume()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()
            self._wake.clear()

    async def _follow(self) -> None:
        committing = self._uncommitted
        async with self._database.transaction() as connection:
            if committing:
                await connection.execute(_OPEN, self._group)
            is_open = bool(await connection.fetchval(_IS_OPEN, self._group))
        if committing:
            self._uncommitted = False
        if is_open and not self._exceeded:
            self._stop_all()
        elif self._exceeded and not is_open and not self._uncommitted:
            log.info("worker.park_breaker_closed", group=self._group)
            self.counter.reset()
            self._set(exceeded=False)

    async def _resume(self) -> None:
        """Have stopped partitions that may resume claimed again."""
        stopped = [] if self._exceeded else [each for each in self._partitions.opened() if each.stopped]
        if not stopped:
            return
        async with self._database.transaction() as connection:
            for partition in list(stopped):
                why = partition.stopped
                if isinstance(why, ParkingFullError) and not await parking.has_room(
                    connection, self._group, partition.tp, why
                ):
                    stopped.remove(partition)
        for partition in stopped:
            if not partition.draining:  # a draining partition is dropped soon
                self.renew(partition)

    def _stop_all(self) -> None:
        self._set(exceeded=True)
        for partition in self._partitions.opened():
            self._partitions.stop(partition, ParkLimitError())

    def _set(self, *, exceeded: bool) -> None:
        self._exceeded = exceeded
        self._gauge.set(exceeded)
