"""Start a workflow for each overdue wait, and signal it when the wait is resolved.

The read model's views list what is overdue at the time of the query, whatever the order of events; there is no timer
per event. Started workflows are recorded in a table, in the transaction that queries the views. A process that crashes
between a start and its row repeats the start under the same id, and the server refuses it.
"""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from bridge.errors import BridgeError, ConfigError, TransientError
from bridge.event import instant
from bridge.runtime.logging import log
from consumers.workflow.options import NAME, WorkflowOptions
from consumers.workflow.rules import Action, request_id
from consumers.workflow.temporal import Temporal, WorkflowMetrics

WORKFLOW = "Overdue"
RESOLVED = "resolved"
# Seconds after which a run leaves the rest to the next one.
BUDGET_S = 30.0
# Concurrent calls, in addition to those of the lanes.
_TOGETHER = 16
# Rows of the views, in the order in which they are handled; the rest waits for the next run.
_ROWS_MAX = 5_000

# The views of the read model as five columns: the subject of a wait and its start.
_WAITING = """
  select kind collate "C" as kind, coalesce(prescription_id, 'req:' || request_id) collate "C" as subject,
    source collate "C" as source, account_id collate "C" as account_id, since from "{read_model}".overdue
  union all
  select kind collate "C", prescription_id collate "C", source collate "C", account_id collate "C", cancelled_at
    from "{read_model}".safety_signal
  union all
  select 'source_silent' collate "C", source collate "C", source collate "C", null, last_received_at
    from "{read_model}".source_silence where silent
"""
_VIEWS = ("overdue", "safety_signal", "source_silence")


class _Wait(NamedTuple):
    """A wait that is overdue, or no longer is; its action starts or signals a workflow."""

    kind: str
    subject: str
    since: datetime
    times: int  # how often the same wait was overdue, including this time
    workflow_id: str
    action: Action
    payload: bytes


class Timers:
    """A job that compares the views with the started workflows."""

    def __init__(self, options: WorkflowOptions, *, task_queue: str, metrics: WorkflowMetrics) -> None:
        self._group = options.group(NAME)
        self._options = options
        self._task_queue = task_queue
        self._metrics = metrics
        schema = options.schema_name(NAME)
        waiting = _WAITING.replace("{read_model}", options.read_model_schema)
        self._new = f"""
            select distinct on (since, kind, subject)
              kind, subject, w.source, w.account_id, since, coalesce(s.times, 0) + 1
            from ({waiting}) w left join "{schema}".started s using (kind, subject, since)
            where (s.kind is null or s.resolved_at is not null) and ($1::timestamptz is null or since >= $1)
            order by since, kind, subject, w.source limit $2
            """  # noqa: S608 - checked names
        self._gone = f"""
            select s.kind, s.subject, s.since, s.times, s.workflow_id from "{schema}".started s
            where s.resolved_at is null and not exists (
              select from ({waiting}) w where (w.kind, w.subject, w.since) = (s.kind, s.subject, s.since)
            )
            order by s.since limit $1
            """  # noqa: S608 - as above
        self._note = f"""
            insert into "{schema}".started as s (kind, subject, since, times, workflow_id)
            select * from unnest($1::text[], $2::text[], $3::timestamptz[], $4::int[], $5::text[])
            on conflict (kind, subject, since) do update
              set times = excluded.times, workflow_id = excluded.workflow_id, started_at = clock_timestamp(),
                resolved_at = null
            """  # noqa: S608 - as above
        self._resolve = f"""
            update "{schema}".started s set resolved_at = clock_timestamp()
            from unnest($1::text[], $2::text[], $3::timestamptz[]) as r (kind, subject, since)
            where (s.kind, s.subject, s.since) = (r.kind, r.subject, r.since)
            """  # noqa: S608 - as above

    async def prepare(self, connection: Any) -> None:
        """Check that the read model exists; `ConfigError` if it does not."""
        schema = self._options.read_model_schema
        for view in _VIEWS:
            if await connection.fetchval("select to_regclass($1)", f'"{schema}".{view}') is None:
                raise ConfigError(
                    f"workflow.read_model_schema: this database has no {schema}.{view}; the timers read it:"
                    " run `drx-consumer init read_model`, or set CONSUMER_WORKFLOW__TIMERS=off"
                )

    async def __call__(self, connection: Any, temporal: Temporal) -> None:
        """Run once. Calls that fail are left to the next run; those that succeed are recorded."""
        until = time.monotonic() + BUDGET_S
        new = [self._started(row) for row in await connection.fetch(self._new, self._options.timers_from, _ROWS_MAX)]
        gone = [self._resolved(*row) for row in await connection.fetch(self._gone, _ROWS_MAX)]
        failures: list[str] = []
        for waits, statement, columns, outcome in ((gone, self._resolve, 3, RESOLVED), (new, self._note, 5, "started")):
            for some in (waits[start : start + _TOGETHER] for start in range(0, len(waits), _TOGETHER)):
                if time.monotonic() >= until:
                    failures.append("too_many")
                    break
                answers = await asyncio.gather(*(self._act(temporal, each) for each in some))
                done = [wait for wait, failure in zip(some, answers, strict=True) if failure is None]
                if done:
                    await connection.execute(statement, *([each[column] for each in done] for column in range(columns)))
                for each in done:
                    self._metrics.timer(each.kind, outcome)
                failures.extend(failure.code for failure in answers if failure is not None)
                if any(isinstance(failure, TransientError) and failure.systemic for failure in answers):
                    break
        if failures:
            log.warning("worker.timers_failed", group=self._group, code=failures[0])
        else:
            self._metrics.checked()

    async def _act(self, temporal: Temporal, wait: _Wait) -> BridgeError | None:
        """Call the server and return its error, if any."""
        asked = request_id(self._group, wait.workflow_id, wait.action.do)
        try:
            await temporal.act(wait.action, wait.payload, request_id=asked)
        except BridgeError as exc:
            return exc
        return None

    def _started(self, row: Sequence[Any]) -> _Wait:
        kind, subject, source, account_id, since, times = row
        when = instant(since)
        workflow_id = ":".join(("overdue", kind, subject, when, *((str(times),) if times > 1 else ())))
        facts = {"kind": kind, "subject": subject, "source": source, "account_id": account_id, "since": when}
        action = Action("start", workflow_id, WORKFLOW, self._task_queue, "")
        return _Wait(kind, subject, since, times, workflow_id, action, orjson.dumps(facts, option=orjson.OPT_SORT_KEYS))

    @staticmethod
    def _resolved(kind: str, subject: str, since: datetime, times: int, workflow_id: str) -> _Wait:
        payload = orjson.dumps({"kind": kind, "since": instant(since), "subject": subject})
        return _Wait(kind, subject, since, times, workflow_id, Action("signal", workflow_id, "", "", RESOLVED), payload)
