import asyncio
from hashlib import sha256

import pytest

from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from consumers.postgres.pool import Database
from consumers.runtime import parking
from consumers.runtime.ledger import Ledger
from consumers.runtime.operator import By, discard, request_release
from consumers.runtime.parking import (
    Filters,
    ParkingFullError,
    Why,
    append,
    census,
    head,
    key_text,
    park,
    park_again,
    release,
)
from tests.ledger import GROUP, KEY, PLACE, a_consumed_record, an_entry, parked, rows, settling, until_waiting

TOPIC = PLACE.topic


async def waiting_offsets(database: Database) -> list[object]:
    return [offset for (offset,) in await rows(database, 'select "offset" from drx_consumer.parked_event order by 1')]


async def test_a_parked_record_comes_back_whole(ledger: Ledger) -> None:
    record = a_consumed_record(7)
    async with settling(ledger) as settlement:
        await park(settlement, record, Why("permanent", "refused", 3))

    async with settling(ledger) as settlement:
        waiting = await head(settlement, KEY)

    assert waiting is not None
    assert tuple(waiting) == tuple(record)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (b"rx-1", "rx-1"),
        ("Rezept ü".encode(), "Rezept ü"),
        (b"", ""),
        (None, "\\null@7"),
        (b"\\null", "\\x5c6e756c6c"),
        (b"a\0b", "\\x610062"),
        (b"\xff\xfe", "\\xfffe"),
        (b"k" * 513, "\\h" + sha256(b"k" * 513).hexdigest()),
    ],
)
def test_every_key_has_a_text_form_of_its_own(key: bytes | None, text: str) -> None:
    assert key_text(ConsumedRecord(*PLACE, 7, 1, key, b"", [])) == text


async def test_a_record_that_fails_its_release_waits_for_another_request(ledger: Ledger, database: Database) -> None:
    await parked(ledger, 7, 9)
    await request_release(database, GROUP, Filters(), by=By("ann"))
    before = await parking.requested(database, GROUP, [PLACE])
    async with settling(ledger) as settlement:
        waiting = await head(settlement, KEY)
        assert waiting is not None
        await park_again(settlement, waiting, Why("permanent", "refused", 5, "KeyError at desk:7"))

    assert (before, await parking.requested(database, GROUP, [PLACE])) == ([(PLACE, KEY)], [])
    events = 'select "offset", class, code, attempts, raised from drx_consumer.parked_event order by 1'
    assert await rows(database, events) == [
        (7, "permanent", "refused", 6, "KeyError at desk:7"),
        (9, "behind", "key_parked", 0, None),
    ]
    assert await rows(database, "select class, code, attempts from drx_consumer.parked_key") == [
        ("permanent", "refused", 6)
    ]


async def test_only_the_owner_of_the_partition_hears_of_a_request(ledger: Ledger, database: Database) -> None:
    await parked(ledger, 7)
    await request_release(database, GROUP, Filters(), by=By("ann"))

    assert await parking.requested(database, GROUP, [TopicPartition(TOPIC, 4), TopicPartition("other", 3)]) == []
    assert await parking.requested(database, "other", [PLACE]) == []
    assert await parking.requested(database, GROUP, [PLACE]) == [(PLACE, KEY)]


async def test_parking_the_same_record_twice_keeps_one(ledger: Ledger, database: Database) -> None:
    """A group that was placed anew meets records that still wait."""
    await parked(ledger, 7, 9)
    await parked(ledger, 7, 9)

    assert await waiting_offsets(database) == [7, 9]


async def test_the_census_counts_keys_events_and_the_oldest_age(ledger: Ledger, database: Database) -> None:
    empty = await census(database, GROUP)
    await parked(ledger, 7, 9)
    async with database.transaction() as connection:
        await connection.execute("update drx_consumer.parked_key set parked_at = parked_at - interval '1 hour'")

    full = await census(database, GROUP)

    assert (empty, (*full[:2], full[2] // 3600)) == ((0, 0, 0.0), (1, 2, 1))


async def test_one_key_too_many_is_refused_and_records_of_the_others_are_taken(
    ledger: Ledger, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "KEYS_MAX", 1)
    await parked(ledger, 7, 8)
    with pytest.raises(ParkingFullError) as caught:
        await parked(ledger, 9, key=b"rx-2")

    assert caught.value.key is None
    assert await rows(database, "select key from drx_consumer.parked_key") == [(KEY,)]
    assert await waiting_offsets(database) == [7, 8]


async def test_one_record_of_a_key_too_many_is_refused(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parking, "EVENTS_OF_KEY_MAX", 2)
    await parked(ledger, 5, 6)
    with pytest.raises(ParkingFullError) as caught:
        async with settling(ledger) as settlement:
            await append(settlement, a_consumed_record(7))

    assert caught.value.key == KEY


@pytest.mark.parametrize("begins", ["before", "after"])
async def test_parking_waits_for_the_release_of_the_same_key_and_parks_it_anew(
    ledger: Ledger, database: Database, begins: str
) -> None:
    """The release makes the key live; the record that fails at that moment must not be lost with the old key."""
    await parked(ledger, 7)
    async with settling(ledger) as settlement:
        waiting = await head(settlement, KEY)
        assert waiting is not None
        if begins == "after":
            assert await release(settlement, waiting)
        parking_again = asyncio.create_task(parked(ledger, 9))
        await until_waiting(database)
        if begins == "before":
            assert await release(settlement, waiting)
    await parking_again

    assert await waiting_offsets(database) == [9]
    assert await rows(database, "select count(*) from drx_consumer.parked_key") == [(1,)]


async def test_an_append_that_waited_for_a_drop_is_refused(ledger: Ledger, database: Database) -> None:
    """The owner believes the key parked; the record is then handled as one of a live key."""
    await parked(ledger, 7)

    async def append_next() -> bool:
        async with settling(ledger) as settlement:
            return await append(settlement, a_consumed_record(9))

    async with database.transaction() as connection:
        await connection.execute("select from drx_consumer.parked_key for update")
        appending = asyncio.create_task(append_next())
        await until_waiting(database)
        await connection.execute("delete from drx_consumer.parked_event")
        await connection.execute("delete from drx_consumer.parked_key")

    assert not await appending
    assert await waiting_offsets(database) == []


async def test_a_drop_that_waited_for_an_append_drops_that_record_too(ledger: Ledger, database: Database) -> None:
    await parked(ledger, 7)
    async with settling(ledger) as settlement:
        assert await append(settlement, a_consumed_record(9))
        dropping = asyncio.create_task(discard(database, GROUP, TOPIC, KEY, by=By("ann", "test patient")))
        await until_waiting(database)

    assert [decision.offset for decision in await dropping] == [7, 9]
    assert await waiting_offsets(database) == []


async def test_two_releases_at_once_release_each_record_once(ledger: Ledger, database: Database) -> None:
    """A zombie and the owner: the second waits for the first, and goes on with the next record."""
    await parked(ledger, 7, 9)

    async def release_head() -> tuple[int, bool]:
        async with settling(ledger) as settlement:
            waiting = await head(settlement, KEY)
            assert waiting is not None
            return waiting.offset, await release(settlement, waiting)

    async with settling(ledger) as settlement:
        waiting = await head(settlement, KEY)
        assert waiting is not None
        second = asyncio.create_task(release_head())
        await until_waiting(database)
        live = await release(settlement, waiting)

    assert (waiting.offset, live) == (7, False)
    assert await second == (9, True)


async def test_a_record_skipped_before_a_crash_is_not_applied_when_read_again(
    ledger: Ledger, database: Database
) -> None:
    """Its offset is settled, and a repetition of its event at another offset is a duplicate."""
    claim = await ledger.claim(PLACE)
    async with ledger.begin(PLACE, claim.epoch) as settlement:
        await park(settlement, a_consumed_record(7), Why("bug", "unexpected", 1))
        await settlement.settle(next_offset=5, last_event_id="evt-4", above=(7,))
    await discard(database, GROUP, TOPIC, KEY, offset=7, by=By("ann", "void"))

    claim = await ledger.claim(PLACE)  # the process was killed, another reads from offset 5 on
    async with ledger.begin(PLACE, claim.epoch) as settlement:
        assert await settlement.admit([an_entry("evt-7")]) == ["duplicate"]

    assert (claim.next_offset, claim.settled, claim.parked) == (5, frozenset({7}), set())


async def test_a_key_that_stands_in_two_partitions_is_parked_in_each_by_itself(
    ledger: Ledger, database: Database
) -> None:
    """A foreign producer partitions by another rule."""
    other = TopicPartition(TOPIC, PLACE.partition + 1)
    await parked(ledger, 7, 8)
    async with ledger.begin(other, 1) as settlement:
        await park(settlement, a_consumed_record(7)._replace(partition=other.partition), Why("bug", "unexpected", 1))

    here, there = await ledger.claim(PLACE), await ledger.claim(other)
    assert (here.parked, there.parked) == ({KEY}, {KEY})
    assert (await ledger.claim(TopicPartition(TOPIC, 5))).parked == set()

    async with ledger.begin(other, there.epoch) as settlement:
        waiting = await head(settlement, KEY)
        assert waiting is not None
        assert waiting.partition == other.partition
        assert await release(settlement, waiting)
    async with settling(ledger) as settlement:
        assert await append(settlement, a_consumed_record(9))

    found = await rows(database, 'select part, "offset" from drx_consumer.parked_event order by 1, 2')
    assert found == [(PLACE.partition, offset) for offset in (7, 8, 9)]


async def test_records_without_a_key_are_parked_one_by_one(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no order, so that none waits behind another, and many of them fill no place of one key."""
    monkeypatch.setattr(parking, "EVENTS_OF_KEY_MAX", 1)
    async with settling(ledger) as settlement:
        for offset in (7, 8, 9):
            await park(settlement, a_consumed_record(offset, key=None), Why("bug", "unexpected", 1))
        assert not await append(settlement, a_consumed_record(10, key=None))

    async with settling(ledger) as settlement:
        waiting = await head(settlement, "\\null@8")
    assert waiting is not None
    assert waiting.offset == 8
