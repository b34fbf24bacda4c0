from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from bridge.event import Event
from tests.prescriptions import (
    a_fact,
    ago,
    cancel_answered,
    cancel_asked,
    change_asked,
    failed,
    processed,
    renewal_answered,
    renewal_asked,
    renewal_closed,
    sent,
)
from tests.read_model import ReadModel


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


async def test_what_was_answered_is_not_overdue(model: ReadModel) -> None:
    await model.apply(
        cancel_asked(ago(days=20), request_id="c1"),
        cancel_answered(ago(days=19), request_id="c1", decision="denied"),
        renewal_asked(ago(days=20), request_id="r1"),
        renewal_answered(ago(days=19), request_id="r1", decision="denied"),
    )

    assert await overdue(model) == []


async def unmatched(model: ReadModel) -> list[tuple[str, str | None]]:
    found = await model.rows("select * from {schema}.overdue where kind = 'request_open' order by request_id")
    return [(row["request_id"], row["prescription_id"]) for row in found]


@pytest.mark.parametrize("asked", [renewal_asked, change_asked], ids=["renewal", "change"])
async def test_a_request_that_matches_no_prescription_is_overdue_too(
    model: ReadModel, asked: Callable[..., Event]
) -> None:
    fresh, old = (
        asked(ago(hours=14 * 24 + hours), key=f"req:{name}", request_id=name, prescription_id=None)
        for hours, name in ((-1, "r1"), (1, "r2"))
    )
    await model.apply(fresh, old, topic="drx.accounts.v1")
    await model.tick()

    (row,) = await model.rows("select * from {schema}.overdue")
    assert (row["kind"], row["prescription_id"], row["request_id"]) == ("request_open", None, "r2")
    assert (row["account_id"], row["source"], row["since"]) == ("acct_4021", "drx", old.occurred_at)
    assert row["waits"] > timedelta(days=14)
    assert model.metric("read_model_overdue", kind="request_open") == 1


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (renewal_asked, partial(renewal_answered, decision="denied", key="req:r1", prescription_id=None)),
        (renewal_asked, partial(renewal_answered, decision="approved", key="rx_9")),
        (renewal_asked, partial(renewal_closed, reason="expired", key="req:r1", prescription_id=None)),
        (change_asked, partial(a_fact, "change.responded", decision="denied", key="rx_7")),
    ],
    ids=["answered", "answered for a prescription", "closed", "change"],
)
async def test_a_request_that_matches_no_prescription_is_not_overdue_once_answered(
    model: ReadModel, asked: Callable[..., Event], answered: Callable[..., Event]
) -> None:
    """Whichever comes first."""
    late, early = ("r1", "r2")
    for name in (late, early):
        first = asked(0, id=f"a_{name}", key=f"req:{name}", request_id=name, prescription_id=None)
        events = (first, answered(1, id=f"b_{name}", request_id=name))
        await model.apply(*(events if name == late else reversed(events)))

    assert await unmatched(model) == []


async def test_an_answer_in_an_unknown_word_or_of_another_source_leaves_a_request_open(model: ReadModel) -> None:
    await model.apply(
        renewal_asked(0, key="req:r1", request_id="r1", prescription_id=None),
        renewal_answered(1, key="req:r1", request_id="r1", prescription_id=None, decision="UNKNOWN"),
        renewal_answered(1, key="req:r1", request_id="r1", prescription_id=None, decision="denied", source="other"),
    )

    assert await unmatched(model) == [("r1", None)]


async def test_a_request_asked_twice_waits_once_and_since_the_first(model: ReadModel) -> None:
    again = [
        renewal_asked(ago(days=days), id=f"evt_{days}", key="req:r1", request_id="r1", prescription_id=None)
        for days in (3, 20)
    ]
    await model.apply(*again)

    assert await unmatched(model) == [("r1", None)]
    (asked,) = await model.rows("select asked_at, source from {schema}.open_request")
    assert (asked["asked_at"], asked["source"]) == (again[1].occurred_at, "drx")


async def test_a_request_of_a_clock_that_ran_ahead_is_overdue_by_its_receipt(model: ReadModel) -> None:
    received_at = datetime.now(UTC) - timedelta(days=15)
    await model.apply(
        renewal_asked(0, key="req:r1", request_id="r1", prescription_id=None, received_at=received_at),
        renewal_asked(ago(days=-900), key="req:r2", request_id="r2", prescription_id=None, received_at=received_at),
    )

    (row,) = await model.rows("select since from {schema}.overdue where request_id = 'r2'")
    assert row["since"] == received_at + timedelta(minutes=5)


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


async def test_a_limit_that_was_changed_reaches_the_views_and_the_metrics(model: ReadModel) -> None:
    async with model.database.transaction() as connection:
        await connection.execute(
            f"update {model.schema}.timer set after = '30 minutes' where kind = 'unconfirmed'"  # noqa: S608 - ours
        )
    await model.apply(sent(ago(hours=0.6), message_id="m1"), renewal_asked(ago(hours=0.6), request_id="r1"))

    await model.tick()

    assert await overdue(model) == [("unconfirmed", "rx_1")]
    assert model.metric("read_model_overdue", kind="unconfirmed") == 1
    assert model.metric("read_model_overdue", kind="request_open") == 0


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


async def test_a_ping_is_no_sign_of_life_of_the_orders(model: ReadModel) -> None:
    await model.apply(
        *steady("brisk", gap_s=60, count=30, last_s=3600),
        *steady("brisk", gap_s=1, count=2, last_s=1, kind="system.ping"),
    )

    assert await silent(model) == {"brisk": True}
