"""Hold a group still that has parked too much: all its processes, in all their lives, until an operator resumes it.

A process that ended instead would park as much again in its next life, and nobody would scrape that it had stopped.
A partition for which the lot is full stands still by itself, and goes on when there is room.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import NamedTuple

import structlog

from bridge.errors import BridgeError, TransientError
from consumers.postgres.pool import Database
from consumers.runtime import parking
from consumers.runtime.breaker import ParkBreaker, ParkBreakerOpenError
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.share import Share
from consumers.runtime.shares import Shares

log = structlog.get_logger()

_STANDING = """
select coalesce(b.opened_at is not null, false) as open, array(
  select settled.now - e.group_offset from drx_consumer.parked_event as e
  where e.grp = $1 and e.class <> 'behind' and e.group_offset between settled.now - $2 and settled.now
    and e.parked_at > coalesce(b.counted_from, '-infinity')
  order by e.group_offset
) as ages
from (select coalesce(sum(next_offset), 0)::bigint as now from drx_consumer.progress where grp = $1) as settled
left join drx_consumer.park_breaker as b on b.grp = $1
"""
_IS_OPEN = "select exists (select from drx_consumer.park_breaker where grp = $1 and opened_at is not null)"
_OPEN = """
insert into drx_consumer.park_breaker as b (grp, opened_at) values ($1, clock_timestamp())
on conflict (grp) do update set opened_at = coalesce(b.opened_at, excluded.opened_at)
"""


class Standing(NamedTuple):
    """What the database knows.

    Attributes:
        ages: For each record parked lately, how many were settled since, the oldest first.
    """

    open: bool
    ages: list[int]


class Brake:
    """The park breaker as this process knows it, kept in step with what is committed for its group.

    Attributes:
        breaker: Counts what this process does, on top of what is known of lives before.
    """

    def __init__(
        self,
        breaker: ParkBreaker,
        shares: Shares,
        *,
        database: Database,
        group: str,
        metrics: ConsumerMetrics,
        poll_s: float,
        give_back: Callable[[Collection[Share]], Awaitable[None]],
    ) -> None:
        """Start with what was committed, once `look` has been asked; look again every `poll_s`."""
        self._give_back = give_back
        self.breaker = breaker
        self._shares = shares
        self._database = database
        self._group = group
        self._gauge = metrics.park_breaker_open.labels(metrics.service)
        self._poll_s = poll_s
        self._seeded = False
        self._untold = False
        self._pulled = asyncio.Event()
        self._set(on=False)

    async def look(self) -> None:
        """Learn how the group stands, before a partition is taken.

        Raises:
            TransientError: The database is away.
        """
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(_STANDING, self._group, self.breaker.last)
        standing = Standing(**dict(row))
        if not self._seeded:
            self._seeded = True
            self.breaker.seed(standing.ages)
        if standing.open:
            self._set(on=True)

    def stop(self, share: Share, why: BridgeError) -> None:
        """Settle nothing of a partition any more; too much parked stops all of them, here and in the whole group."""
        if not isinstance(why, ParkBreakerOpenError):
            self._shares.stop(share, why)
        elif not self._on:
            log.error("worker.park_breaker", code=why.code, group=self._group)
            self._hold()
            self._untold = True
            self._pulled.set()

    def holds(self, share: Share) -> bool:
        """Stop a partition that was taken only now, if nothing is to be settled."""
        if self._on:
            self._shares.stop(share, ParkBreakerOpenError())
        return self._on

    async def renew(self, share: Share) -> None:
        """Have a partition that was stopped adopted again; asked again while something of it is in hand.

        What is given up here would count as begun and never ended, as if the process had died of it.

        Raises:
            TransientError: The database is away.
        """
        if not (self._on or share.active or share.gone or share.given_back):
            await self._give_back((share,))
            self._shares.renew(share)

    def standing(self) -> str:
        """Return `ok`, or why records of some partition wait until an operator acts."""
        if self._on:
            return ParkBreakerOpenError.code
        return next((share.stopped for share in self._shares.all() if share.stopped), "ok")

    async def work(self) -> None:
        """Tell the group what happened here, and do what it says, until cancelled."""
        while True:
            with suppress(TransientError):  # what settles records will find out the same, and says so
                await self._follow()
                await self._go_on()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._pulled.wait()
            self._pulled.clear()

    async def _follow(self) -> None:
        telling = self._untold
        async with self._database.transaction() as connection:
            if telling:
                await connection.execute(_OPEN, self._group)
            is_open = bool(await connection.fetchval(_IS_OPEN, self._group))
        if telling:
            self._untold = False
        if is_open and not self._on:
            self._hold()
        elif self._on and not is_open and not self._untold:
            log.info("worker.park_breaker_closed", group=self._group)
            self.breaker.reset()
            self._set(on=False)

    async def _go_on(self) -> None:
        """Have partitions adopted again that were stopped and need not be any more."""
        stopped = [] if self._on else [share for share in self._shares.open() if share.stopped]
        full = {share: share.full for share in stopped if share.full is not None}
        if full:
            async with self._database.transaction() as connection:
                for share, why in full.items():
                    if not await parking.has_room(connection, self._group, share.place, why):
                        stopped.remove(share)
        for share in stopped:
            if not share.draining:  # what is about to be given back is still ours
                await self.renew(share)

    def _hold(self) -> None:
        self._set(on=True)
        for share in self._shares.open():
            self._shares.stop(share, ParkBreakerOpenError())

    def _set(self, *, on: bool) -> None:
        self._on = on
        self._gauge.set(on)
