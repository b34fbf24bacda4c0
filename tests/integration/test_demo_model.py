"""The demo's eyes on PostgreSQL see what the tables hold, in the order that each question is about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from bridge.dev.demo_acts import DISPLAY, MACHINES
from bridge.dev.demo_model import GROUP, Decided, PostgresWitness, Row, Waiting
from bridge.kafka.transport import ConsumedRecord
from consumers.postgres.migrate import LEDGER_MIGRATIONS, LEDGER_SCHEMA, migrate
from consumers.postgres.pool import Database
from consumers.runtime.ledger import Ledger
from consumers.runtime.operator import retry, skip
from consumers.runtime.parking import append, park
from tests.ledger import KEY, PLACE, a_consumed_record
from tests.prescriptions import created, filled, processed, sent
from tests.read_model import ReadModel, open_model

# What is asked for here is there already, or never comes.
WAIT_S = 0.0


@pytest.fixture
async def model(postgres: str) -> AsyncIterator[ReadModel]:
    async with open_model(postgres) as opened:
        await migrate(opened.database, directory=LEDGER_MIGRATIONS, schema=LEDGER_SCHEMA)
        yield opened


async def fetch(database: Database, query: str, *arguments: str) -> list[Any]:
    async with database.transaction() as connection:
        return await connection.fetch(query, *arguments)


@pytest.fixture
def witness(model: ReadModel) -> PostgresWitness:
    return PostgresWitness(partial(fetch, model.database), wait_s=WAIT_S)


async def test_the_row_is_seen_with_all_its_words(model: ReadModel, witness: PostgresWitness) -> None:
    await model.apply(created(0), sent(1, message_id="m1"), filled(2, "dispensed"))

    words = ("sent", "active", "none", "dispensed", "none", "none")
    state = dict(zip(MACHINES, words, strict=True)) | {DISPLAY: "dispensed"}
    assert await witness.row("rx_1", events=3) == Row(3, state)


async def test_a_row_that_lacks_events_is_shown_as_it_is(model: ReadModel, witness: PostgresWitness) -> None:
    await model.apply(created(0))

    row = await witness.row("rx_1", events=2)

    assert row is not None
    assert row.events == 1
    assert await witness.row("rx_2", events=1) is None


async def test_the_history_is_in_the_order_of_facts_whatever_the_order_of_writing(
    model: ReadModel, witness: PostgresWitness
) -> None:
    await model.apply(processed(2))
    await model.apply(sent(1), created(0))

    history = await witness.history("rx_1")

    assert [told.event_type for told in history] == [
        "prescription.created",
        "prescription.sent",
        "prescription.processed",
    ]
    assert [told.place for told in history] == [f"{PLACE.topic}/0@{offset}" for offset in (2, 1, 0)]
    assert [told.body["event_id"] for told in history] == [told.event_id for told in history]


async def test_the_order_of_applying_is_that_of_the_writing(model: ReadModel, witness: PostgresWitness) -> None:
    """Within a transaction and between them; an update of the row of the prescription changes nothing of it."""
    events = [processed(2), sent(1), created(0), filled(3, "dispensed")]
    await model.apply(*events[:2])
    await model.apply(events[2])
    await model.apply(events[3])

    assert await witness.applied("rx_1") == [event.id for event in events]


async def test_what_is_parked_and_decided_is_seen_in_order(model: ReadModel, witness: PostgresWitness) -> None:
    ledger = Ledger(model.database, group=GROUP, cluster_id="cluster-a")
    poison = ConsumedRecord(PLACE.topic, PLACE.partition, 7, 1, KEY.encode(), b"{}", [])
    async with ledger.begin(PLACE, 1) as settlement:
        await park(settlement, poison, cls="poison", code="bad_magic", attempts=1)
        assert await append(settlement, a_consumed_record(9))

    waiting = await witness.parked(KEY, events=2)
    await skip(model.database, GROUP, PLACE.topic, KEY, offset=7, actor="ann", reason="no event")
    await retry(model.database, GROUP, [(PLACE.topic, KEY)], actor="ben")

    assert waiting == [Waiting(7, "", "poison", "bad_magic"), Waiting(9, "evt-9", "behind", "key_parked")]
    assert await witness.parked(KEY, events=0) == [Waiting(9, "evt-9", "behind", "key_parked")]
    assert await witness.parked("rx_other", events=0) == []
    assert await witness.decisions(KEY) == [Decided("skip", 7, "ann", "no event"), Decided("retry", None, "ben", "")]


async def test_what_waited_in_vain_waits_no_more(model: ReadModel) -> None:
    """A read model that stands still is told about at once, not after a wait for each check of the tour."""
    witness = PostgresWitness(partial(fetch, model.database), wait_s=0.1)

    assert await witness.row("rx_1", events=1) is None
    assert witness.patience_s == 0.0
