"""Checks before a process joins its group: its tables fit the group, and its offsets fit the topics.

What is refused is an operator's decision; the message names the command or setting that overrides the refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bridge.errors import ConfigError
from bridge.kafka.connection import Connection
from bridge.kafka.transport import Bounds, ConsumedRecord, Place
from consumers.api import Consumer
from consumers.postgres.pool import Database
from consumers.postgres.tables import lacks_own_tables, migrate_tables, pending_tables
from consumers.postgres.text import stored_text
from consumers.runtime.groups import open_group
from consumers.runtime.operator import Decision, Progress, audit, forgotten_since, has_past, standings

_ACCEPT = """
update drx_consumer.progress set cluster_id = $2
where grp = $1 and cluster_id is distinct from $2
"""

# Bounds of a partition that no longer exists: its topic was recreated with fewer.
_GONE = Bounds(0, 0)


async def check_start(
    consumer: Consumer,
    *,
    database: Database,
    connection: Connection,
    accepted_cluster: str | None,
    begins_by_itself: bool,
) -> str:
    """Return the id of the Kafka cluster, after all checks.

    Args:
        consumer: Its tables and topics are checked.
        database: Where its group has its progress.
        connection: To the Kafka cluster.
        accepted_cluster: Id of the cluster to which, as the operator says, the stored offsets belong as well.
        begins_by_itself: It makes its tables, and needs no `init`.

    Raises:
        ConfigError: An operator must decide.
        ReadError, AdminError: Kafka is away, or lacks the topics.
        TransientError: The database is away, or what the consumer writes to.
    """
    await check_tables(database, consumer)
    if begins_by_itself:
        await migrate_tables(database, consumer)
    elif missing := await pending_tables(database, consumer):
        msg = f"the tables of {consumer.name} lack {', '.join(missing)}: run `drx-consumer init {consumer.name}`"
        raise ConfigError(msg)
    await prepare(database, consumer)
    stored = await standings(database, consumer.group, consumer.topics)
    async with open_group(connection, consumer.group, consumer.topics) as view:
        cluster_id, bounds = await view.cluster_id(), await view.bounds()
        check_offsets(
            consumer.name,
            stored.values(),
            bounds,
            cluster_id=cluster_id,
            accepted=accepted_cluster,
            begins_by_itself=begins_by_itself,
        )
        known = {at: each.next_offset for at, each in stored.items() if each.next_offset and each.last_event_id}
        last = {at: offset - 1 for at, offset in known.items() if offset > bounds[at].start}
        check_last_records(consumer.name, stored, await view.first_records(last))
    if accepted_cluster is not None:
        async with database.transaction() as session:
            await session.execute(_ACCEPT, consumer.group, cluster_id)
    return cluster_id


async def prepare(database: Database, consumer: Consumer) -> None:
    """Have the consumer prepare what it writes to, once its tables are there.

    Raises:
        ConfigError: It refuses.
        TransientError: The database is away, or what it writes to.
    """
    if consumer.prepare is not None:
        async with database.transaction(calls_services=True) as connection:
            await consumer.prepare(connection)


async def check_tables(database: Database, consumer: Consumer) -> None:
    """Check that the consumer's own tables fit the progress of its group.

    Raises:
        ConfigError: The tables were dropped and the group was not forgotten, so they would lack events for ever; or the
            other way round, so that events would be applied to them twice.
        TransientError: The database is away.
    """
    if misfit := await _tables_misfit(database, consumer):
        raise ConfigError(misfit)


async def accept_tables(database: Database, consumer: Consumer, *, actor: str, reason: str) -> None:
    """Write to the audit that tables which do not fit their group are used all the same; nothing if they fit."""
    if await _tables_misfit(database, consumer):
        async with database.transaction() as connection:
            await audit(connection, consumer.group, "go_on", [Decision()], actor=actor, reason=reason)


async def _tables_misfit(database: Database, consumer: Consumer) -> str:
    """Return why the tables do not fit and what mends it; empty if they fit, or if the consumer has none."""
    name, group, tables = consumer.name, consumer.group, consumer.tables
    if tables is None:
        return ""
    past = await has_past(database, group)
    if await lacks_own_tables(database, consumer):
        if not past:
            return ""
        return (
            f"schema {tables.schema} has no tables, and group {group} has read events that they would lack: run"
            f" `drx-consumer forget {name} --schema {tables.schema} --reason …`, then `drx-consumer init`; or"
            f" `drx-consumer init {name} --go-on --reason …` to do without those events"
        )
    if past or not await forgotten_since(database, group, tables.schema):
        return ""
    return (
        f"group {group} was forgotten, and schema {tables.schema} holds what it has applied before: drop the"
        f" schema, then `drx-consumer init`; or `drx-consumer init {name} --go-on --reason …` where events"
        f" may be applied to it again"
    )


def check_offsets(
    consumer: str,
    stored: Iterable[Progress],
    bounds: Mapping[Place, Bounds],
    *,
    cluster_id: str,
    accepted: str | None,
    begins_by_itself: bool,
) -> None:
    """Check that the stored offsets belong to this cluster and lie within its logs; from values alone.

    Args:
        consumer: Its name, for the message.
        stored: Progress of the group.
        bounds: Of the logs of its topics.
        cluster_id: Of the cluster that has these logs.
        accepted: See `check_start`.
        begins_by_itself: A group without progress needs no `init`.

    Raises:
        ConfigError: They do not.
    """
    stored = list(stored)
    offsets = {each.place: each.next_offset for each in stored if each.next_offset is not None}
    if not offsets and not begins_by_itself:
        msg = f"{consumer} was never told where to begin: `drx-consumer init {consumer} --from earliest|latest|TIME`"
        raise ConfigError(msg)
    foreign = sorted({each.cluster_id for each in stored if each.cluster_id not in {None, cluster_id}}, key=str)
    if foreign and accepted != cluster_id:
        msg = (
            f"{consumer} stands in Kafka cluster {foreign[0]}, and this is {cluster_id}: if its offsets are the same,"
            f" set CONSUMER_KAFKA__ACCEPT_CLUSTER_ID={cluster_id}; else {_again(consumer)}"
        )
        raise ConfigError(msg)
    for place, offset in sorted(offsets.items()):
        again = _again(consumer, place if place in bounds else None)
        _judge_offset(_stands(consumer, place, offset), offset, bounds.get(place, _GONE), again=again)


def check_last_records(
    consumer: str, stored: Mapping[Place, Progress], records: Mapping[Place, ConsumedRecord | None]
) -> None:
    """Check that the record before each offset is the one that was settled last.

    Args:
        consumer: Its name, for the message.
        stored: Progress of the group.
        records: First record of each partition from the one before its offset on; a gap there proves nothing.

    Raises:
        ConfigError: It is another record.
    """
    for place, record in sorted(records.items()):
        if record is None:
            continue
        offset, last_event_id = stored[place].next_offset, stored[place].last_event_id
        if record.offset + 1 == offset and stored_text(record.header("ce_id")) != last_event_id:
            again = _again(consumer, place)
            msg = f"{_stands(consumer, place, offset)} holds other records: the topic was made anew; {again}"
            raise ConfigError(msg)


def _judge_offset(stands: str, offset: int, bounds: Bounds, *, again: str) -> None:
    if offset > bounds.end:
        msg = f"{stands} ends at {bounds.end}: the topic was made anew or cut; {again}"
        raise ConfigError(msg)
    if offset < bounds.start:
        msg = f"{stands} begins at {bounds.start}: what lies between has expired; {again}"
        raise ConfigError(msg)


def _stands(consumer: str, place: Place, offset: int) -> str:
    return f"{consumer} stands at {offset} of {place.topic}/{place.partition}, which"


def _again(consumer: str, place: Place | None = None) -> str:
    """Name the command that moves `place` alone; without one, the whole group."""
    only = "" if place is None else f" --partition {place.topic}/{place.partition}"
    return f"`drx-consumer init {consumer}{only} --from … --force --reason …` says where to go on"
