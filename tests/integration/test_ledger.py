import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from urllib.parse import urlsplit

import pytest

from bridge.errors import PermanentError, TransientError
from bridge.kafka.consumed_record import TopicPartition
from consumers.api import Outgoing
from consumers.postgres.pool import Database, open_database
from consumers.runtime.ledger import FencedError, Inbox, Ledger, Settlement
from consumers.runtime.operator import By, forget_group
from tests.ledger import GROUP, KEY, PLACE, an_entry, parked, rows, until_waiting
from tests.postgres import fresh_database

OTHER = TopicPartition(PLACE.topic, 4)
STEPS = pytest.mark.parametrize(
    "step",
    [
        lambda settlement: settlement.fence(3),
        lambda settlement: settlement.admit([an_entry("evt-0")]),
        lambda settlement: settlement.settle(next_offset=3, last_event_id="evt-2", above=()),
    ],
    ids=["fence", "admit", "settle"],
)


async def settled(
    ledger: Ledger, epoch: int, *, next_offset: int, last: str | None = None, above: tuple[int, ...] = ()
) -> None:
    async with ledger.begin(PLACE, epoch) as settlement:
        await settlement.settle(next_offset=next_offset, last_event_id=last, above=above)


async def admitted(ledger: Ledger, tp: TopicPartition, epoch: int, *entries: Inbox) -> list[str]:
    async with ledger.begin(tp, epoch) as settlement:
        return [*await settlement.admit(entries)]


async def test_groups_and_partitions_are_strangers(ledger: Ledger, database: Database) -> None:
    mine = await ledger.claim(PLACE)
    await settled(ledger, mine.epoch, next_offset=10, above=(12,))
    await parked(ledger, 9)

    others = Ledger(database, group="other", cluster_id="cluster-a")
    for owner, place in ((ledger, OTHER), (ledger, PLACE._replace(topic="other")), (others, PLACE)):
        claim = await owner.claim(place)
        assert (claim.next_offset, claim.settled, claim.parked) == (None, frozenset(), set())
        async with owner.begin(place, claim.epoch) as settlement:
            await settlement.settle(next_offset=20, last_event_id=None, above=())
    claim = await Ledger(database, group=GROUP, cluster_id="cluster-b").claim(PLACE)
    assert (claim.settled, claim.parked, claim.cluster_id) == (frozenset({12}), {KEY}, "cluster-a")


async def test_the_mark_never_goes_back_and_records_below_it_fail_at_the_fence(ledger: Ledger) -> None:
    claim = await ledger.claim(PLACE)
    for next_offset, last in ((10, "evt-9"), (7, "evt-6"), (10, None)):
        await settled(ledger, claim.epoch, next_offset=next_offset, last=last, above=(8, 10, 11))
    async with ledger.begin(PLACE, claim.epoch) as settlement:
        await settlement.fence(10)
        with pytest.raises(FencedError):
            await settlement.fence(9)

    claim = await ledger.claim(PLACE)

    assert (claim.next_offset, claim.last_event_id, claim.settled) == (10, "evt-9", frozenset({10, 11}))
    # The record before `next_offset` may be one that a client never sees: nothing is to be compared then.
    await settled(ledger, claim.epoch, next_offset=11, last=None)
    claim = await ledger.claim(PLACE)
    assert (claim.last_event_id, claim.settled) == (None, frozenset({11})), "10 goes once the mark has passed it"


@STEPS
async def test_a_zombie_fails_at_the_fence(ledger: Ledger, step: Callable[[Settlement], Awaitable[object]]) -> None:
    old = await ledger.claim(PLACE)
    await ledger.claim(PLACE)

    with pytest.raises(FencedError):
        async with ledger.begin(PLACE, old.epoch) as settlement:
            await step(settlement)


@STEPS
async def test_an_owner_whose_commit_was_lost_fails(
    ledger: Ledger, database: Database, step: Callable[[Settlement], Awaitable[object]]
) -> None:
    """Else what was settled by it would count as settled still, also the first of a partition and what lay above."""
    claim = await ledger.claim(PLACE)
    async with ledger.begin(PLACE, claim.epoch, claim.updated_at) as settlement:
        await step(settlement)
        known = await settlement.settle(next_offset=0, last_event_id=None, above=(2,))
    before = "update drx_consumer.progress set next_offset = null, updated_at = updated_at - interval '1 s' returning 1"
    await rows(database, before)

    with pytest.raises(FencedError):
        async with ledger.begin(PLACE, claim.epoch, known) as settlement:
            await step(settlement)

    assert (await ledger.claim(PLACE)).next_offset is None


async def test_a_clock_that_was_set_back_fences_nobody(ledger: Ledger, database: Database) -> None:
    claim = await ledger.claim(PLACE)
    query = "update drx_consumer.progress set updated_at = clock_timestamp() + interval '1 day' returning updated_at"
    ((future,),) = await rows(database, query)
    assert isinstance(future, datetime)
    times = [future]
    for offset in (1, 2):
        async with ledger.begin(PLACE, claim.epoch, times[-1]) as settlement:
            times.append(await settlement.settle(next_offset=offset, last_event_id="evt", above=()))

    assert times == sorted(set(times))


async def test_a_claim_waits_for_the_owners_transaction_and_sees_what_it_settled(
    ledger: Ledger, database: Database
) -> None:
    """What was settled and parked while the claim waited is not in the snapshot that the claim began with."""
    old = await ledger.claim(PLACE)
    async with asyncio.TaskGroup() as tasks:
        async with ledger.begin(PLACE, old.epoch) as settlement:
            await settlement.fence(0)
            claiming = tasks.create_task(ledger.claim(PLACE))
            await until_waiting(database)
            await settlement.settle(next_offset=10, last_event_id="evt-9", above=(12,))
        new = await claiming

    assert new.epoch != old.epoch
    assert (new.next_offset, new.settled) == (10, frozenset({12}))


async def test_a_zombie_stopped_inside_its_transaction_does_not_hold_the_partition_for_ever(
    ledger_dsn: str, ledger: Ledger
) -> None:
    async with open_database(ledger_dsn, size=1, application_name="zombie", idle_in_transaction_timeout_s=0.5) as other:
        zombies = Ledger(other, group=GROUP, cluster_id="cluster-a")
        old = await zombies.claim(PLACE)
        with pytest.raises(TransientError) as caught:  # noqa: PT012 - the zombie wakes up in the block
            async with zombies.begin(PLACE, old.epoch) as settlement:
                await settlement.fence(0)
                new = await ledger.claim(PLACE)  # waits until the server ends the zombie's session
                await settlement.settle(next_offset=1, last_event_id="evt-0", above=())

    assert caught.value.systemic
    assert (await ledger.claim(PLACE)).epoch != new.epoch


@pytest.mark.parametrize(
    ("before", "entries", "states"),
    [
        (
            [an_entry("evt-2")],
            [an_entry("evt-3"), an_entry("evt-2", body="b2"), an_entry("evt-2"), an_entry("evt-1")],
            ["fresh", "conflict", "duplicate", "fresh"],
        ),
        (
            [],
            [an_entry(), an_entry(), an_entry(body="b2"), an_entry(source="other")],
            ["fresh", "duplicate", "conflict", "fresh"],
        ),
        (
            [an_entry("evt-1"), an_entry("evt-2", body=""), Inbox("acme", "evt-3", "a" * 65)],
            [an_entry("evt-1", body=""), an_entry("evt-2"), an_entry("evt-3")],
            ["duplicate"] * 3,
        ),
    ],
    ids=["in the order of the events", "repetitions inside one call", "a foreign record without a digest"],
)
async def test_events_are_told_apart(
    ledger: Ledger, before: list[Inbox], entries: list[Inbox], states: list[str]
) -> None:
    claim = await ledger.claim(PLACE)
    async with ledger.begin(PLACE, claim.epoch) as settlement:
        await settlement.admit(before)
        assert await settlement.admit(entries) == states


async def test_looking_writes_nothing(ledger: Ledger, database: Database) -> None:
    claim = await ledger.claim(PLACE)
    async with ledger.begin(PLACE, claim.epoch) as settlement:
        await settlement.admit([an_entry("evt-1")])

    asked = [an_entry("evt-1"), an_entry("evt-1", body="b2"), an_entry("evt-2"), an_entry("evt-2")]
    assert await ledger.look(asked) == ["duplicate", "conflict", "fresh", "duplicate"]
    assert await ledger.look([an_entry("evt-1", source="other")]) == ["fresh"]
    assert await Ledger(database, group="other", cluster_id="cluster-a").look(asked[:1]) == ["fresh"]
    async with ledger.begin(PLACE, claim.epoch) as settlement:
        assert await settlement.admit([an_entry("evt-2")]) == ["fresh"]


async def test_a_ping_writes_and_leaves_nothing(ledger: Ledger, database: Database) -> None:
    await ledger.ping()
    assert await rows(database, "select from drx_consumer.settled") == []
    await rows(database, "alter table drx_consumer.settled add check (false)")
    with pytest.raises(PermanentError):
        await ledger.ping()


async def test_what_is_not_committed_is_not_announced_as_published(ledger: Ledger, database: Database) -> None:
    """The outbox would look too early, and find the rows at its next poll only."""
    claim = await ledger.claim(PLACE)
    await rows(database, "alter table drx_consumer.inbox add unique (event_id)")
    await rows(
        database,
        "alter table drx_consumer.outbox add parent text default 'none' "
        "references drx_consumer.inbox (event_id) deferrable initially deferred",
    )
    with pytest.raises(PermanentError):  # noqa: PT012 - raised at the end of the block
        async with ledger.begin(PLACE, claim.epoch) as settlement:
            settlement.outgoing.append(Outgoing("out", b"rx-1", b"v", {}))
            await settlement.settle(next_offset=1, last_event_id="evt-0", above=())

    assert not ledger.published.is_set()


@pytest.mark.parametrize("event_id", ["evt\0-1", "x" * 100_000, "\N{SNOWMAN}" * 300])
async def test_a_foreign_id_that_postgresql_cannot_hold_is_still_an_id(ledger: Ledger, event_id: str) -> None:
    claim = await ledger.claim(PLACE)
    async with ledger.begin(PLACE, claim.epoch) as settlement:
        states = await settlement.admit([an_entry(event_id)])
        states += await settlement.admit([an_entry(event_id), an_entry(event_id + "y" * 1_000)])
        await settlement.settle(next_offset=1, last_event_id=event_id, above=())

    assert states == ["fresh", "duplicate", "fresh"]


async def test_an_effect_that_is_rolled_back_takes_its_inbox_row_along(ledger: Ledger, database: Database) -> None:
    """Else the record that is parked now would count as applied when it is released."""
    async with database.transaction() as connection:
        await connection.execute("create table effect (note text primary key)")
    claim = await ledger.claim(PLACE)
    async with ledger.begin(PLACE, claim.epoch) as settlement:
        await settlement.admit([an_entry("good")])
        await settlement.connection.execute("insert into effect values ('good')")
    with pytest.raises(PermanentError, match=r"^23505$"):  # noqa: PT012 - the record's two statements
        async with ledger.begin(PLACE, claim.epoch) as settlement:
            await settlement.admit([an_entry("bad")])
            await settlement.connection.execute("insert into effect values ('bad'), ('good')")
    async with ledger.begin(PLACE, claim.epoch) as settlement:
        again = await settlement.admit([an_entry("bad")])
        await settlement.settle(next_offset=2, last_event_id=None, above=())

    assert again == ["fresh"]
    assert await rows(database, "select note from effect") == [("good",)]


async def test_an_equal_id_with_another_body_from_two_ingresses_at_the_same_moment_is_a_conflict(
    ledger: Ledger, database: Database
) -> None:
    """Two partitions admit it at once: the second waits for the first, and judges what that one committed."""
    first, second = await ledger.claim(PLACE), await ledger.claim(OTHER)
    later = (an_entry("evt-1", body="b2"), an_entry("evt-2"))
    async with ledger.begin(PLACE, first.epoch) as settlement:
        states = await settlement.admit([an_entry("evt-1")])
        waiting = asyncio.create_task(admitted(ledger, OTHER, second.epoch, *later))
        await until_waiting(database)

    assert (states, await waiting) == (["fresh"], ["conflict", "fresh"])


async def test_an_event_whose_first_admission_is_rolled_back_is_fresh_for_the_second(
    ledger: Ledger, database: Database
) -> None:
    first, second = await ledger.claim(PLACE), await ledger.claim(OTHER)
    with pytest.raises(LookupError):  # noqa: PT012 - the other transaction is inside
        async with ledger.begin(PLACE, first.epoch) as settlement:
            await settlement.admit([an_entry("evt-1")])
            waiting = asyncio.create_task(admitted(ledger, OTHER, second.epoch, an_entry("evt-1", body="b2")))
            await until_waiting(database)
            raise LookupError

    assert await waiting == ["fresh"]


@pytest.mark.parametrize("entries", [[an_entry(f"evt-{n}") for n in "123"], [an_entry(source=n) for n in "123"]])
async def test_partitions_that_share_events_in_opposite_orders_do_not_lock_up(
    ledger: Ledger, database: Database, entries: list[Inbox]
) -> None:
    """A third keeps both waiting in the middle: in the order of their records, each would hold what the other wants."""
    third = TopicPartition(PLACE.topic, 5)
    epochs = {tp: (await ledger.claim(tp)).epoch for tp in (PLACE, OTHER, third)}
    async with ledger.begin(third, epochs[third]) as settlement:
        await settlement.admit(entries[1:2])
        orders = {PLACE: entries, OTHER: entries[::-1]}
        both = [asyncio.create_task(admitted(ledger, tp, epochs[tp], *each)) for tp, each in orders.items()]
        await until_waiting(database, 2)
    states = await asyncio.gather(*both)

    assert sorted(state for each in states for state in each) == ["duplicate"] * 4 + ["fresh"] * 2


async def test_an_epoch_never_comes_again_also_where_the_group_was_forgotten(
    ledger: Ledger, database: Database
) -> None:
    """Else a process that was frozen meanwhile would pass the fence, and settle what it has not applied."""
    frozen = await ledger.claim(PLACE)
    await forget_group(database, GROUP, by=By("ann", "a drill"))

    epochs = [(await ledger.claim(PLACE)).epoch for _ in range(3)]

    assert len({frozen.epoch, *epochs}) == 4
    with pytest.raises(FencedError):
        await settled(ledger, frozen.epoch, next_offset=5)


async def test_an_epoch_never_comes_again_also_where_the_database_was_restored(
    postgres_server: str, ledger_dsn: str
) -> None:
    """Else a member that was cut off meanwhile would settle, in the new owner's name, what it never applied there."""
    backup = urlsplit(ledger_dsn).path.removeprefix("/")

    async def claim(dsn: str) -> int:
        async with open_database(dsn, size=1, application_name="test") as database:
            return (await Ledger(database, group=GROUP, cluster_id="cluster-a").claim(PLACE)).epoch

    before = await claim(ledger_dsn)
    with fresh_database(postgres_server, template=backup) as restored:
        epochs = {before, await claim(ledger_dsn), await claim(restored)}

    assert len(epochs) == 3
