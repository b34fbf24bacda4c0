import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.errors import TransientError
from consumers.api import Job, PeriodicJob
from consumers.postgres.pool import Connection, Database
from consumers.runtime.jobs import Jobs
from tests.kafka import HANG_S, until
from tests.logs import capture_logs

# Due again at once.
SOON_S = 0.01


@asynccontextmanager
async def running(
    database: Database, job: Job, *, timeout_s: float = HANG_S, every_s: float = SOON_S
) -> AsyncIterator[None]:
    stop = asyncio.Event()
    jobs = Jobs([PeriodicJob(job, every_s)], group="desk", database=database, timeout_s=timeout_s)
    task = asyncio.create_task(jobs.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def test_one_process_of_a_group_runs_a_job_at_a_time(database: Database) -> None:
    started, finish = asyncio.Event(), asyncio.Event()
    runs: list[str] = []

    async def slow(_: Connection) -> None:
        runs.append("slow")
        started.set()
        await finish.wait()

    async def quick(_: Connection) -> None:
        runs.append("quick")

    async def tried(_: Connection) -> None:
        runs.append("other group")

    async with running(database, slow):
        await started.wait()
        async with running(database, quick):
            other = Jobs([PeriodicJob(tried, SOON_S)], group="another", database=database, timeout_s=HANG_S)
            stop = asyncio.Event()
            task = asyncio.create_task(other.run(stop))
            await until(lambda: runs.count("other group") > 1)
            assert "quick" not in runs
            finish.set()
            await until(lambda: "quick" in runs)
            stop.set()
            await task


async def test_a_job_runs_once_a_period_in_its_group_and_not_in_each_process(database: Database) -> None:
    runs: list[str] = []
    an_hour = 3600.0

    def named(name: str) -> Job:
        async def work(_: Connection) -> None:
            runs.append(name)

        return work

    async with running(database, named("first"), every_s=an_hour):
        await until(lambda: runs == ["first"])
    async with running(database, named("second"), every_s=an_hour):
        pass  # its first look has ended when it has stopped
    async with database.transaction() as connection:
        await connection.execute("update drx_consumer.job set ran_at = ran_at - interval '1 hour'")
    async with running(database, named("third"), every_s=an_hour):
        await until(lambda: len(runs) > 1)
    async with database.transaction() as connection:  # the server's clock was a day ahead
        await connection.execute("update drx_consumer.job set ran_at = ran_at + interval '1 day'")
    async with running(database, named("fourth"), every_s=an_hour):
        await until(lambda: len(runs) > 2)

    assert runs == ["first", "third", "fourth"]


@pytest.mark.parametrize(
    ("failure", "code"), [(TransientError("away"), "away"), (KeyError("Marisol"), "bug")], ids=["ours", "a bug"]
)
async def test_a_job_that_fails_is_tried_again_and_leaves_nothing(
    database: Database, failure: Exception, code: str
) -> None:
    runs = 0

    async def work(connection: Connection) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            await connection.execute("create table half (id int)")
            raise failure
        await connection.execute("create table if not exists whole (id int)")

    with capture_logs() as lines:
        async with running(database, work):
            await until(lambda: runs > 2)

    async with database.transaction() as connection:
        assert await connection.fetchval("select to_regclass('half') is null and to_regclass('whole') is not null")
    assert [line["code"] for line in lines] == [code]
    assert "Marisol" not in str(lines)


async def test_a_job_that_takes_too_long_is_ended(database: Database) -> None:
    runs = 0

    async def hang(_: Connection) -> None:
        nonlocal runs
        runs += 1
        await asyncio.Event().wait()

    with capture_logs() as lines:
        async with running(database, hang, timeout_s=SOON_S):
            await until(lambda: runs > 1)

    assert {line["code"] for line in lines} == {"timeout"}
