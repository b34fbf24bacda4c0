"""Before a process joins its group: are its tables there, and are the offsets it stands at still what they were?"""

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


async def refuse_past(database: Database, consumer: Consumer) -> None:
    """Refuse tables that are about to be made for a group that has a past: they would lack it for ever.

    And those of a group that was forgotten since they were made: they would hold its effects twice.

    Raises:
        ConfigError: A schema that was dropped, and a group that was not, or the other way round; the message names what
            mends it.
        TransientError: The database is away.
    """
    if await _would_repeat(database, consumer):
        schema = "" if consumer.tables is None else consumer.tables.schema
        msg = (
            f"group {consumer.group} was forgotten, and schema {schema} holds what it has applied before: drop the"
            f" schema, then `drx-consumer init`; or `drx-consumer init {consumer.name} --go-on --reason …` where events"
            f" may be applied to it again"
        )
        raise ConfigError(msg)
    if await _would_lack(database, consumer):
        schema = "" if consumer.tables is None else consumer.tables.schema
        msg = (
            f"schema {schema} has no tables, and group {consumer.group} has read events that they would lack: run"
            f" `drx-consumer forget {consumer.name} --schema {schema} --reason …`, then `drx-consumer init`; or"
            f" `drx-consumer init {consumer.name} --go-on --reason …` to do without those events"
        )
        raise ConfigError(msg)


async def audit_going_on(database: Database, consumer: Consumer, *, actor: str, reason: str) -> None:
    """Keep who had it go on all the same, and why; nothing where the tables fit."""
    if await _would_lack(database, consumer) or await _would_repeat(database, consumer):
        async with database.transaction() as connection:
            await audit(connection, consumer.group, "go_on", [Decision()], actor=actor, reason=reason)


def refuse_lost_progress(consumer: Consumer, committed: Mapping[Place, int | None]) -> None:
    """Refuse to go on from Kafka's offsets alone where the database says nothing, and tables in it hold nothing.

    Raises:
        ConfigError: The database is another than before, or was emptied.
    """
    if consumer.tables is not None and any(committed.values()):
        msg = (
            f"group {consumer.group} has offsets in Kafka and none in this database, whose tables lack what lies"
            f" before them: `drx-consumer init {consumer.name} --from earliest|latest|TIME` says where to begin"
        )
        raise ConfigError(msg)


async def _would_repeat(database: Database, consumer: Consumer) -> bool:
    tables = consumer.tables
    if tables is None or await lacks_own_tables(database, consumer) or await has_past(database, consumer.group):
        return False
    return await forgotten_since(database, consumer.group, tables.schema)


async def _would_lack(database: Database, consumer: Consumer) -> bool:
    return await lacks_own_tables(database, consumer) and await has_past(database, consumer.group)


_ACCEPT = """
update drx_consumer.progress set cluster_id = $2, updated_at = clock_timestamp()
where grp = $1 and cluster_id is distinct from $2
"""


# A partition that is not there any more: its topic was made anew with fewer.
_GONE = Bounds(0, 0)


async def check_start(
    consumer: Consumer,
    *,
    database: Database,
    connection: Connection,
    accepted_cluster: str | None,
    begins_by_itself: bool,
) -> str:
    """Return the id of the Kafka cluster, once everything is as it must be.

    `accepted_cluster` is the cluster that, as the operator says, the stored offsets are of. A consumer that
    `begins_by_itself` makes its tables, and needs nobody to say where it begins.

    Raises:
        ConfigError: The operator must decide; the message names what overrides the refusal.
        ReadError, AdminError: Kafka is away, or has not got the topics.
        TransientError: The database is away.
    """
    await refuse_past(database, consumer)
    if begins_by_itself:
        await migrate_tables(database, consumer)
    elif missing := await pending_tables(database, consumer):
        msg = f"the tables of {consumer.name} lack {', '.join(missing)}: run `drx-consumer init {consumer.name}`"
        raise ConfigError(msg)
    stored = await standings(database, consumer.group, consumer.topics)
    async with open_group(connection, consumer.group, consumer.topics) as view:
        cluster_id, bounds = await view.cluster_id(), await view.bounds()
        if begins_by_itself and not stored:  # who has claimed and settled nothing was here, in this database
            refuse_lost_progress(consumer, await view.committed())
        judge_start(
            consumer.name,
            stored.values(),
            bounds,
            cluster_id=cluster_id,
            accepted=accepted_cluster,
            begins_by_itself=begins_by_itself,
        )
        known = {at: each.next_offset for at, each in stored.items() if each.next_offset and each.last_event_id}
        last = {at: offset - 1 for at, offset in known.items() if offset > bounds[at].start}
        judge_last_records(consumer.name, stored, await view.first_records(last))
    if accepted_cluster is not None:
        async with database.transaction() as session:
            await session.execute(_ACCEPT, consumer.group, cluster_id)
    return cluster_id


def judge_start(
    consumer: str,
    stored: Iterable[Progress],
    bounds: Mapping[Place, Bounds],
    *,
    cluster_id: str,
    accepted: str | None,
    begins_by_itself: bool,
) -> None:
    """Refuse to go on from offsets that cannot be what they were; decided from values alone.

    Args:
        consumer: Its name, for the message.
        stored: Where the group stands.
        bounds: What the logs of its topics hold.
        cluster_id: Of the cluster that the logs are of.
        accepted: The cluster that, as the operator says, the offsets are of.
        begins_by_itself: A group that stands nowhere needs no `init`.

    Raises:
        ConfigError: The message names what overrides the refusal.
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
            f" set CONSUMER_ACCEPT__CLUSTER_ID={cluster_id}; else {_again(consumer)}"
        )
        raise ConfigError(msg)
    for place, offset in sorted(offsets.items()):
        _judge_offset(consumer, place, offset, bounds.get(place, _GONE))


def judge_last_records(
    consumer: str, stored: Mapping[Place, Progress], records: Mapping[Place, ConsumedRecord | None]
) -> None:
    """Refuse a topic in which other records lie where those were that were settled last.

    Args:
        consumer: Its name, for the message.
        stored: Where the group stands.
        records: The first of each partition from the one before that offset on; a gap there proves nothing.

    Raises:
        ConfigError: As `judge_start`.
    """
    for place, record in sorted(records.items()):
        if record is None:
            continue
        offset, last_event_id = stored[place].next_offset, stored[place].last_event_id
        if record.offset + 1 == offset and stored_text(record.header("ce_id")) != last_event_id:
            msg = f"{_stands(consumer, place, offset)} holds other records: the topic was made anew; {_again(consumer)}"
            raise ConfigError(msg)


def _judge_offset(consumer: str, place: Place, offset: int, bounds: Bounds) -> None:
    stands = _stands(consumer, place, offset)
    if offset > bounds.end:
        msg = f"{stands} ends at {bounds.end}: the topic was made anew or cut; {_again(consumer)}"
        raise ConfigError(msg)
    if offset < bounds.start:
        msg = f"{stands} begins at {bounds.start}: what lies between has expired; {_again(consumer)}"
        raise ConfigError(msg)


def _stands(consumer: str, place: Place, offset: int) -> str:
    return f"{consumer} stands at {offset} of {place.topic}/{place.partition}, which"


def _again(consumer: str) -> str:
    return f"`drx-consumer init {consumer} --from … --force --reason …` says where to go on"
