"""The latest deliveries: lines of the ingress's log, joined with their records in Kafka.

A line has a keyed hash of the delivery's id (`bridge.runtime.log_ids`); the key is a file of the stack. A delivery
without a record, such as a refused one, appears with its line only.
"""

import asyncio
import contextlib
import itertools
from asyncio.subprocess import DEVNULL, PIPE
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import orjson

from bridge.commands.tail_format import text
from bridge.dev.files import DataDirectory, read_json
from bridge.dev.processes import launched
from bridge.errors import ConfigError
from bridge.ingress.heartbeat import SOURCE as HEARTBEAT
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.reader import ReadError, open_tail
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC
from bridge.known.derived_ids import id_of_body
from bridge.response_codes import REFUSED, STATUS, meaning
from bridge.runtime.log_ids import current_id_key
from bridge.runtime.logging import id_hash

# Limits: rows in memory, of some 2 KB each; rows sent at once; lines and records per delivery.
KEPT, SHOWN, REPEATS = 2000, 200, 20
_PREFIX = "delivery."

Json = dict[str, Any]


class Feed:
    """Rows by number, in the order of their last change; each has the version of that change."""

    def __init__(self, directory: DataDirectory) -> None:
        self._directory, self._id_key = directory, current_id_key(directory.secrets / "log")
        self._records: OrderedDict[str, list[ConsumedRecord]] = OrderedDict()
        self._by_id: OrderedDict[str, list[Json]] = OrderedDict()
        self.rows: OrderedDict[int, Json] = OrderedDict()
        self.unrecognized: OrderedDict[tuple[int, int], ConsumedRecord] = OrderedDict()
        self.total = self.version = 0

    def changed(self, after: int, *, source: str, outcome: str, kind: str) -> list[Json]:
        """Return the newest matching rows with a version above `after`, oldest first."""
        new = itertools.takewhile(lambda row: row["version"] > after, reversed(self.rows.values()))
        found = (row for row in new if source in row["source"] and outcome in row["outcome"] and kind in row["type"])
        return sorted(itertools.islice(found, SHOWN), key=lambda row: row["number"])

    def records(self, row: Json) -> Sequence[ConsumedRecord]:
        """Return the records of a delivery."""
        return self._records.get(row["event_id"], ())

    def is_mended(self, record: ConsumedRecord) -> bool:
        """Return whether an unrecognized delivery has since become an event."""
        same = self._records.get(id_hash(record.header("ce_id"), self._id_key), ())
        return any(each.topic != record.topic and each.timestamp_ms > record.timestamp_ms for each in same)

    async def follow_log(self) -> None:
        """Add a row for each log line about a delivery, until cancelled."""
        command = launched(["tail", "-n", str(KEPT), "-F", str(self._directory.logs / "ingress.log")])
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=DEVNULL)
        while process.stdout is not None and (line := await process.stdout.readline()):
            self.take_line(line)

    def take_line(self, line: bytes) -> None:
        """Add a row if the line is about a delivery."""
        with contextlib.suppress(ValueError, TypeError, KeyError):  # another line, such as a traceback
            fields = orjson.loads(line)
            if str(fields["event"]).startswith(_PREFIX) and fields.get("source") != HEARTBEAT:
                self.total += 1
                row = {"number": self.total, **_row(fields)}
                _keep(self._by_id, row["event_id"], [row, *self._by_id.get(row["event_id"], ())[:REPEATS]])
                self._change(row)

    def take_record(self, record: ConsumedRecord) -> None:
        """Add a record to the row of its delivery.

        The id of one of several events ends with `/` and a number; an id from the body differs from the delivery's.
        """
        if record.topic == UNRECOGNIZED_TOPIC:
            _keep(self.unrecognized, (record.partition, record.offset), record)
        event_id = record.header("ce_id")
        of_body = id_of_body(record.header("drx_body_sha256"))
        for each in {event_id, event_id.rpartition("/")[0], of_body} - {""}:
            hashed = id_hash(each, self._id_key)
            _keep(self._records, hashed, [record, *self._records.get(hashed, ())[:REPEATS]])
            for row in self._by_id.get(hashed, ()):
                self._change(row)

    async def follow_topic(self, topic: str) -> None:
        """Add the newest and all new records of a topic, until cancelled; wait while Kafka is away."""
        noted: dict[int, int] = {}
        while True:
            servers = read_json(self._directory.endpoints).get("bootstrap_servers", "")  # empty while the stack starts
            with contextlib.suppress(ReadError, ConfigError):
                where: Any = {"since_ms": 0, "records_max": KEPT, "noted": noted, "unreadable": lambda *_: None}
                async with open_tail(KafkaConnection(servers), topic, **where) as tail:
                    while not tail.is_stale():
                        for record in await tail.poll():
                            noted[record.partition] = record.offset + 1
                            self.take_record(record)
            await asyncio.sleep(1)

    def _change(self, row: Json) -> None:
        self.version += 1
        row |= {"version": self.version, "key": next(map(key_cell, self.records(row)), "")}
        _keep(self.rows, row["number"], row)


def key_cell(record: ConsumedRecord) -> object:
    """Return the cell of a key; a prescription's key links to it."""
    key = text(record.key or b"")
    return {"key": key} if record.topic == PRESCRIPTIONS_TOPIC else key


def _row(line: dict[str, Any]) -> Json:
    outcome, code = line["event"].removeprefix(_PREFIX), line.get("code", "")
    status = REFUSED[code].status if code in REFUSED else STATUS.get(outcome)
    why = meaning(outcome, code)
    kind = line.get("reported_type") or line.get("event_type", "")
    known = {"event_id": "", "source": "", "code": "", "detail": "", "field": "", "flags": "", **line}
    return known | {"outcome": outcome, "status": status, "why": why, "type": kind}


def _keep(holder: OrderedDict[Any, Any], name: object, value: object) -> None:
    """Add a value at the end, and drop the first if there are too many."""
    holder[name] = value
    holder.move_to_end(name)
    if len(holder) > KEPT:
        holder.popitem(last=False)
