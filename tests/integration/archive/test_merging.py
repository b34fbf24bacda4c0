import asyncio
import os
import shutil
import signal
import sys
from datetime import datetime, timedelta
from itertools import count, cycle
from pathlib import Path
from threading import Event as Flag
from threading import Thread

import duckdb
import pytest
from pyarrow import parquet  # noqa: TID251 - reads what was written

from bridge.runtime.failpoints import VARIABLE
from consumers.api import Context, Placed
from consumers.archive.consumer import open_archive
from consumers.archive.writer import Archiver
from consumers.postgres.pool import Database
from consumers.testing import WHEN, an_event, running
from tests import forked
from tests.integration.archive.merging import RUNS, opened
from tests.kafka import HANG_S, until

TOPIC = "drx.prescriptions.v1"
_offsets = count()


async def write(writer: Archiver, database: Database, *, files: int = 3, day: datetime = WHEN) -> int:
    """Settle events in files of two partitions, as if that was two days ago; return how many events."""
    for number in range(files):
        offset = next(_offsets)
        event = an_event("prescription.sent", key=f"rx_{offset}", id=f"evt_{offset}", at=day)
        async with database.transaction() as connection:
            await writer([Placed(event, Context("archive", TOPIC, number % 2, offset, "a:1", 1))], connection)
    await age(database)
    return files


async def age(database: Database) -> None:
    async with database.transaction() as connection:
        await connection.execute("update archive.file set committed_at = committed_at - interval '2 days'")


async def run(writer: Archiver, database: Database, times: int) -> None:
    for _ in range(times):
        async with database.transaction() as connection:
            await writer.publish(connection)
        writer._look_at = 0.0


def found(lake: Path) -> tuple[int, int]:
    rows = duckdb.sql(
        f"select count(*), count(distinct (_partition, _offset, event_id))"  # noqa: S608 - a test's path
        f" from read_parquet('{lake}/events/**/*.parquet', union_by_name = true, hive_partitioning = true)"
    )
    assert rows is not None
    ((total, different),) = rows.fetchall()
    return total, different


def visible(lake: Path) -> list[Path]:
    return sorted((lake / "events").rglob("*.parquet"))


async def test_a_day_that_has_ended_becomes_one_file(postgres: str, tmp_path: Path) -> None:
    """Also one that gets another event later, once more."""
    async with opened(postgres, str(tmp_path)) as (writer, database):
        rows = 0
        for _ in range(2):
            rows += await write(writer, database)
            await run(writer, database, 1)
            assert len(visible(tmp_path)) >= 3
            await run(writer, database, 2)
            (file,) = visible(tmp_path)
            assert (file.parent.name, found(tmp_path)) == ("received_date=2026-09-14", (rows, rows))
            await age(database)

        named = await database.fetch("select path, row_count, published_at is not null from archive.file")
        assert [tuple(row) for row in named] == [(str(file.relative_to(tmp_path)), rows, True)]
        assert {path.suffix for path in (tmp_path / "staging").iterdir()} == {".gone"}
        assert parquet.read_table(file, columns=["_partition", "_offset"], partitioning=None).num_rows == rows


async def test_a_day_waits_until_it_has_ended_and_nothing_came_for_a_day(postgres: str, tmp_path: Path) -> None:
    async with opened(postgres, str(tmp_path)) as (writer, database):
        await write(writer, database)
        async with database.transaction() as connection:
            await connection.execute("update archive.file set committed_at = now() where part = 0")
        await run(writer, database, 3)
        assert len(visible(tmp_path)) == 3


async def test_a_day_keeps_files_of_another_release_and_of_somebody_else(postgres: str, tmp_path: Path) -> None:
    """Those of another release have columns of their own, and become a file of their own."""
    async with opened(postgres, str(tmp_path)) as (writer, database):
        rows = await write(writer, database, files=5)
        async with database.transaction() as connection:
            await connection.execute("update archive.file set columns = 'others' where part = 1")
        await run(writer, database, 1)
        (first, *_) = visible(tmp_path)
        (first.parent / "notes.txt").touch()
        await run(writer, database, 4)

        assert (len(visible(tmp_path)), found(tmp_path)) == (2, (rows, rows))
        assert len(list(first.parent.iterdir())) == 3


async def test_a_day_of_many_files_is_merged_in_steps(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumers.archive.writer._DAY_FILES", 3)
    async with opened(postgres, str(tmp_path)) as (writer, database):
        rows = await write(writer, database, files=7)
        await run(writer, database, 1)
        for left in (5, 3, 1):
            await run(writer, database, 2)
            assert (len(visible(tmp_path)), found(tmp_path)) == (left, (rows, rows))


async def test_a_day_that_lacks_a_file_stays_as_it_is_and_holds_up_no_other(postgres: str, tmp_path: Path) -> None:
    async with opened(postgres, str(tmp_path)) as (writer, database):
        await write(writer, database, day=WHEN - timedelta(days=1))
        await write(writer, database)
        await run(writer, database, 1)
        (gone, *_) = visible(tmp_path)
        gone.unlink()
        await run(writer, database, 2)

        days = [path.parent.name for path in visible(tmp_path)]
        assert days == [*["received_date=2026-09-13"] * 2, "received_date=2026-09-14"]
        shutil.rmtree(gone.parent)
        await run(writer, database, 1)


async def test_who_lists_a_day_sees_the_files_before_or_the_one_after(postgres: str, tmp_path: Path) -> None:
    rounds, seen = 8, set[frozenset[str]]()
    ended = Flag()

    def names() -> frozenset[str]:
        return frozenset(path.name for path in visible(tmp_path))

    def look() -> None:
        while not ended.is_set():
            seen.add(names())

    async with opened(postgres, str(tmp_path)) as (writer, database):
        await write(writer, database)
        await run(writer, database, 1)
        before = names()
        reader = Thread(target=look)
        reader.start()
        try:
            for _ in range(rounds):
                await run(writer, database, 2)
                assert len(visible(tmp_path)) == 1
                await until(lambda: names() in seen)
                await write(writer, database, files=1)
                await run(writer, database, 1)
        finally:
            ended.set()
            reader.join()

    for each in seen - {before}:
        others = [name for name in each if not name.startswith("merged-")]
        assert (len(each) - len(others), len(others)) in {(1, 0), (1, 1)}
    assert len(seen) >= rounds
    assert found(tmp_path) == (3 + rounds, 3 + rounds)


@pytest.mark.parametrize("deaths", [4, pytest.param(50, marks=pytest.mark.faults)])
async def test_a_death_at_any_moment_leaves_the_files_before_or_the_one_after(
    postgres: str, tmp_path: Path, deaths: int
) -> None:
    lake = tmp_path / "lake"
    # Whether the new files are published before, or by the process that dies.
    points = cycle([("after_merge", 1), ("after_exchange", 1), ("after_publish", 1), ("after_publish", 0)])
    async with opened(postgres, str(lake)) as (writer, database):
        rows = 0
        for _ in range(deaths):
            point, before = next(points)
            rows += await write(writer, database)
            await run(writer, database, before)
            command = [sys.executable, "-m", "tests.integration.archive.merging", postgres, str(lake)]
            env = {**os.environ, VARIABLE: f"{point}:kill"}
            code, _, _ = await asyncio.to_thread(forked.run, command, env, timeout_s=HANG_S)
            assert (code, found(lake)) == (-signal.SIGKILL, (rows, rows))
        for _ in range(2):
            await age(database)
            await run(writer, database, RUNS)

        assert (len(visible(lake)), found(lake)) == (1, (rows, rows))


async def test_files_wait_to_be_published_as_one(tmp_path: Path) -> None:
    """Those of all partitions, for `WAIT_S`: readers get few."""
    async with running(open_archive, options={"root": str(tmp_path), "wait_s": "86400"}) as archive:
        writer: Archiver = archive._consumer.prepare.__self__  # type: ignore[union-attr]
        database = archive._database
        rows = await write(writer, database, files=4)
        async with database.transaction() as connection:
            await connection.execute("update archive.file set committed_at = now() - interval '23 hours'")
        await run(writer, database, 2)
        assert visible(tmp_path) == []
        current = archive.registry.get_sample_value(
            "drxbridge_archive_current_timestamp_seconds", {"service": "archive"}
        )
        assert current is not None

        await age(database)
        await run(writer, database, 2)
        (file,) = visible(tmp_path)
        assert file.name.startswith("merged-")
        assert found(tmp_path) == (rows, rows)

        rows += await write(writer, database, files=1)
        await run(writer, database, 1)
        assert found(tmp_path) == (rows, rows)
