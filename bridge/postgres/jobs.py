"""Run a consumer's periodic jobs beside its events: each in a transaction, one process of the group at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from bridge.consumer import PeriodicJob
from bridge.errors import BridgeError
from bridge.postgres.pool import Database
from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import trail

log = structlog.get_logger()

_TRY_LOCK = "select pg_try_advisory_xact_lock(hashtextextended($1, 0))"


class Jobs:
    """A worker that runs jobs; one that fails is tried again when it is due again."""

    def __init__(self, jobs: Sequence[PeriodicJob], *, group: str, database: Database, timeout_s: float) -> None:
        """Run the `jobs` of `group`, each for `timeout_s` at most."""
        self._jobs = jobs
        self._group = group
        self._database = database
        self._timeout_s = timeout_s

    async def run(self, stop: asyncio.Event) -> None:
        """Run every job at once and then at its period, until `stop` is set."""
        tasks = [asyncio.create_task(self._repeat(number, job, stop)) for number, job in enumerate(self._jobs)]
        await stop.wait()
        await asyncio.gather(*tasks)

    async def _repeat(self, number: int, job: PeriodicJob, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._once(f"job {self._group} {number}", job)
            except BridgeError as exc:
                log.warning("worker.job_failed", group=self._group, code=exc.code)
            except TimeoutError:
                log.warning("worker.job_failed", group=self._group, code="timeout")
            except Exception as exc:  # noqa: BLE001 - a team's own code; its texts carry values
                log.error("worker.job_failed", group=self._group, code="bug", where=trail(exc))
            await pause(stop, job.every_s)

    async def _once(self, name: str, job: PeriodicJob) -> None:
        async with self._database.transaction() as connection:
            # Another process of the group that is at it is not waited for.
            if await connection.fetchval(_TRY_LOCK, name):
                await job.run(connection)
