"""What PostgreSQL refuses only this time is tried again: real errors, made by a second connection."""

from __future__ import annotations

from typing import Any

import asyncpg  # noqa: TID251 - the second connection
import pytest

from tests.faults.scene import Ground, Mode, appending
from tests.integration.ingress_process import until
from tests.postgres import execute
from tests.topic_filler import Lives

pytestmark = [pytest.mark.kafka, pytest.mark.parametrize("mode", ["batches", "lanes"])]

LIVES = Lives(20)
SHARED = LIVES.prescription_id(7)
# Nothing else waits for a lock there.
_WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
# The first two events of a prescription meet what a serializable transaction would; a sequence forgets nothing.
_SERIALIZATION = (
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


_DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


async def test_a_deadlock_is_tried_again(mode: Mode, ground: Ground) -> None:
    """The other one waits longer before it looks for a deadlock, so ours is the one that is refused."""
    with appending(ground, mode, LIVES, shared=SHARED) as scene:
        other: Any = await asyncpg.connect(scene.dsn)
        await other.execute("set deadlock_timeout = '60s'")
        async with other.transaction():
            await other.execute("update shared set touched = touched")
            scene.write()
            scene.member()
            until(lambda: scene.ask(_WAITING) == [(1,)], what="a handler that waits for the shared row")
            await other.execute("insert into counted values ($1, 0) on conflict do nothing", SHARED)
            await other.execute("delete from counted where prescription_id = $1", SHARED)
        await other.close()
        scene.wait_settled()
        scene.release()
        scene.check_effects()
        # The server tells its counts once a session is idle.
        until(lambda: scene.ask(_DEADLOCKS)[0][0] == 1, what="a counted deadlock")


def test_a_serialization_failure_is_tried_again(mode: Mode, ground: Ground) -> None:
    with appending(ground, mode, LIVES) as scene:
        execute(scene.dsn, *_SERIALIZATION)
        scene.write()
        scene.member()
        scene.wait_settled()
        scene.release()
        scene.check_effects()
        tries = scene.ask("select last_value from tries")[0][0]

    assert tries > 2
