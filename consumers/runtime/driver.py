"""Carry the records of one partition on: in batches, or one at a time while the process keeps dying."""

from __future__ import annotations

import asyncio

from bridge.errors import TransientError
from consumers.api import Batches
from consumers.runtime.batches import Batch, FastPath, Former, NotAppendedError
from consumers.runtime.failure import ATTEMPTS_MAX, SYSTEMIC_MAX_S, delay_s
from consumers.runtime.key_lanes import KeyLanes
from consumers.runtime.ledger import FencedError
from consumers.runtime.parker import Parker
from consumers.runtime.parts import Parts
from consumers.runtime.replay import Replay
from consumers.runtime.share import Share

# Batches in hand at a time: while one waits for the database, another is decoded. A thousand events take some 14 MiB.
BATCHES_MAX = 3


class Careful:
    """Hands on one record at a time of all partitions: the one that kills the process is known, and parked unseen."""

    def __init__(self, parts: Parts, *, lanes: KeyLanes) -> None:
        """Take the shared parts."""
        self._parts = parts
        self._lanes = lanes
        # Two in hand, and the innocent one would be charged with each death too.
        self._hand = asyncio.Lock()

    async def drive(self, share: Share) -> None:
        """Return when the records in question are behind us, or the share is closed."""
        while share.careful_left and not share.closed:
            if not share.lanes:
                install_releases(share, self._lanes)
            if not share.queue or share.lanes:
                await _woken(share)
                continue
            async with self._hand:
                await self._next(share)

    async def _next(self, share: Share) -> None:
        """Hand one record on, and wait until it is settled or waits for another attempt."""
        if share.closed or share.lanes:
            return
        record = share.queue.popleft()
        share.careful_left -= 1
        skip = self._parts.sorter.skips(record)
        if skip is not None:
            share.settle((record.offset,))
            self._parts.tally.passed_over(record.topic, (skip,))
            return
        share.suspect = record.offset
        self._lanes.put(share, record)
        while not share.closed and any(lane.state != "waiting" for lane in share.lanes.values()):
            await _woken(share)


class BatchDriver:
    """Drives shares in batches; what goes wrong goes through the slow path or a lane."""

    def __init__(
        self, parts: Parts, *, former: Former, fast: FastPath, replay: Replay, lanes: KeyLanes, mode: Batches
    ) -> None:
        """Take the shared parts."""
        self._parts = parts
        self._former = former
        self._fast = fast
        self._replay = replay
        self._lanes = lanes
        self._mode = mode
        self._slots = asyncio.Semaphore(BATCHES_MAX)

    async def drive(self, share: Share) -> None:
        """Settle what is offered until the share is closed."""
        attempt = 0
        while not share.closed:
            install_releases(share, self._lanes)
            if not share.queue or not self._parts.circuit.closed:
                await _woken(share)
            else:
                await self._fill(share)
                async with self._slots:
                    settled = await self._turn(share)
                attempt = 0 if settled else attempt + 1
                if attempt:
                    await self._again(share, attempt)

    async def _fill(self, share: Share) -> None:
        """Wait a little for a batch to be full."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._mode.wait_s
        while len(share.queue) < self._mode.records and not share.closed:
            try:
                async with asyncio.timeout_at(until):
                    await _woken(share)
            except TimeoutError:
                return

    async def _turn(self, share: Share) -> bool:
        """Settle one batch; False when it is to be tried again after a while."""
        if share.closed:
            return True
        batch = self._former.form(share)
        if not len(batch):
            return True
        share.begin()
        try:
            return await self._settle(share, batch)
        finally:
            share.end()

    async def _settle(self, share: Share, batch: Batch) -> bool:
        try:
            if share.replay or not batch.sound or not await self._fast_path(share, batch):
                share.replay = not await self._replay.apply(share, batch)
        except TransientError as exc:
            if exc.systemic:
                self._parts.circuit.failed(code=exc.code)
            else:
                self._parts.tally.retried_batch(share.place.topic, len(batch), code=exc.code)
            return False
        return True

    async def _fast_path(self, share: Share, batch: Batch) -> bool:
        """Settle a batch whole; False when one of its records is at fault."""
        try:
            await self._fast.apply(share, batch)
        except NotAppendedError:
            self._former.back(share, batch.records)
        except TransientError:
            self._former.back(share, batch.records)
            raise
        except FencedError:
            raise
        except Exception:  # noqa: BLE001 - the replay finds the record, and judges what it raises
            return share.gone
        return True

    async def _again(self, share: Share, attempt: int) -> None:
        """Wait before a transaction that met a deadlock, or a database that is away, is tried again."""
        # Should it fail for one record alone, that is found out record by record.
        share.replay = share.replay or attempt >= ATTEMPTS_MAX
        await asyncio.sleep(delay_s(attempt, spread=self._parts.spread, max_s=SYSTEMIC_MAX_S))


def batch_driver(parts: Parts, mode: Batches, *, parker: Parker, lanes: KeyLanes) -> BatchDriver:
    """Put a driver together that settles in batches of this mode."""
    former = Former(parts, lanes=lanes, records_max=mode.records)
    replay = Replay(parts, parker=parker, former=former, lanes=lanes)
    return BatchDriver(parts, former=former, fast=FastPath(parts), replay=replay, lanes=lanes, mode=mode)


def install_releases(share: Share, lanes: KeyLanes) -> None:
    """Let keys be released whose turn it is; not while a batch is under way, which may hold a record of one."""
    for key in share.releases & share.parked:
        lanes.release(share, key)
    share.releases.clear()


async def _woken(share: Share) -> None:
    share.wake.clear()
    await share.wake.wait()
