import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bridge.errors import ConfigError
from bridge.kafka.consumed_record import TopicPartition
from consumers.postgres.pool import Database
from consumers.runtime import parking
from consumers.runtime.ledger import FencedError, Ledger
from consumers.runtime.operator import (
    By,
    Decision,
    discard,
    forget_group,
    lock_progress,
    park,
    request_release,
    set_offsets,
    standings,
)
from consumers.runtime.parking import Filters, Why, list_parked, show
from tests.ledger import GROUP, KEY, PLACE, a_consumed_record, an_entry, digest, parked, rows, until_waiting

TOPIC = PLACE.topic

_TABLES = ("progress", "inbox", "settled", "parked_key", "parked_event", "audit")


async def everything(database: Database) -> dict[str, list[tuple[object, ...]]]:
    return {table: await rows(database, f"select * from drx_consumer.{table} order by 1, 2, 3") for table in _TABLES}  # noqa: S608 - constants


async def test_the_list_shows_the_oldest_first_with_what_waits(ledger: Ledger, database: Database) -> None:
    await parked(ledger, 7, 9)
    await parked(ledger, 8, key=b"rx-2", cls="poison", code="not_avro")

    listed = await list_parked(database, GROUP, Filters())

    assert [tuple(map(each.get, ("key", "class", "code", "events", "first_offset"))) for each in listed] == [
        ("rx-1", "bug", "unexpected", 2, 7),
        ("rx-2", "poison", "not_avro", 1, 8),
    ]


@pytest.mark.parametrize(
    ("filters", "keys"),
    [
        (Filters(), ["rx-1", "rx-2"]),
        (Filters(cls="poison"), ["rx-2"]),
        (Filters(code="unexpected"), ["rx-1"]),
        (Filters(topic="other"), []),
        (Filters(cls="bug", code="not_avro"), []),
        (Filters(keys=["rx-2", "gone"]), ["rx-2"]),
        (Filters(keys=[]), []),
    ],
)
async def test_filters_choose_for_the_list_and_for_retry_alike(
    ledger: Ledger, database: Database, filters: Filters, keys: list[str]
) -> None:
    await parked(ledger, 7)
    await parked(ledger, 8, key=b"rx-2", cls="poison", code="not_avro")

    assert [each["key"] for each in await list_parked(database, GROUP, filters)] == keys
    assert [each.key for each in await request_release(database, GROUP, filters, by=By("ann"))] == keys


async def test_a_rate_spreads_the_requests(ledger: Ledger, database: Database) -> None:
    """The first is due at once, each other a while later: the owners need no limiter of their own."""
    for number, key in enumerate(("rx-1", "rx-2", "rx-3")):
        await parked(ledger, number, key=key.encode())
    await request_release(database, GROUP, Filters(), per_second=0.01, by=By("ann"))

    gaps = """
    select key, round(extract(epoch from release_requested_at - min(release_requested_at) over ()) / 100)::int
    from drx_consumer.parked_key order by 1
    """
    assert await rows(database, gaps) == [("rx-1", 0), ("rx-2", 1), ("rx-3", 2)]
    assert await parking.requested(database, GROUP, [PLACE]) == [(PLACE, "rx-1")]


async def test_a_skip_gives_up_one_record_and_leaves_those_behind_it(ledger: Ledger, database: Database) -> None:
    await parked(ledger, 7, 9)

    (decision,) = await discard(database, GROUP, TOPIC, KEY, offset=7, by=By("ann", "entered twice"))

    assert decision == Decision(TOPIC, 3, KEY, 7, "acme", "evt-7", digest("a1"), "unexpected", inbox_written=True)
    assert [each["offset"] for each in await show(database, GROUP, TOPIC, KEY)] == [9]
    assert await rows(database, "select source, event_id from drx_consumer.inbox") == [("acme", "evt-7")]


async def test_a_skip_of_an_equal_id_leaves_the_first_ones_digest(ledger: Ledger, database: Database) -> None:
    async with ledger.begin(PLACE, (await ledger.claim(PLACE)).epoch) as settlement:
        await settlement.admit([an_entry("evt-7", body="first")])
    await parked(ledger, 7, code="id_conflict")

    (decision,) = await discard(database, GROUP, TOPIC, KEY, offset=7, by=By("ann", "entered twice"))

    assert decision.inbox_written is False
    assert await rows(database, "select body_sha256 from drx_consumer.inbox") == [(bytes.fromhex(digest("first")),)]


async def test_a_skip_of_a_record_without_an_id_writes_no_inbox_row(ledger: Ledger, database: Database) -> None:
    async with ledger.begin(PLACE, 1) as settlement:
        await parking.park(settlement, a_consumed_record(7)._replace(headers=[]), Why("poison", "not_avro", 0))

    (decision,) = await discard(database, GROUP, TOPIC, KEY, offset=7, by=By("ann", "not ours"))

    assert decision.inbox_written is False
    assert await rows(database, "select * from drx_consumer.inbox") == []


async def test_an_event_that_waits_twice_is_put_into_the_inbox_once(ledger: Ledger, database: Database) -> None:
    async with ledger.begin(PLACE, 1) as settlement:
        await parking.park(settlement, a_consumed_record(7, event_id="evt"), Why("bug", "unexpected", 1))
        await parking.append(settlement, a_consumed_record(9, event_id="evt", body="b2"))
    would = await discard(database, GROUP, TOPIC, KEY, by=By("ann", "test patient", dry_run=True))

    decisions = await discard(database, GROUP, TOPIC, KEY, by=By("ann", "test patient"))

    assert [each.inbox_written for each in decisions] == [True, False]
    assert would == decisions


async def test_every_change_is_kept_with_who_and_why(ledger: Ledger, database: Database) -> None:
    await parked(ledger, 7, 9)
    await parked(ledger, 8, key=b"rx-2")
    await request_release(database, GROUP, Filters(keys=[KEY]), by=By("ann", "fixed in 1.2"))
    await discard(database, GROUP, TOPIC, KEY, offset=7, by=By("bob", "entered twice"))
    await discard(database, GROUP, TOPIC, "rx-2", by=By("ann", "test patient"))

    kept = 'select actor, verb, topic, part, key, "offset", event_id, reason from drx_consumer.audit order by number'
    assert await rows(database, kept) == [
        ("ann", "retry", TOPIC, 3, KEY, None, None, "fixed in 1.2"),
        ("bob", "skip", TOPIC, 3, KEY, 7, "evt-7", "entered twice"),
        ("ann", "drop_key", TOPIC, 3, "rx-2", 8, "evt-8", "test patient"),
    ]


_VERBS: dict[str, Callable[..., Awaitable[Any]]] = {
    "retry": lambda database, dry: request_release(database, GROUP, Filters(), by=By("ann", dry_run=dry)),
    "skip": lambda database, dry: discard(database, GROUP, TOPIC, KEY, offset=7, by=By("ann", "void", dry_run=dry)),
    "drop_key": lambda database, dry: discard(database, GROUP, TOPIC, KEY, by=By("ann", "void", dry_run=dry)),
    "forget": lambda database, dry: forget_group(database, GROUP, by=By("ann", "gone", dry_run=dry)),
}


@pytest.mark.parametrize("verb", _VERBS)
async def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    ledger: Ledger, database: Database, verb: str
) -> None:
    await ledger.claim(PLACE)
    await parked(ledger, 7, 9)
    before = await everything(database)
    would = await _VERBS[verb](database, dry=True)

    assert await everything(database) == before
    assert await _VERBS[verb](database, dry=False) == would
    assert await everything(database) != before


async def test_what_is_not_parked_cannot_be_given_up(ledger: Ledger, database: Database) -> None:
    await parked(ledger, 7)
    with pytest.raises(ConfigError) as caught:
        await discard(database, GROUP, TOPIC, KEY, offset=8, by=By("ann", "void"))
    with pytest.raises(ConfigError):
        await discard(database, "other", TOPIC, KEY, by=By("ann", "void"))

    assert KEY not in str(caught.value)  # health information


async def test_two_operators_give_a_record_up_once(ledger: Ledger, database: Database) -> None:
    await parked(ledger, 7)
    async with database.transaction() as connection:
        await connection.execute("select from drx_consumer.parked_key for update")
        both = [
            asyncio.create_task(discard(database, GROUP, TOPIC, KEY, offset=7, by=By(actor, "void")))
            for actor in ("ann", "bob")
        ]
        await until_waiting(database, 2)
    outcomes = await asyncio.gather(*both, return_exceptions=True)

    assert {type(outcome) for outcome in outcomes} == {list, ConfigError}
    assert len(await rows(database, "select from drx_consumer.audit")) == 1


async def placed(database: Database, offsets: dict[TopicPartition, int], *, cluster_id: str = "cluster-a") -> None:
    async with database.transaction() as connection:
        await lock_progress(connection, GROUP, [TOPIC])
        await set_offsets(connection, GROUP, offsets, cluster_id=cluster_id, move=True, by=By("ann", "new cluster"))


async def test_a_group_placed_anew_reads_again_and_a_process_left_over_is_fenced(
    ledger: Ledger, database: Database
) -> None:
    old = await ledger.claim(PLACE)
    async with ledger.begin(PLACE, old.epoch) as settlement:
        await settlement.settle(next_offset=10, last_event_id="evt-9", above=(12,))

    await placed(database, {PLACE: 5}, cluster_id="cluster-b")

    with pytest.raises(FencedError):
        async with ledger.begin(PLACE, old.epoch) as settlement:
            await settlement.fence(10)
    new = await ledger.claim(PLACE)
    assert (new.next_offset, new.last_event_id, new.cluster_id) == (5, None, "cluster-b")
    assert new.settled == frozenset()


async def test_progress_counts_what_is_settled_above_and_what_waits(ledger: Ledger, database: Database) -> None:
    claim = await ledger.claim(PLACE)
    async with ledger.begin(PLACE, claim.epoch) as settlement:
        await settlement.settle(next_offset=10, last_event_id="evt-9", above=(12, 14))
    await parked(ledger, 12, 14)

    ((tp, standing),) = (await standings(database, GROUP, [TOPIC, "other"])).items()

    assert (tp, standing.next_offset, standing.cluster_id) == (PLACE, 10, "cluster-a")
    assert (standing.above, standing.parked_keys, standing.parked_events) == (2, 1, 2)


async def test_a_forgotten_group_leaves_only_the_trace_of_it(ledger: Ledger, database: Database) -> None:
    claim = await ledger.claim(PLACE)
    async with ledger.begin(PLACE, claim.epoch) as settlement:
        await settlement.admit([an_entry("evt-1"), an_entry("evt-2")])
        await settlement.settle(next_offset=2, last_event_id="evt-1", above=(7, 9))
    await parked(ledger, 7, 9)
    await Ledger(database, group="other", cluster_id="cluster-a").claim(PLACE)

    forgotten = await forget_group(database, GROUP, by=By("ann", "rebuilt as desk-2"))

    assert list(forgotten.values()) == [1, 2, 2, 1, 2, 0]
    tables = await everything(database)
    assert {table for table, content in tables.items() if any(GROUP in row for row in content)} == {"audit"}
    assert len(tables["progress"]) == 1
    with pytest.raises(FencedError):
        async with ledger.begin(PLACE, claim.epoch) as settlement:
            await settlement.settle(next_offset=3, last_event_id="evt-2", above=())


async def test_a_decision_about_a_key_in_two_partitions_says_which_is_meant(ledger: Ledger, database: Database) -> None:
    await parked(ledger, 7)
    async with ledger.begin(TopicPartition(TOPIC, 4), 1) as settlement:
        record = a_consumed_record(7, event_id="evt-other")._replace(partition=4)
        await parking.park(settlement, record, Why("bug", "unexpected", 1))

    with pytest.raises(ConfigError, match="partitions 3, 4 have a record"):
        await discard(database, GROUP, TOPIC, KEY, offset=7, by=By("ann", "void"))
    asked = await request_release(database, GROUP, Filters(keys=[KEY]), by=By("ann"))
    (skipped,) = await discard(database, GROUP, TOPIC, KEY, offset=7, partition=4, by=By("ann", "void"))
    dropped = await discard(database, GROUP, TOPIC, KEY, by=By("ann", "void"))

    assert [each.partition for each in asked] == [3, 4]
    assert (skipped.partition, skipped.event_id) == (4, "evt-other")
    assert [each.partition for each in dropped] == [3]
    assert await rows(database, "select from drx_consumer.parked_key") == []


async def test_a_key_that_is_parked_again_is_not_released_any_more(ledger: Ledger, database: Database) -> None:
    """Its release may be what kills each process."""
    await parked(ledger, 7)
    await request_release(database, GROUP, Filters(keys=[KEY]), by=By("ann"))

    (decision,) = await park(database, GROUP, TOPIC, KEY, partition=PLACE.partition, by=By("ann", "kills"))

    assert (decision.key, await parking.requested(database, GROUP, [PLACE])) == (KEY, [])
    assert await rows(database, "select class from drx_consumer.parked_key") == [("bug",)]
