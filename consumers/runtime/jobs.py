"""Run a consumer's periodic jobs: each once a period per group, in the process that is first."""

import asyncio
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta

from bridge.errors import BridgeError
from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import log, trail
from consumers.api import PeriodicJob
from consumers.postgres.pool import Database

# The row is locked until the job has ended; a failed job rolls it back, and is due again. A job that ran in the future
# is also due, since the server's clock was set back.
_IS_OURS = """
insert into drx_consumer.job as j (grp, number, ran_at) values ($1, $2, now())
on conflict (grp, number) do update set ran_at = now()
where j.ran_at not between now() - $3::interval and now() + $3::interval
returning true
"""
# Share of a period after which a job is due: the processes' clocks and the database's differ.
DUE = 0.9
_TRY_LOCK = "select pg_try_advisory_xact_lock(hashtextextended($1, 0))"


@dataclass(eq=False, repr=False)
class Jobs:
    """A worker that runs jobs; a failed one is retried after its period."""

    jobs: Sequence[PeriodicJob]
    _: KW_ONLY
    group: str
    database: Database
    timeout_s: float  # of one run of a job
    resource: object = None  # for jobs that use it

    async def run(self, stop: asyncio.Event) -> None:
        """Run every job immediately and then once a period, until `stop` is set."""
        tasks = [asyncio.create_task(self._repeat(number, job, stop)) for number, job in enumerate(self.jobs)]
        await stop.wait()
        await asyncio.gather(*tasks)

    async def _repeat(self, number: int, job: PeriodicJob, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async with asyncio.timeout(self.timeout_s):
                    await self._once(number, job)
            except BridgeError as exc:
                log.warning("worker.job_failed", group=self.group, code=exc.code)
            except TimeoutError:
                log.warning("worker.job_failed", group=self.group, code="timeout")
            except Exception as exc:  # noqa: BLE001 - third-party code, whose exceptions contain values
                log.error("worker.job_failed", group=self.group, code="bug", where=trail(exc))
            await pause(stop, job.every_s)

    async def _once(self, number: int, job: PeriodicJob) -> None:
        async with self.database.transaction(calls_services=True) as connection:
            # Skip if another process holds the lock.
            if not await connection.fetchval(_TRY_LOCK, f"job {self.group} {number}"):
                return
            if await connection.fetchval(_IS_OURS, self.group, number, timedelta(seconds=DUE * job.every_s)):
                await job.once(connection, self.resource)
