"""`drx-consumer prune`: delete a group's settled events and history beyond a horizon, in small transactions."""

import asyncio
import math
import re
from datetime import UTC, datetime, timedelta

import click

from bridge.runtime.audit import audited
from bridge.runtime.screen import print_json
from consumers.api import History
from consumers.archive.options import NAME as ARCHIVE
from consumers.commands.installed import Chosen
from consumers.commands.options import decision_options, json_option, of_consumer
from consumers.postgres.pool import Database
from consumers.runtime.operator import By, Decision, audit

# Rows deleted at a time: takes a fraction of a second, far below the statement timeout.
BATCH_ROWS = 5_000
# Pause after a deletion, as a multiple of its duration. With 1, the read model was a fifth slower on two busy CPUs.
PAUSES = 3
_STEP_MIN = timedelta(seconds=1)
# Seconds; finding the oldest row of a large table reads all rows older than the horizon at the first run.
STATEMENT_TIMEOUT_S = 3_600.0
_is_days = re.compile(r"[1-9][0-9]{0,4}d", re.ASCII).fullmatch

# The inbox keeps events that the group's history still has: otherwise they could be applied again.
_INBOX = "t.grp = $3"
_HELD = "not exists (select from {table} h where (h.source, h.event_id) = (t.source, t.event_id))"
# If there is an archive: only records that it has settled and not parked.
_ARCHIVED = f"""
not exists (
  select from (
    select distinct grp from drx_consumer.progress where grp = '{ARCHIVE}' or starts_with(grp, '{ARCHIVE}.')
  ) a
  where not exists (
    select from drx_consumer.progress p
    where (p.grp, p.topic, p.part) = (a.grp, t.topic, t.partition) and p.next_offset > t."offset"
  ) or exists (
    select from drx_consumer.parked_event k
    where (k.grp, k.topic, k.part, k."offset") = (a.grp, t.topic, t.partition, t."offset")
  )
)
"""  # noqa: S608 - a constant


def _days(_context: click.Context, _parameter: click.Parameter, given: str) -> timedelta:
    if not _is_days(given):
        raise click.BadParameter("a number of days, such as 400d")
    return timedelta(days=int(given[:-1]))


@click.command()
@of_consumer
@click.option("--older-than", required=True, callback=_days, metavar="DAYS", help="Horizon, such as 400d.")
@decision_options(needs_reason=False)
@json_option
def prune(*, chosen: Chosen, older_than: timedelta, by: By, as_json: bool) -> int:
    """Delete events that the consumer NAME settled before the horizon, and its history from before it.

    Open prescriptions are kept, and events that a group of `archive` has not stored. A repeat of a deleted event is
    applied again. May run while the consumer runs, and be interrupted at any time.
    """
    group, horizon, dry_run = chosen.consumer.group, datetime.now(UTC) - older_than, by.dry_run
    by = by._replace(reason=by.reason or f"older than {older_than.days}d")
    with audited("prune", group=group, before=horizon, **by._asdict()) as ended:
        pruned = asyncio.run(_prune(chosen, horizon, by))
        ended.update(pruned)
    if as_json:
        print_json({"verb": "prune", "dry_run": dry_run, "group": group, "before": horizon, **pruned})
    else:
        most, would = ("at most ", "would be ") if dry_run else ("", "")
        found = f"{pruned['history']} events of its history, {most}{pruned['inbox']} of its inbox"
        click.echo(f"group {group}: {found} {would}deleted")
    return 0


async def _prune(chosen: Chosen, horizon: datetime, by: By) -> dict[str, int]:
    """Return the number of rows deleted from the history and the inbox."""
    group, history, dry_run = chosen.consumer.group, chosen.consumer.history, by.dry_run
    async with chosen.open_database("prune", timeout_s=STATEMENT_TIMEOUT_S) as database:
        if not dry_run:
            # First, so that `where` knows what an interrupted run has deleted.
            async with database.transaction() as connection:
                decision = Decision(code=horizon.isoformat())
                await audit(connection, group, "prune", [decision], by)
        events, condition = 0, _INBOX
        if history is not None:
            unneeded = history._replace(condition=f"({history.condition}) and {_ARCHIVED}")
            events = await _sweep(database, unneeded, horizon, horizon, dry_run=dry_run)
            if not dry_run:  # rows of the history are still there and would keep all events
                condition = f"{_INBOX} and {_HELD.format(table=history.table)}"
        inbox = History("drx_consumer.inbox", "settled_at", condition)
        return {"history": events, "inbox": await _sweep(database, inbox, horizon, group, dry_run=dry_run)}


async def _sweep(
    database: Database, rows: History, horizon: datetime, argument: str | datetime, *, dry_run: bool
) -> int:
    """Delete the rows from before the horizon, one time span after another, and return their number.

    Each span is found by the index on time, so transactions do not read kept rows again.
    """
    table, time, condition = rows
    ((first, count),) = await database.fetch(f"select min({time}), count(*) from {table} where {time} < $1", horizon)  # noqa: S608 - our own names
    if not count:
        return 0
    where = f"from {table} t where t.{time} >= $1 and t.{time} < $2 and {condition}"
    delete = f"""
    with gone as (
      delete from {table} where ctid = any (array(select t.ctid {where} limit {BATCH_ROWS})) returning 1
    ) select count(*) from gone
    """  # noqa: S608 - as above
    statement = f"select count(*) {where}" if dry_run else delete
    step = max((horizon - first) / math.ceil(count / BATCH_ROWS), _STEP_MIN)
    loop, found = asyncio.get_running_loop(), 0
    while first < horizon:
        began, until = loop.time(), min(first + step, horizon)
        ((some,),) = await database.fetch(statement, first, until, argument)
        found += some
        if dry_run or some < BATCH_ROWS:
            first = until
        await asyncio.sleep(PAUSES * (loop.time() - began))
    return found
