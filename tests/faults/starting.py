"""Scenes of `workflow`: groups call one Temporal server, each in a separate namespace."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

from consumers.workflow.options import NAME, SHIPPED_RULES
from consumers.workflow.rules import parse_rules
from consumers.workflow.timers import RESOLVED
from tests.faults.scene import Ground, Scene, Subject, scene_of
from tests.integration.service_process import until
from tests.postgres import execute
from tests.temporal.histories import Told, a_client, told
from tests.temporal.server import TemporalServer
from tests.topic_filler import Lives

# Items that stay overdue, and those that a test resolves.
WAITING, OVER = 40, 10
# A copied history has the request ids of the original.
RULES = SHIPPED_RULES.read_text(encoding="utf-8").replace("{source}", "{source}:{key}")
# A substitute for the read model's views, with the columns that `workflow` queries.
_VIEWS = (
    "create schema read_model",
    """
    create table read_model.overdue
      (kind text, prescription_id text, request_id text, source text, account_id text, since timestamptz)
    """,
    """
    create table read_model.safety_signal
      (kind text, prescription_id text, source text, account_id text, cancelled_at timestamptz)
    """,
    "create table read_model.source_silence (source text, silent bool, last_received_at timestamptz)",
    f"""
    insert into read_model.overdue
    select 'unconfirmed', 'rx_' || n, null, 'drx', 'acct_1', timestamptz '2026-09-01' + n * interval '1 minute'
    from generate_series(1, {WAITING + OVER}) n
    """,  # noqa: S608 - ours
)
_ENDS = f"delete from read_model.overdue where prescription_id in (select 'rx_' || n from generate_series(1, {OVER}) n)"  # noqa: S608 - ours


@contextmanager
def calling(ground: Ground, lives: Lives, server: TemporalServer) -> Iterator[Scene]:
    instance = f"i{uuid4().hex[:12]}"
    rules = ground.directory / f"{instance}.toml"
    rules.write_text(RULES)
    options = {
        "ADDRESS": server.address,
        "ALLOW_PLAINTEXT": "true",
        "NAMESPACE": instance,
        "INSTANCE": instance,
        "TOPICS": f"faults.workflow.{instance}",
        "TIMERS_EVERY_S": "1",
        "RULES": str(rules),
    }
    checked = partial(check, server, instance)
    subject = Subject(NAME, f"{NAME}.{instance}", options["TOPICS"], options, checked, tables=_VIEWS)
    with scene_of(ground, subject, lives) as scene:
        yield scene


def _wait_started(scene: Scene, many: int, which: str = "true") -> None:
    table = f'"{scene.group.replace(".", "_")}".started'
    until(
        lambda: scene.ask(f"select count(*) from {table} where {which}") == [(many,)],  # noqa: S608 - ours
        what=f"{many} workflows for what waits",
    )


def expected(lives: Lives) -> dict[str, list[tuple[str, str]]]:
    """Return the signals of every workflow that is due, by its id: name and event; a start has an empty name."""
    rules = parse_rules(RULES, file="rules.toml")
    due: dict[str, list[tuple[str, str]]] = {}
    for number in range(lives.prescriptions):
        for event in lives.events(number):
            action = rules.action(event)
            if action is not None:
                due.setdefault(action.id, []).append((action.signal, event.id))
    return due


def check(server: TemporalServer, namespace: str, scene: Scene) -> None:
    """Check that every workflow was started by its first event and got all others, in order; no record is parked.

    Workflows for overdue items are signalled at the end of the wait.
    """
    _wait_started(scene, WAITING + OVER)
    execute(scene.dsn, _ENDS)
    _wait_started(scene, OVER, "resolved_at is not null")
    assert scene.parked() == 0
    due = expected(scene.lives)
    assert due
    rows = scene.ask(f'select workflow_id, resolved_at is not null from "{scene.group.replace(".", "_")}".started')  # noqa: S608 - ours
    found = asyncio.run(_told(server.address, namespace, [*due, *(row[0] for row in rows)]))
    for workflow_id, said in due.items():
        workflow = found[workflow_id]
        assert workflow is not None, workflow_id
        assert workflow.started_with["event_id"] == said[0][1]
        # This server does not recognise repeated signals; a repeat has the same event.
        signals = dict.fromkeys((name, event["event_id"]) for name, event in workflow.signals)
        assert list(signals) == [each for each in said if each[0]]
    assert sorted(over for _, over in rows) == [False] * WAITING + [True] * OVER
    for workflow_id, over in rows:
        workflow = found[workflow_id]
        assert workflow is not None, workflow_id
        assert {name for name, _ in workflow.signals} == ({RESOLVED} if over else set())


async def _told(address: str, namespace: str, ids: list[str]) -> dict[str, Told | None]:
    async with a_client(address, namespace=namespace) as client:
        return {each: await told(client, each) for each in ids}
