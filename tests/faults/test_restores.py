"""The database is put back from a backup: what it lacks is applied again, also what another process has applied."""

import signal
from collections.abc import Callable
from typing import NamedTuple

import pytest

from tests.faults.appending import Mode, appending
from tests.faults.scene import Ground, Scene
from tests.faults.troubles import MAX_POLL_S, thaw, wait_frozen
from tests.integration.service_process import until
from tests.postgres import execute
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

RECORDS = 600
# Which visit freezes a member amid its work.
VISIT = 3
_TABLES = """
select format('%I.%I', schemaname, tablename) from pg_tables where schemaname in ('public', 'drx_consumer')
"""


class Case(NamedTuple):
    mode: Mode
    what: Callable[[Scene], None]


def play(ground: Ground, case: Case, seed: int) -> None:
    """Apply all events again that the backup lacks, each once."""
    with appending(ground, case.mode, Lives.of_records(RECORDS, seed=seed), partitions=1) as scene:
        case.what(scene)
        scene.finish()


def under_a_running_member(scene: Scene) -> None:
    """It is behind what the member has committed, who goes back to where it stands."""
    scene.write(RECORDS // 3)
    scene.member()
    scene.wait_settled()
    restore = backup(scene)
    scene.write(RECORDS // 3)
    scene.wait_settled()
    restore()


def under_a_member_cut_off(scene: Scene) -> None:
    """Another has taken over when it comes back, with a claim that is younger than the backup, as that of the other."""
    scene.write(RECORDS // 3)
    first = scene.member()
    scene.wait_settled()
    first.send_signal(signal.SIGTERM)
    assert first.ended() == 0
    restore = backup(scene)
    scene.write(RECORDS // 3)
    cut_off = scene.member(f"before_fence:stop@{VISIT}", MAX_POLL_S)
    wait_frozen(cut_off)
    restore()
    scene.forget_members()
    owner = scene.member(f"before_fence:stop@{VISIT - 1}")
    wait_frozen(owner)
    thaw(cut_off)
    owner.thaw()


def of_an_empty_partition(scene: Scene) -> None:
    """Kafka's offset is beyond all that came since, and a group that began at the end would begin there again."""
    member = scene.member(KAFKA__OFFSET_RESET="latest")
    until(lambda: scene.progress() == {0: 0}, what="progress without a record")
    restore = backup(scene)
    scene.write(RECORDS // 3)
    scene.wait_settled()
    member.send_signal(signal.SIGTERM)
    assert member.ended() == 0
    restore()
    scene.member(KAFKA__OFFSET_RESET="latest")


def backup(scene: Scene) -> Callable[[], None]:
    """Copy all tables as they are now; return what puts the copies back, without an end of any connection."""
    tables = [name for (name,) in scene.ask(_TABLES)]
    counters = scene.ask("select format('%I.%I', schemaname, sequencename), last_value from pg_sequences")
    copies = {each: f"backup.table_{number}" for number, each in enumerate(tables)}
    execute(scene.dsn, "create schema backup", *(f"create table {copies[each]} as table {each}" for each in tables))
    return lambda: put_back(
        scene,
        f"truncate {', '.join(tables)}",
        *(f"insert into {each} overriding system value select * from {copies[each]}" for each in tables),  # noqa: S608 - ours
        *(f"select setval('{name}', {count})" for name, count in counters if count is not None),
    )


def put_back(scene: Scene, *statements: str) -> None:
    """Do it all at one moment; copies come in any order, so nothing is said of references meanwhile."""
    execute(scene.dsn, "begin", "set local session_replication_role = replica", *statements, "commit")


CASES = [
    Case("lanes", under_a_running_member),
    Case("batches", under_a_member_cut_off),
    Case("batches", of_an_empty_partition),
    *(
        pytest.param(case, marks=pytest.mark.faults)
        for case in (
            Case("batches", under_a_running_member),
            Case("lanes", under_a_member_cut_off),
            Case("lanes", of_an_empty_partition),
        )
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.mode}-{case.what.__name__}")
def test_what_a_backup_lacks_is_applied_again(played: Callable[[], None]) -> None:
    played()
