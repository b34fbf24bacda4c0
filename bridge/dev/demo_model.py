"""The demo's own eyes on PostgreSQL: what the read model says, what is parked, and who decided what."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import orjson

from bridge.dev.demo_acts import DISPLAY, MACHINES, State

Found = TypeVar("Found")
Fetch = Callable[..., Awaitable[list[Any]]]
"""Runs a query with its arguments, and returns the rows."""

GROUP = "read_model"
# An event is in its row a tenth of a second after its delivery is answered, a released one after some two seconds;
# this is the last resort on a machine that is busy with other things.
WAIT_S = 30.0
POLL_S = 0.02

_ROW = """
select events, transmission, order_status, array_to_string(open_requests, ', ') as open_requests, dispense, fulfillment,
  shipment, display
from read_model.prescription where prescription_id = $1
"""
_HISTORY = """
select event_id, e.event_type, e.occurred_at, e.topic, e.partition, e."offset", e.body::text
from read_model.timeline t join read_model.event e using (source, event_id)
where t.prescription_id = $1
order by t.counts_from, t.sequence, event_id, source
"""
# Rows of the history are written once: by number of the transaction, and in it by place, is the order of the writing.
_APPLIED = """
select event_id from read_model.event where prescription_id = $1 order by xmin::text::bigint, ctid
"""
_PARKED = """
select e."offset", e.event_id, e.class, e.code
from drx_consumer.parked_key k left join drx_consumer.parked_event e using (grp, topic, part, key)
where k.grp = $1 and k.key = $2 order by e."offset"
"""
_DECISIONS = """
select verb, "offset", actor, reason from drx_consumer.audit where grp = $1 and key = $2 order by number
"""


class Row(NamedTuple):
    """The row of a prescription: how many events it has, and its words."""

    events: int
    state: State


class Told(NamedTuple):
    """One row of the history; `place` is topic, partition and offset as `Seen.place` writes them."""

    event_id: str
    event_type: str
    occurred_at: datetime
    place: str
    body: Mapping[str, Any]


class Waiting(NamedTuple):
    """One record that waits under a parked key; the id is empty for a foreign one."""

    offset: int
    event_id: str
    cls: str
    code: str


class Decided(NamedTuple):
    """One row of the audit."""

    verb: str
    offset: int | None
    actor: str
    reason: str


class PostgresWitness:
    """Asks the tables, and waits a while for what is to come."""

    def __init__(self, fetch: Fetch, *, wait_s: float = WAIT_S) -> None:
        """Wait for `wait_s` at most, until one wait was in vain."""
        self._fetch = fetch
        self.patience_s = wait_s

    async def row(self, key: str, *, events: int) -> Row | None:
        """Return the row as soon as it has so many events; as it is in the end otherwise, None if there is none."""

        async def ask() -> Row | None:
            rows = await self._fetch(_ROW, key)
            return _row(rows[0]) if rows else None

        return await self._waited(ask, lambda row: row is not None and row.events >= events)

    async def history(self, key: str) -> list[Told]:
        """Return what was told of a prescription in the order of facts."""
        return [
            Told(event_id, event_type, occurred_at, f"{topic}/{partition}@{offset}", orjson.loads(body))
            for event_id, event_type, occurred_at, topic, partition, offset, body in await self._fetch(_HISTORY, key)
        ]

    async def applied(self, key: str) -> list[str]:
        """Return the ids of its events in the order in which they were written."""
        return [event_id for (event_id,) in await self._fetch(_APPLIED, key)]

    async def parked(self, key: str, *, events: int) -> list[Waiting]:
        """Return what waits under a key in order as soon as it is so many; none if the key is live."""

        async def ask() -> list[Waiting]:
            return [Waiting(*row) for row in await self._fetch(_PARKED, GROUP, key)]

        return await self._waited(ask, lambda waiting: len(waiting) == events)

    async def decisions(self, key: str) -> list[Decided]:
        """Return what was decided about a key, the first decision first."""
        return [Decided(*row) for row in await self._fetch(_DECISIONS, GROUP, key)]

    async def _waited(self, ask: Callable[[], Awaitable[Found]], enough: Callable[[Found], bool]) -> Found:
        deadline = asyncio.get_running_loop().time() + self.patience_s
        while not enough(found := await ask()):
            if asyncio.get_running_loop().time() > deadline:
                self.patience_s = 0.0  # what has waited in vain once tells all its other differences at once
                break
            await asyncio.sleep(POLL_S)
        return found


def _row(found: Mapping[str, Any]) -> Row:
    return Row(found["events"], {name: found[name] or "none" for name in (*MACHINES, DISPLAY)})
