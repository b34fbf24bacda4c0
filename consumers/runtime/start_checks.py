"""Checks before a process joins its group: its tables match the group, and its offsets are of this Kafka cluster.

A failed check needs an operator's decision; the message names the command or setting that overrides it. Whether an
offset is within its log is checked when its partition is claimed (`start_positions.decide_start`).
"""

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

from bridge.errors import ConfigError
from consumers.api import Consumer
from consumers.postgres.migrate import lacks_own_tables, migrate_tables, pending_tables
from consumers.postgres.pool import Database
from consumers.runtime.groups import GroupView
from consumers.runtime.operator import By, Decision, Progress, audit, forgotten_since, has_past, standings

_ACCEPT = """
update drx_consumer.progress set cluster_id = $2
where grp = $1 and cluster_id is distinct from $2
"""


async def check_start(
    consumer: Consumer,
    *,
    database: Database,
    view: AbstractAsyncContextManager[GroupView],
    accepted_cluster: str | None,
    begins_by_itself: bool,
) -> tuple[str, frozenset[str]]:
    """After all checks, return the id of the Kafka cluster, and the topics in which the group has an offset.

    An operator may accept a cluster for the stored offsets. A consumer that `begins_by_itself` creates its tables, and
    needs no `init`. Raises `ConfigError` if an operator must decide; `ReadError`, `AdminError` or `TransientError` if
    Kafka, the database or the sink is away, or topics are missing.
    """
    await check_tables(database, consumer)
    if begins_by_itself:
        await migrate_tables(database, consumer)
    elif missing := await pending_tables(database, consumer):
        msg = f"the tables of {consumer.name} lack {', '.join(missing)}: run `drx-consumer init {consumer.name}`"
        raise ConfigError(msg)
    await prepare(database, consumer)
    stored = await standings(database, consumer.group, consumer.topics)
    async with view as group:
        cluster_id = await group.cluster_id()
    check_cluster(consumer.name, stored.values(), cluster_id=cluster_id, accepted=accepted_cluster)
    if accepted_cluster is not None:
        await database.fetch(_ACCEPT, consumer.group, cluster_id)
    return cluster_id, frozenset(at.topic for at, each in stored.items() if each.next_offset is not None)


async def prepare(database: Database, consumer: Consumer) -> None:
    """Let the consumer prepare its sink, once its tables exist; it may raise `ConfigError`."""
    if consumer.prepare is not None:
        async with database.transaction(calls_services=True) as connection:
            await consumer.prepare(connection)


async def check_tables(database: Database, consumer: Consumer) -> None:
    """Check that the consumer's own tables match the progress of its group.

    Raises `ConfigError` if the tables were dropped but not the group's progress, so that earlier events would be
    missing, or the progress but not the tables, so that events would be applied twice.
    """
    if misfit := await _tables_misfit(database, consumer):
        raise ConfigError(misfit)


async def accept_tables(database: Database, consumer: Consumer, by: By) -> None:
    """Record in the audit table that mismatching tables are used anyway; do nothing if they match."""
    if await _tables_misfit(database, consumer):
        async with database.transaction() as connection:
            await audit(connection, consumer.group, "go_on", [Decision()], by)


async def _tables_misfit(database: Database, consumer: Consumer) -> str:
    """Return why the tables do not match, with the remedy; empty if they match, or the consumer has none."""
    name, group, tables = consumer.name, consumer.group, consumer.tables
    if tables is None:
        return ""
    past = await has_past(database, group)
    if await lacks_own_tables(database, consumer):
        if not past:
            return ""
        return (
            f"schema {tables.schema} has no tables, and would lack events that group {group} has read: run"
            f" `drx-consumer forget {name} --schema {tables.schema} --reason …`, then `drx-consumer init`; or"
            f" `drx-consumer init {name} --go-on --reason …` to continue without those events"
        )
    if past or not await forgotten_since(database, group, tables.schema):
        return ""
    return (
        f"group {group} was forgotten, and schema {tables.schema} has events that it applied before: drop the"
        f" schema, then `drx-consumer init`; or `drx-consumer init {name} --go-on --reason …` where events"
        f" may be applied to it again"
    )


def check_cluster(consumer: str, stored: Iterable[Progress], *, cluster_id: str, accepted: str | None) -> None:
    """Refuse offsets of another Kafka cluster, unless the operator accepts it as equal."""
    foreign = sorted({each.cluster_id for each in stored if each.cluster_id not in {None, cluster_id}}, key=str)
    if foreign and accepted != cluster_id:
        raise ConfigError(
            f"the offsets of {consumer} are of Kafka cluster {foreign[0]}, and this is {cluster_id}: if valid here"
            f" too, set CONSUMER_KAFKA__ACCEPT_CLUSTER_ID={cluster_id}; else set new ones:"
            f" `drx-consumer init {consumer} --from … --force --reason …`"
        )
