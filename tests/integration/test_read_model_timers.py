"""What waits too long, and which source has fallen silent: views of the facts and the moment, metrics by a job."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from bridge.event import Event
from tests.prescriptions import (
    START,
    a_fact,
    cancel_answered,
    cancel_asked,
    change_asked,
    failed,
    processed,
    renewal_answered,
    renewal_asked,
    sent,
)
from tests.read_model import ReadModel, open_model


@pytest.fixture
async def model(postgres: str) -> AsyncIterator[ReadModel]:
    async with open_model(postgres) as opened:
        yield opened


def ago(**span: float) -> float:
    """Minutes from the start of the tests' time to so long ago: the database's clock is the real one."""
    return (datetime.now(UTC) - timedelta(**span) - START) / timedelta(minutes=1)


async def overdue(model: ReadModel) -> list[tuple[str, str]]:
    found = await model.rows("select kind, prescription_id from {schema}.overdue order by kind, prescription_id")
    return [(row["kind"], row["prescription_id"]) for row in found]


@pytest.mark.parametrize(
    ("kind", "hours", "asked"),
    [
        ("unconfirmed", 24, partial(sent, message_id="m1")),
        ("cancel_unanswered", 48, partial(cancel_asked, request_id="c1")),
        ("request_open", 14 * 24, partial(renewal_asked, request_id="r1")),
        ("request_open", 14 * 24, partial(change_asked, request_id="x1")),
    ],
    ids=["unconfirmed", "cancel_unanswered", "renewal", "change"],
)
async def test_what_waits_longer_than_its_timer_is_overdue(
    model: ReadModel, kind: str, hours: int, asked: Callable[..., Event]
) -> None:
    await model.apply(asked(ago(hours=hours - 1), key="rx_1"), asked(ago(hours=hours + 1), key="rx_2"))

    assert await overdue(model) == [(kind, "rx_2")]


@pytest.mark.parametrize(
    "answer",
    [
        processed(1, relates_to_message_id="m1"),
        failed(1, relates_to_message_id="m1", retryable=False),
        cancel_answered(1, request_id="c1", decision="approved"),
        renewal_answered(1, request_id="r1", decision="replace"),
    ],
    ids=["confirmed", "failed", "cancelled", "replaced"],
)
async def test_a_message_is_not_overdue_once_its_order_has_an_answer_or_an_end(model: ReadModel, answer: Event) -> None:
    await model.apply(sent(0, message_id="m1"), answer)

    assert await overdue(model) == []


async def test_the_settings_reach_the_views_and_the_metrics(postgres: str) -> None:
    async with open_model(postgres, unconfirmed_h="0.5", request_open_h="1") as model:
        await model.apply(sent(ago(hours=0.6), message_id="m1"), renewal_asked(ago(hours=0.6), request_id="r1"))

        await model.tick()

        assert await overdue(model) == [("unconfirmed", "rx_1")]
        assert model.metric("read_model_overdue", kind="unconfirmed") == 1
        assert model.metric("read_model_overdue", kind="request_open") == 0


async def test_looking_at_the_timers_again_changes_nothing(model: ReadModel) -> None:
    await model.apply(cancel_asked(ago(hours=50), request_id="c1"))
    await model.tick()
    before = await model.rows("select t.*, t.xmin::text from {schema}.timer t order by kind")

    await model.tick()

    assert await model.rows("select t.*, t.xmin::text from {schema}.timer t order by kind") == before
    assert model.metric("read_model_overdue", kind="cancel_unanswered") == 1


def steady(source: str, *, gap_s: float, count: int, last_s: float, kind: str = "alert.raised") -> list[Event]:
    """Events with a gap between each two, the last of them `last_s` ago."""
    return [
        a_fact(kind, ago(seconds=last_s + place * gap_s), id=f"evt_{kind}_{source}_{place}", source=source)
        for place in range(count)
    ]


async def silent(model: ReadModel) -> dict[str, bool]:
    return {row["source"]: row["silent"] for row in await model.rows("select * from {schema}.source_silence")}


async def test_a_source_is_silent_after_some_of_its_own_gaps(model: ReadModel) -> None:
    """Each by its own measure: what is long for one is usual for the other."""
    await model.apply(
        *steady("brisk", gap_s=60, count=30, last_s=3600), *steady("slow", gap_s=3600, count=30, last_s=3600)
    )

    await model.tick()

    assert await silent(model) == {"brisk": True, "slow": False}
    assert model.metric("read_model_source_silent", source="brisk") == 1
    assert model.metric("read_model_source_silent", source="slow") == 0


async def test_a_source_is_not_silent_within_the_shortest_silence(model: ReadModel) -> None:
    await model.apply(*steady("brisk", gap_s=1, count=30, last_s=600))

    assert await silent(model) == {"brisk": False}


async def test_too_few_events_say_nothing_of_a_silence(model: ReadModel) -> None:
    await model.apply(*steady("new", gap_s=60, count=20, last_s=36_000))

    assert await silent(model) == {"new": False}


async def test_a_ping_is_no_sign_of_life_of_the_orders(model: ReadModel) -> None:
    await model.apply(
        *steady("brisk", gap_s=60, count=30, last_s=3600),
        *steady("brisk", gap_s=1, count=2, last_s=1, kind="system.ping"),
    )

    assert await silent(model) == {"brisk": True}


async def test_a_model_without_events_has_no_silent_source(model: ReadModel) -> None:
    await model.tick()

    assert await silent(model) == {}
    assert model.metric("read_model_overdue", kind="unconfirmed") == 0
