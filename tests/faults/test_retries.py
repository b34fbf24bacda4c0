"""What PostgreSQL refuses only this time is tried again: its own errors, in the transaction of a handler."""

from collections.abc import Callable
from typing import get_args

import pytest

from tests.faults.appending import Mode, appending
from tests.faults.scene import Ground
from tests.postgres import execute
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

LIVES = Lives(20)
REFUSED_TWICE = LIVES.prescription_id(7)
# Of one prescription, the first two attempts; a sequence does not forget what is rolled back.
_REFUSE_TWICE = (
    "create sequence tries",
    """
    create function refuse_twice() returns trigger language plpgsql as $$ begin
        case nextval('tries')
            when 1 then raise exception using errcode = 'deadlock_detected';
            when 2 then raise exception using errcode = 'serialization_failure';
            else return new;
        end case;
    end $$
    """,
    f"""
    create trigger refuse before insert on appended for each row when (new.prescription_id = '{REFUSED_TWICE}')
    execute function refuse_twice()
    """,
)


def play(ground: Ground, case: Mode, seed: int) -> None:
    del seed
    with appending(ground, case, LIVES) as scene:
        execute(scene.dsn, *_REFUSE_TWICE)
        scene.member()
        scene.finish()
        assert scene.ask("select last_value from tries")[0][0] >= len(LIVES.ids()[REFUSED_TWICE]) + 2


@pytest.mark.parametrize("case", get_args(Mode))
def test_what_is_refused_only_this_time_is_tried_again(played: Callable[[], None]) -> None:
    played()
