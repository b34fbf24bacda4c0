from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.errors import TransientError
from consumers.postgres.migrate import read_migrations
from consumers.read_model.consumer import MIGRATIONS
from tests.prescriptions import cancel_answered, created, filled
from tests.read_model import ReadModel, open_model


@pytest.fixture
async def model(model_dsn: str) -> AsyncIterator[ReadModel]:
    async with open_model(model_dsn) as opened:
        await opened.apply(created(0))
        yield opened


async def attempt(model: ReadModel, role: str, statement: str) -> None:
    async with model.database.transaction() as connection:
        await connection.execute(f"set local role {role}")
        await connection.execute(statement.format(schema=model.schema))


async def test_a_consumer_may_apply_events_and_look_at_the_timers(model: ReadModel) -> None:
    async with model.database.transaction() as connection:
        await connection.execute("set local role drx_consumer")
        await model.apply_within(
            connection, cancel_answered(1, request_id="c1", decision="approved"), filled(2, "dispensed")
        )
        for job in model.consumer.jobs:
            await job.run(connection)

    assert (await model.prescription())["events"] == 3


READ = ("select 1 from {schema}.prescription", "select 1 from {schema}.event", "select 1 from {schema}.safety_signal")
WRITE = (
    "insert into {schema}.event select * from {schema}.event",
    "update {schema}.event set topic = ''",
    "update {schema}.prescription set display = ''",
    "update {schema}.timer set gaps = 1",
)
DESTROY = (
    "delete from {schema}.event",
    "delete from {schema}.prescription",
    "truncate {schema}.event",
    "alter table {schema}.event add x int",
    "create table {schema}.x ()",
    "drop table {schema}.event",
)
FIGURES = (
    "select * from {schema}.overdue_count",
    "select * from {schema}.source_silence",
    "select * from {schema}.status_count",
    "select * from {schema}.daily_event",
    "select * from {schema}.daily_fill",
    "select * from {schema}.daily_transmission",
    "select * from {schema}.masked_overdue",
    "select * from {schema}.masked_safety",
    "select * from {schema}.masked_status('rx_1')",
    "select * from {schema}.masked_history('rx_1')",
    "select * from {schema}.masked_waits('rx_1')",
)


FORBIDDEN = {
    "drx_consumer": ("update {schema}.event set topic = ''", *DESTROY),
    "drx_phi_reader": (*WRITE, *DESTROY),
    "drx_reader": (*READ, *WRITE, *DESTROY),
}
ALLOWED = {"drx_phi_reader": (*READ, *FIGURES, "select * from {schema}.timeline"), "drx_reader": FIGURES}


async def test_what_a_role_is_not_for_is_refused(model: ReadModel) -> None:
    for role, statements in FORBIDDEN.items():
        for statement in statements:
            with pytest.raises(TransientError, match="not_permitted"):
                await attempt(model, role, statement)


async def test_what_a_reader_is_for_is_allowed(model: ReadModel) -> None:
    for role, statements in ALLOWED.items():
        for statement in statements:
            await attempt(model, role, statement)


async def test_only_readers_that_are_named_may_call_a_function(model: ReadModel) -> None:
    may = "has_function_privilege('public', oid, 'execute')"
    functions = f"select proname from pg_proc where pronamespace = $1::regnamespace and {may}"  # noqa: S608 - ours

    assert await model.rows(functions, model.schema) == []


async def test_a_release_goes_on_with_tables_that_a_newer_one_has_added_to(postgres: str, tmp_path: Path) -> None:
    """Rolled out, the newer one runs beside it; rolled back, after it."""
    known = read_migrations(MIGRATIONS)
    for migration in known:
        (tmp_path / migration.name).write_text(migration.sql)
    added = "alter table {schema}.prescription add column mood text not null default 'good'"
    (tmp_path / f"{len(known) + 1:04}_mood.sql").write_text(added)
    async with open_model(postgres, migrations=tmp_path) as newer:
        await newer.apply(created(0))

    async with open_model(postgres) as model:
        await model.apply(filled(1, "dispensed"))
        await model.tick()

        row = await model.prescription()
        assert (row["events"], row["display"], row["mood"]) == (2, "dispensed", "good")
