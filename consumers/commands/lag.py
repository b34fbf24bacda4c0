"""`drx-consumer lag`: how far a consumer is behind; asks Kafka and PostgreSQL, and no process of the group."""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict, dataclass

import click
import orjson
from rich.console import Console
from rich.table import Table

from bridge.kafka.groups import GroupState, open_group
from bridge.kafka.progress import standings
from bridge.kafka.transport import Place
from bridge.runtime.logging import silence_kafka_client
from consumers.commands.database import open_for_operator
from consumers.commands.installed import Chosen, choose


@dataclass(frozen=True, slots=True)
class Lag:
    """How far one partition is behind.

    Attributes:
        next_offset: Everything below is settled; None if nobody has said where to begin.
        above: Records settled at or above it.
        committed: What Kafka has for the group; it follows.
        records: Records not settled yet.
        seconds: Age of the oldest of them; None if it could not be read.
    """

    topic: str
    partition: int
    next_offset: int | None
    above: int
    committed: int | None
    log_start: int
    log_end: int
    records: int
    seconds: float | None


@click.command()
@click.argument("name")
@click.option("--schema", help="Of the one that is being built beside the live one.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line per partition.")
def lag(*, name: str, schema: str | None, as_json: bool) -> int:
    """Show how far the consumer NAME is behind, in records and seconds per partition, also while it is not running."""
    chosen = choose(name, schema=schema)
    silence_kafka_client()
    state, lags = asyncio.run(_lags(chosen))
    if as_json:
        for each in lags:
            click.echo(orjson.dumps({"group": chosen.consumer.group, "state": state.state, **asdict(each)}))
        return 0
    table = Table(box=None, header_style="bold")
    for heading in ("partition", "next", "end", "behind", "seconds"):
        table.add_column(heading, justify="left" if heading == "partition" else "right")
    for each in lags:
        cells = (each.next_offset, each.log_end, each.records, None if each.seconds is None else round(each.seconds, 1))
        table.add_row(f"{each.topic}/{each.partition}", *("-" if cell is None else str(cell) for cell in cells))
    console = Console()
    console.print(table)
    total = sum(each.records for each in lags)
    console.print(f"group {chosen.consumer.group}: {state.state}, {state.members} members, {total} records behind")
    return 0


async def _lags(chosen: Chosen) -> tuple[GroupState, list[Lag]]:
    consumer, settings = chosen.consumer, chosen.settings
    async with open_for_operator(chosen, "lag") as database:
        stored = await standings(database, consumer.group, consumer.topics)
    async with open_group(settings.kafka.connection, consumer.group, consumer.topics) as view:
        state, bounds, committed = await view.state(), await view.bounds(), await view.committed()
        marks: dict[Place, int | None] = {}
        behind: dict[Place, int] = {}
        for at, (start, end) in bounds.items():
            marks[at] = mark = stored[at].next_offset if at in stored else None
            first = start if mark is None else max(mark, start)
            if first < end:
                behind[at] = first
        oldest = await view.first_records(behind)
    now = time.time()
    lags = []
    for at in sorted(bounds):
        above = stored[at].above if at in stored else 0
        records = bounds[at].end - behind[at] - above if at in behind else 0
        age = max(0.0, now - oldest[at].timestamp_ms / 1000) if at in oldest else None
        seconds = age if at in behind else 0.0
        lags.append(Lag(*at, marks[at], above, committed[at], *bounds[at], records, seconds))
    return state, lags
