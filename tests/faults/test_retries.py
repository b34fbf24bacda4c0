"""What PostgreSQL refuses only this time is tried again: real errors, of transactions that meet another one."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args
from urllib.parse import urlsplit

import asyncpg  # noqa: TID251 - the other one
import pytest

from consumers.postgres.pool import LOCK_TIMEOUT_S
from tests.faults.appending import Mode, appending
from tests.faults.scene import Ground, Scene
from tests.integration.service_process import until
from tests.postgres import execute
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

Refusal = Literal["deadlock", "serialization_failure"]
LIVES = Lives(20)
SHARED = LIVES.prescription_id(7)
# Less than the time after which a consumer waits for no lock any more.
LOOK_S = LOCK_TIMEOUT_S - 1
_WAITING_FOR = "select pid from pg_stat_activity where {} = any (pg_blocking_pids(pid))"
_DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"
_TRIES = "select last_value from tries"
# Of one prescription, the first two attempts; a sequence does not forget what is rolled back.
_REFUSE_TWICE = (
    "create sequence tries",
    """
    create function refuse_twice() returns trigger language plpgsql as $$ begin
        if nextval('tries') <= 2 then raise exception using errcode = 'serialization_failure'; end if;
        return new;
    end $$
    """,
    f"""
    create trigger refuse before insert on appended for each row when (new.prescription_id = '{SHARED}')
    execute function refuse_twice()
    """,
)


class Case(NamedTuple):
    mode: Mode
    refusal: Refusal


def play(ground: Ground, case: Case, seed: int) -> None:
    del seed
    with appending(ground, case.mode, LIVES, shared=SHARED) as scene:
        if case.refusal == "deadlock":
            asyncio.run(_deadlock(scene))
            scene.finish()
            # The server counts once a session is idle.
            until(lambda: scene.ask(_DEADLOCKS)[0][0] > 0, what="a counted deadlock")
        else:
            execute(scene.dsn, *_REFUSE_TWICE)
            scene.member()
            scene.finish()
            assert scene.ask(_TRIES)[0][0] > 2


async def _deadlock(scene: Scene) -> None:
    """Wait for what a handler holds while it waits for what we hold.

    We wait longer before we look for a deadlock, so it is the handler that is refused. It looks once, some time after
    it has begun to wait: by then we must wait too.
    """
    execute(scene.dsn, f"alter database {urlsplit(scene.dsn).path[1:]} set deadlock_timeout = '{LOOK_S}s'")
    other: Any = await asyncpg.connect(scene.dsn)
    try:
        await other.execute("set deadlock_timeout = '60s'")
        transaction = other.transaction()
        await transaction.start()
        await other.execute("update shared set touched = touched")
        scene.write()
        scene.member()
        # Asked by another one still: within a transaction the view does not change.
        waiting = _WAITING_FOR.format(other.get_server_pid())
        until(lambda: execute(scene.dsn, waiting) != [[]], what="a handler that waits for the shared row")
        await other.execute("insert into counted values ($1, 0) on conflict do nothing", SHARED)
        await transaction.rollback()
    finally:
        await other.close()


@pytest.mark.parametrize(
    "case", [Case(mode, refusal) for mode in get_args(Mode) for refusal in get_args(Refusal)], ids="-".join
)
def test_what_is_refused_only_this_time_is_tried_again(played: Callable[[], None]) -> None:
    played()
