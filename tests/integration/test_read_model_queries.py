import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bridge.event import Event
from tests.builders import SAMPLES
from tests.prescriptions import (
    SCENARIOS,
    START,
    a_fact,
    cancel_answered,
    cancel_asked,
    failed,
    filled,
    native,
    processed,
    renewal_answered,
    renewal_asked,
    scenario,
    sent,
)
from tests.read_model import ReadModel

PAGE = Path(__file__).parents[2] / "docs" / "read-model-queries.md"
QUERIES = re.findall(r"^## (.+?)\n```sql\n(.+?)```", PAGE.read_text(), re.DOTALL | re.MULTILINE)


def every_case() -> list[Event]:
    samples = [
        native(path.read_bytes())
        for path in sorted(SAMPLES.glob("native/*.json"))
        if not path.stem.startswith(("35", "36"))
    ]
    lives = [event for name in SCENARIOS for event in scenario(name)[0]]
    others = [
        cancel_answered(0, request_id="c1", decision="approved", key="rx_unsafe"),
        filled(1, "dispensed", key="rx_unsafe"),
        sent(0, message_id="m1", key="rx_lost"),
        failed(0, relates_to_message_id="m1", retryable=False, key="rx_failed"),
        renewal_asked(0, request_id="r9", key="req:r9", prescription_id=None),
        filled(0, "UNKNOWN", key="rx_odd", raw_fill_status="lent"),
        *(a_fact("alert.raised", minute, source="other", id=f"evt_{minute}", key="rx_odd") for minute in range(30)),
    ]
    return list({(event.source, event.id): event for event in (*samples, *lives, *others)}.values())


async def test_each_example_query_finds_something_with_the_rights_of_a_reader(model: ReadModel) -> None:
    await model.apply(*every_case())

    assert len(QUERIES) >= 15
    async with model.database.transaction() as connection:
        await connection.execute("set local role drx_phi_reader")
        await connection.execute(f"set local search_path to {model.schema}")
        assert [title for title, query in QUERIES if not await connection.fetch(query)] == []


async def test_the_timeline_is_in_the_order_of_facts(model: ReadModel) -> None:
    ahead = filled(60, "dispensed", id="a", received_at=START)
    await model.apply(ahead, sent(6, id="b", sequence=2), sent(6, id="c", sequence=1), processed(5, id="d"))

    rows = await model.rows("select event_id from {schema}.timeline order by counts_from, sequence, event_id, source")

    assert [row["event_id"] for row in rows] == ["a", "d", "c", "b"]


async def test_open_requests_are_listed_with_the_record_that_asked(model: ReadModel) -> None:
    await model.apply(
        renewal_asked(0, request_id="r1"),
        renewal_asked(1, request_id="r2", refills_requested=3),
        renewal_answered(2, request_id="r1", decision="pending"),
    )

    columns = "prescription_id, request_id, event_type, body ->> 'refills_requested' as refills, asked_at"
    (row,) = await model.rows(f"select {columns} from {{schema}}.open_request")  # noqa: S608 - ours
    assert tuple(row.values()) == ("rx_1", "r2", "renewal.requested", "3", START + timedelta(minutes=1))


async def test_the_figures_count_what_they_say(model: ReadModel) -> None:
    await model.apply(
        sent(0, message_id="m1"),
        processed(10, relates_to_message_id="m1"),
        sent(0, message_id="m1", key="rx_2", id="s2"),
        failed(5, relates_to_message_id="m1", key="rx_2"),
        cancel_asked(0, request_id="c1", key="rx_3"),
        filled(60 * 9, "dispensed", key="rx_3"),
    )

    (day,) = await model.rows("select * from {schema}.daily_transmission")
    assert (day["day"], day["messages"], day["processed"], day["failed"], day["median_to_processed"]) == (
        datetime(2026, 9, 14, tzinfo=UTC).date(),
        2,
        1,
        1,
        timedelta(minutes=10),
    )
    (fills,) = await model.rows("select * from {schema}.daily_fill")
    assert (fills["day"], fills["fill_status"], fills["fills"]) == (
        datetime(2026, 9, 15, tzinfo=UTC).date(),
        "dispensed",
        1,
    )
    counts = await model.rows("select display, prescriptions from {schema}.status_count order by display")
    assert [tuple(row.values()) for row in counts] == [("dispensed", 1), ("failed", 1), ("processed", 1)]
