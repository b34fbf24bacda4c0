"""Dashboards on PostgreSQL: `drx_reader` may run each query, each returns rows, and no row identifies a person."""

from typing import Any

import orjson

from bridge.contract.events import EVENT_MODELS
from bridge.event import Event
from consumers.postgres.migrate import LEDGER, migrate
from tests import prescriptions as rx
from tests.integration.phi_documents import Marker
from tests.monitoring.queries import SQL_BOARDS
from tests.monitoring.test_runbooks import understood
from tests.read_model import ReadModel, open_model

KEY = "PHI-of-the-key"
_PARKED = """
insert into drx_consumer.parked_key (grp, topic, part, key, class, code, attempts)
values ('read_model', 't', 0, $1, 'permanent', 'refused', 5)
"""
_EVENT = """
insert into drx_consumer.parked_event (grp, topic, part, "offset", key, timestamp_ms, headers, source, event_id,
  event_type, body_sha256, class, code, attempts, value)
values ('read_model', 't', 0, 8, $1, 1, '[]', 'acme', 'evt-8', 'prescription.sent', '', 'permanent', 'refused', 5, $2)
"""


def panels() -> list[tuple[str, str]]:
    return [
        (panel["title"], target["rawSql"])
        for board in SQL_BOARDS.values()
        for panel in board["panels"]
        for target in panel.get("targets", ())
    ]


def life() -> list[Event]:
    """Return what makes each panel have a row: it waits, is overdue, and was dispensed after its cancel."""
    week = rx.ago(days=21)
    alarms = [
        rx.a_fact("alert.raised", week + at / 60, source="other", id=f"evt_a{at}", key="rx_2") for at in range(30)
    ]
    return [
        rx.created(week, key=KEY),
        rx.sent(week + 1, message_id="m1", key=KEY),
        rx.cancel_asked(week + 2, request_id="c1", key=KEY),
        rx.cancel_answered(week + 3, request_id="c1", decision="approved", key=KEY),
        rx.filled(week + 4, "dispensed", key=KEY),
        rx.renewal_asked(week + 5, request_id="r1", key=KEY),
        rx.renewal_asked(week + 6, request_id="r2", key=KEY),
        rx.renewal_answered(week + 7, request_id="r2", decision="denied", key=KEY),
        rx.worked_on(week + 8, "packed", key=KEY),
        rx.shipped(week + 9, "in_transit", key=KEY),
        *alarms,
    ]


async def test_each_panel_finds_something_that_identifies_nobody(postgres: str) -> None:
    marker = Marker()
    marked = [marker.document(each, event_id=f"evt_{number}") for number, each in enumerate(EVENT_MODELS)]
    async with open_model(postgres) as model:
        await migrate(model.database, LEDGER)
        await model.apply(*(rx.native(orjson.dumps(each.document)) for each in marked), *life())
        await model.rows(_PARKED, KEY)
        await model.rows(_EVENT, KEY, KEY.encode())
        await model.rows("insert into drx_consumer.park_breaker values ('read_model', now())")

        for title, query in panels():
            rows = await shown(model, query, KEY)
            assert rows, title
            assert KEY not in repr(rows), title
            for each in (one for one in rows if "command" in one):
                understood(each["command"])
        for document in marked:
            seen = [repr(await shown(model, query, document.key or "none")) for _, query in panels()]
            assert not [text for text in document.markers.values() if text in "".join(seen)]


async def shown(model: ReadModel, query: str, key: str) -> list[dict[str, Any]]:
    filled_in = query.replace("${schema}", model.schema).replace("${id:sqlstring}", f"'{key}'")
    async with model.database.transaction() as connection:
        await connection.execute("set local role drx_reader")
        return [dict(row) for row in await connection.fetch(filled_in)]


async def test_the_timeline_shows_each_machine_and_ends_with_what_the_read_model_has(postgres: str) -> None:
    (query,) = (text for title, text in panels() if title == "Six machines")
    async with open_model(postgres) as model:
        await model.apply(*life())

        rows = await shown(model, query, KEY)
    words = {machine: [row[machine] for row in rows if row[machine]] for machine in rows[0] if machine != "time"}
    assert words == {
        "transmission": ["draft", "sent", "sent"],
        "order": ["cancel_pending", "cancelled", "cancelled"],
        "request": ["open", "open", "answered", "open"],
        "dispense": ["dispensed", "dispensed"],
        "fulfillment": ["packed", "packed"],
        "shipment": ["in_transit", "in_transit"],
    }
