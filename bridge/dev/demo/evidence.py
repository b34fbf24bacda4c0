"""What Kafka, PostgreSQL, spool, receiver and lake of a running stack hold, read apart from what wrote it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import aiohttp
import orjson
from pyarrow import dataset  # noqa: TID251 - reads the lake as anybody would

from bridge.avro.event_decoder import EventDecoder
from bridge.dev.oracle import COLUMNS
from bridge.dev.services import Output, run_program
from bridge.dev.stack import TOPICS, Stack
from bridge.errors import DecodeError
from bridge.kafka.connection import Connection
from bridge.kafka.reader import open_reader

# An event is in its row a tenth of a second after its delivery is answered, a released one after some two seconds, and
# the spool is empty within seconds; these are last resorts on a machine that is busy with other things.
WAIT_S, DRAIN_S = 30.0, 60.0
POLL_S = 0.02

ROW = f"select events, {', '.join(COLUMNS.values())} from read_model.prescription where prescription_id = $1"  # noqa: S608 - ours
HISTORY = """
select event_id, e.event_type, e.occurred_at, e.body::text as body,
  e.topic || '/' || e.partition || '@' || e."offset" as place
from read_model.timeline t join read_model.event e using (source, event_id)
where t.prescription_id = $1 order by t.counts_from, t.sequence, event_id, source
"""
# Rows of the history are written once: by number of the transaction, and in it by place, is the order of the writing.
APPLIED = "select event_id from read_model.event where prescription_id = $1 order by xmin::text::bigint, ctid"
# A record that is no event has an empty id.
PARKED = """
select e."offset", e.event_id, e.class
from drx_consumer.parked_key k left join drx_consumer.parked_event e using (grp, topic, part, key)
where k.grp = 'read_model' and k.key = $1 order by e."offset"
"""
AUDIT = """
select verb, "offset", actor, reason from drx_consumer.audit where grp = 'read_model' and key = $1 order by number
"""

Row = Mapping[str, Any]


class Found(NamedTuple):
    """One record; the name of its Avro `record` and its `value` are empty if it cannot be decoded."""

    place: str
    topic: str
    partition: int
    key: str
    headers: Mapping[str, str]
    payload: bytes
    record: str
    value: Mapping[str, Any]

    def holds(self, text: str) -> bool:
        """Whether the text stands anywhere: in the key, a header or the payload."""
        return any(text in each for each in (self.key, *self.headers.values())) or text.encode() in self.payload


class Forwarded(NamedTuple):
    """One delivery as the receiver of `forward` has it; `refused` says what was wrong with its signature."""

    refused: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


NOTHING = Found("nowhere", "", -1, "", {}, b"", "", {})


@dataclass
class Evidence:
    """Reads; `database` is a pool of asyncpg."""

    stack: Stack
    decoder: EventDecoder
    database: Any
    session: aiohttp.ClientSession
    wait_s: float = WAIT_S

    async def records(self, event_id: str = "") -> list[Found]:
        """Read all topics from their first record to the last; only the records of `event_id` if one is given."""
        connection = Connection(self.stack.endpoints["bootstrap_servers"])
        async with open_reader(connection, TOPICS, from_beginning=True) as reader:
            found = []
            async for record in reader.until_end():
                place = f"{record.topic}/{record.partition}@{record.offset}"
                key = (record.key or b"").decode("utf-8", "replace")
                headers = {name: content.decode("utf-8", "replace") for name, content in record.headers}
                try:
                    decoded = await self.decoder.inspect(record)
                    name, value = decoded.record, decoded.value
                except DecodeError:
                    name, value = "", {}
                parts = record.topic, record.partition, key, headers, record.value or b"", name, value
                found.append(Found(place, *parts))
        return [each for each in found if event_id in {"", each.headers.get("ce_id")}]

    async def row(self, key: str, *, events: int) -> Row | None:
        """Return the row of a prescription as soon as it has `events` events; as it is after a while otherwise."""
        rows = await self.ask(ROW, key, until=lambda rows: bool(rows) and rows[0]["events"] >= events)
        return rows[0] if rows else None

    async def parked(self, key: str, *, events: int) -> Sequence[Row]:
        """Return what is parked under a key, in order, as soon as it is `events` records, or after a while."""
        return await self.ask(PARKED, key, until=lambda rows: len(rows) == events)

    async def ask(
        self, query: str, key: str, *, until: Callable[[Sequence[Row]], bool] = lambda _rows: True
    ) -> Sequence[Row]:
        """Return the rows about a key, after a while also if they are not what is waited for."""
        deadline = monotonic() + self.wait_s
        rows: Sequence[Row]
        while not until(rows := await self.database.fetch(query, key)):
            if monotonic() > deadline:
                self.wait_s = 0.0  # after one wait in vain, the other differences are reported at once
                break
            await asyncio.sleep(POLL_S)
        return rows

    async def forwarded(self, key: str, *, events: int) -> list[Forwarded]:
        """Return what the receiver was sent of a prescription, in order, as soon as it is so much, or after a while."""
        deadline = monotonic() + self.wait_s
        while True:
            async with self.session.get(f"{self.stack.endpoints['receiver']}/received") as answer:
                received = orjson.loads(await answer.read())
            bodies = [orjson.loads(each["body"]) for each in received]
            found = [
                Forwarded(each["refused"], each["headers"], body)
                for each, body in zip(received, bodies, strict=True)
                if body["data"].get("prescription_id") == key
            ]
            if len(found) >= events:
                return found
            if monotonic() > deadline:
                self.wait_s = 0.0
                return found
            await asyncio.sleep(POLL_S)

    async def in_lake(self, key: str, *, events: int) -> list[Row]:
        """Return the rows of a prescription, in the order of the log, once `events` are there or time is up."""
        deadline = monotonic() + self.wait_s
        while len(found := await asyncio.to_thread(self._rows, key)) < events:
            if monotonic() > deadline:
                self.wait_s = 0.0
                break
            await asyncio.sleep(10 * POLL_S)
        return found

    async def lake_files(self) -> list[str]:
        """Return the paths of the files of events, below the lake."""
        lake = Path(self.stack.endpoints["lake"])
        files = await asyncio.to_thread(lambda: sorted(lake.rglob("events/**/*.parquet")))
        return [str(each.relative_to(lake)) for each in files]

    def _rows(self, key: str) -> list[Row]:
        events = Path(self.stack.endpoints["lake"]) / "events"
        if not any(events.rglob("*.parquet")):
            return []
        lake = dataset.dataset(events, format="parquet", partitioning=None)
        rows: list[Row] = (
            lake.to_table(filter=dataset.field("_key") == key).sort_by("_offset").to_pylist(maps_as_pydicts="strict")
        )
        return rows

    async def run(self, program: str, *arguments: str) -> Output:
        """Run one of our programs as an operator would at a shell."""
        return await asyncio.to_thread(run_program, program, *arguments, settings=self.stack.settings)

    async def spooled(self) -> int:
        """Return how many events are on the disk and not yet in Kafka, as an operator counts them."""
        return int(orjson.loads((await self.run("drx-bridge", "spool", "status", "--json")).text)["events"])

    async def drained(self) -> int:
        """Return how many events are left on the disk when there are none, or after a while."""
        deadline = monotonic() + DRAIN_S
        while (left := await self.spooled()) and monotonic() < deadline:  # noqa: ASYNC110 - the disk gives no event
            await asyncio.sleep(POLL_S)
        return left
