"""`drx-consumer lag`: show how far a consumer is behind, from Kafka and PostgreSQL, without its processes."""

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import click

from bridge.kafka.consumed_record import TopicPartition
from bridge.runtime.findings import counted
from bridge.runtime.process import bootstrap_option
from bridge.runtime.screen import print_json, print_rows
from consumers.commands.installed import Chosen
from consumers.commands.options import of_consumer
from consumers.runtime.groups import GroupState
from consumers.runtime.operator import opened_at, standings
from consumers.runtime.start_positions import WORDS, why_stopped


class Lag(NamedTuple):
    """How far one partition is behind."""

    topic: str
    partition: int
    next_offset: int | None  # everything below is settled; None if there is no progress yet
    above: int  # records settled at or above it
    committed: int | None  # the group's offset in Kafka, which lags behind `next_offset`
    log_start: int
    log_end: int
    records: int
    seconds: float | None  # age of the oldest record not settled; None if it could not be read
    unreadable: int | None  # offset of the next batch, if that is unreadable
    stopped: str  # code why the partition is not read, or empty


@click.command()
@bootstrap_option
@of_consumer
@click.option("--json", "as_json", is_flag=True, help="One JSON line per partition.")
def lag(*, chosen: Chosen, as_json: bool) -> int:
    """Show how far the consumer NAME is behind, in records and seconds per partition, also while it is not running.

    Exit 1 if a partition is stopped, since its progress does not match its log: the topic was recreated or truncated.
    """
    state, parked, since, lags = asyncio.run(_lags(chosen))
    group = chosen.consumer.group
    if as_json:
        print_json(*({"group": group, "state": state.state, **each._asdict()} for each in lags))
        return int(any(each.stopped for each in lags))
    print_rows(("partition", "next", "end", "behind", "seconds", ""), (_row(each) for each in lags))
    for each in lags:
        if each.unreadable is not None:
            click.echo(f"{each.topic}/{each.partition}: the batch at offset {each.unreadable} cannot be read", err=True)
    click.echo(f"group {group}: {_summary(chosen.named, state, parked, since, lags)}")
    if stopped := [each for each in lags if each.stopped]:
        partitions = counted(len(stopped), "partition")
        click.echo(f"{partitions} stopped: see `drx-consumer doctor {chosen.named}`", err=True)
    return int(bool(stopped))


def _summary(named: str, state: GroupState, parked_keys: int, opened_at: datetime | None, lags: Sequence[Lag]) -> str:
    """Return the state of a group as a line; `named` is the consumer as in a command line."""
    if not state.live and not any(each.next_offset is not None or each.committed is not None for each in lags):
        return f"has not begun; `drx-consumer init {named} --from earliest|latest|TIME` sets where it does"
    total = sum(each.records for each in lags)
    members, behind = counted(state.members, "member"), counted(total, "record")
    line = f"{state.state}, {members}, {behind} behind, {counted(parked_keys, 'key')} parked"
    if opened_at is None:
        return line
    return f"{line}; the park limit is open: `drx-consumer parked resume {named} --reason …`"


def _row(lag: Lag) -> tuple[object, ...]:
    seconds = None if lag.seconds is None else round(lag.seconds, 1)
    return f"{lag.topic}/{lag.partition}", lag.next_offset, lag.log_end, lag.records, seconds, WORDS[lag.stopped]


async def _lags(chosen: Chosen) -> tuple[GroupState, int, datetime | None, list[Lag]]:
    """Return the state of the group, its parked keys, when the park limit opened (None while closed), and the lags."""
    consumer = chosen.consumer
    async with chosen.open_database("lag") as database:
        stored = await standings(database, consumer.group, consumer.topics)
        since = await opened_at(database, consumer.group)
    async with chosen.open_group() as view:
        state, bounds, committed = await view.state(), await view.bounds(), await view.committed()
        next_offsets: dict[TopicPartition, int | None] = {}
        behind: dict[TopicPartition, int] = {}
        for at, (start, end) in bounds.items():
            next_offsets[at] = next_offset = stored[at].next_offset if at in stored else None
            first = start if next_offset is None or next_offset > end else max(next_offset, start)
            if first < end:
                behind[at] = first
        oldest = await view.first_records(behind)
    now = time.time()
    lags = []
    for at, bound in sorted(bounds.items()):
        above = stored[at].above if at in stored else 0
        record = oldest.get(at)
        # Only transaction markers may be left up to the end, which readers do not see.
        is_behind = at in behind and (record is not None or at not in oldest)
        records = bound.end - behind[at] - above if is_behind else 0
        age = None if record is None else max(0.0, now - record.timestamp_ms / 1000)
        seconds = age if is_behind else 0.0
        unreadable = view.unreadable.get(at)
        stopped = why_stopped(next_offsets[at], bounds[at])
        lags.append(
            Lag(*at, next_offsets[at], above, committed[at], *bounds[at], records, seconds, unreadable, stopped)
        )
    return state, sum(each.parked_keys for each in stored.values()), since, lags
