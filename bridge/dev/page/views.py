"""Content of the page: the state of the stack, by the addresses in `endpoints.json`.

A section has a title, table headings, rows of cells, and optionally a note and a picture. A cell is text, or an object:
`key` links to a prescription, `copy` has commands to copy, `state` is coloured.
"""

import asyncio
import shlex
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from xml.etree import ElementTree as ET

import asyncpg  # noqa: TID251 - reads independently of the pool of consumers
import orjson

from bridge.avro.event_decoder import EventDecoder
from bridge.commands.tail_format import plain, text
from bridge.dev.files import DataDirectory, read_json
from bridge.dev.page.feed import Feed, Json, key_cell
from bridge.dev.services import get, metrics_in, run_program
from bridge.errors import DecodeError
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.registry.loader import bundled
from bridge.registry.masker import PEOPLE_MASK, Masker
from bridge.registry.schemas import expand
from bridge.runtime.findings import counted

ASK_S, ANSWER_S, LISTED = 1.0, 2.0, 100
_CLASSES = {"D": "D identity", "L": "L health", "P": "P provider"}  # docs/contract.md §7
_HIDDEN = {"event", "event_id", "event_type", "key", "level", "number", "record_key", "version"}  # of a row
_STATES = """
select p.grp, coalesce(k.code, d.code, '') as code,
  to_char(coalesce(k.parked_at, d.at, i.settled_at), 'HH24:MI:SS.MS') as at,
  case when k.code is not null then 'parked' when d.code is not null then 'skipped'
    when i.settled_at is not null then 'applied' when p.next_offset > $3 then 'skipped' else 'waiting' end as state
from drx_consumer.progress p
left join drx_consumer.inbox i on (i.grp, i.source, i.event_id) = (p.grp, $4, $5)
left join drx_consumer.parked_event k on (k.grp, k.topic, k.part, k."offset") = (p.grp, p.topic, p.part, $3)
left join drx_consumer.audit d on d.verb in ('skip', 'drop_key')
  and (d.grp, d.topic, d.part, d."offset") = (p.grp, p.topic, p.part, $3)
where p.topic = $1 and p.part = $2 order by p.grp
"""
_PARKED = """
select k.grp, k.key, k.topic, k.class, k.code, k.parked_at, k.release_requested_at as released,
  count(e."offset") as records, min(e."offset") as "offset"
from drx_consumer.parked_key k left join drx_consumer.parked_event e using (grp, topic, part, key)
where $1 in ('', k.key) group by k.grp, k.topic, k.part, k.key order by k.parked_at limit $2
"""
_CHANGED = "select events, updated_at from read_model.prescription where prescription_id = $1"

MACHINES = ("display", "transmission", "order_status", "open_requests", "dispense", "fulfillment", "shipment")
WARNINGS = {
    "safety": "Safety signal: dispensed after a cancel was approved. Call the pharmacy now.",
    "anomalies": "Contradiction: a message was processed after it had failed for good.",
}
# SVG units: width of the picture, width of the names, height of a row, width of a letter.
_WIDTH, _NAMES, _ROW, _LETTER = 1000, 100, 26, 6.5


def section(title: str, head: Sequence[str], rows: Sequence[Sequence[object]], **more: object) -> Json:
    """Return a section of the page."""
    return {"title": title, "head": head, "rows": rows, **more}


class Views:
    """Queries the running parts; a part that does not respond is shown as away."""

    def __init__(self, directory: DataDirectory, feed: Feed, decoder: EventDecoder, *, show_phi: bool) -> None:
        self._directory, self._feed, self._decoder, self._phi = directory, feed, decoder, show_phi
        self._schemas = {name: expand(schema) for name, schema in bundled().schemas().items()}
        self._masker = Masker(bundled().schemas(), mask=PEOPLE_MASK)
        self._asked_at, self._state = -ASK_S, Json(parts=[], alarm="The stack is starting.", waits=[])
        self._timeline: tuple[object, list[Json]] = (None, [])
        self._database: Any = None

    @property
    def _endpoints(self) -> Json:
        return read_json(self._directory.endpoints)  # empty while the stack starts

    async def state(self) -> Json:
        """Return the state of each part; queried at most once a second for all browsers."""
        if time.monotonic() < self._asked_at + ASK_S or not (endpoints := self._endpoints):
            return self._state
        self._asked_at = time.monotonic()
        consumers, management = endpoints.get("consumers", {}), endpoints.get("management", "")
        asked = [(management, "/readyz"), *((url, "/metrics") for url in (management, *consumers.values()))]
        answers = (asyncio.to_thread(get, int(url.rpartition(":")[2] or 0), path) for url, path in asked)
        (_, ready), *pages = await asyncio.gather(*answers)
        ingress, *others = (metrics_in(page) for _, page in pages)
        kafka = orjson.loads(ready or b"{}").get("checks", {}).get("kafka", "unknown")
        spooled, waits = int(ingress["spool_events"]), list[tuple[object, ...]]()
        held, since = counted(spooled, "event"), _at(ingress["spool_oldest_event_timestamp_seconds"])
        waits += [("spool", held, since, {"copy": ["drx-bridge spool status"]})] * bool(spooled)
        parts = [("ingress", "up" if ready else "away", bool(ready)), ("Kafka", kafka, kafka == "ok")]
        parts.append(("spool", held if spooled else "empty", not spooled))
        for name, each in zip(consumers, others, strict=True):
            behind, keys = int(each["consumer_lag_records"]), int(each["parked_keys"])
            words = [f"{behind} behind"] * bool(behind) + [f"{counted(keys, 'key')} parked"] * bool(keys)
            parts.append((name, ", ".join(words) or ("up to date" if each else "away"), bool(each) and not words))
            waits += [(name, counted(behind, "record"), "", {"copy": [f"drx-consumer lag {name}"]})] * bool(behind)
        where = "back, and the spool drains" if kafka == "ok" else "away, and the spool fills"
        alarm = f"Kafka is {where}: it holds {held}." * bool(spooled)
        self._state = {"parts": parts, "alarm": alarm, "waits": waits}
        return self._state

    async def _fetch(self, query: str, *values: object) -> Any:
        """Query PostgreSQL; no rows while it is away or has no tables."""
        try:
            if self._database is None:
                self._database = await asyncpg.create_pool(self._endpoints["postgres"], min_size=0, max_size=2)
            return await self._database.fetch(query, *values, timeout=ANSWER_S)
        except (KeyError, OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return []

    async def delivery(self, number: str) -> list[Json]:
        """Return a delivery: its response, and each of its records with the outcome in each consumer."""
        row = self._feed.rows.get(int(number)) if number.isdecimal() else None
        if row is None:
            return [section("Delivery", (), [], note="The page no longer has this delivery.")]
        facts: list[tuple[str, object]] = [(name, row[name]) for name in row if row[name] and name not in _HIDDEN]
        came = int(datetime.fromisoformat(row["timestamp"]).timestamp())
        of = f"--source {shlex.quote(row['source'])} --now {came}"
        verify = f"drx-bridge verify {of} --header 'NAME: VALUE' … BODY_FILE"
        facts += [("to find the mistake", {"copy": [verify]})] * (row["status"] == HTTPStatus.UNAUTHORIZED)
        sections = [section("Delivery", (), facts)]
        for record in self._feed.records(row):
            sections += await self._record(record)
        return sections

    async def _record(self, record: ConsumedRecord) -> list[Json]:
        facts, fields = [("key", key_cell(record))], list[tuple[str, ...]]()
        try:
            found = await self._decoder.inspect(record)
        except DecodeError as exc:
            facts += [("cannot be decoded", exc.code)]
        else:
            value = found.value if self._phi else self._masker.mask(found.record, found.value)
            if isinstance(body := value.get("body"), bytes):
                value = {**value, "body": text(body)}
            fields += _fields(self._schemas.get(found.record, {}), plain(value))
            facts += [("schema", found.record), ("unknown members", len(found.value.get("extensions") or ()))]
        states = await self._fetch(_STATES, *record[:3], record.header("ce_source"), record.header("ce_id"))
        consumers = [(each["grp"], {"state": each["state"]}, each["code"], each["at"]) for each in states]
        return [
            section(f"{record.topic}/{record.partition}@{record.offset}", (), facts),
            section("Consumers", ("consumer", "state", "code", "at"), consumers),
            section("Fields", ("field", "class", "value"), fields),
            section("Headers", (), [(name, text(content)) for name, content in record.headers]),
        ]

    async def prescription(self, key: str) -> list[Json]:
        """Return the history of a prescription, read again when the read model changes, and its parked records."""
        changed = await self._fetch(_CHANGED, key)
        if changed and self._timeline[0] != (key, *changed[0]):
            self._timeline = ((key, *changed[0]), await asyncio.to_thread(self._history, key))
        unknown = section(key, (), [], note="The read model does not know this prescription.")
        return [*(self._timeline[1] if changed else [unknown]), await self._parked(key)]

    def _history(self, key: str) -> list[Json]:
        asked = ("where", "--history", "--json", *["--show-phi"] * self._phi, "--", key)
        output = run_program("drx-consumer", *asked, settings={"CONSUMER_POSTGRES__DSN": self._endpoints["postgres"]})
        documents = (line for line in output.text.splitlines() if line.startswith('{"prescription_id"'))
        events = orjson.loads(next(documents, '{"events": []}'))["events"]  # empty once they were pruned
        rows, warnings = [], set[str]()
        for each in events:
            moved = ", ".join(f"{_words(name)} {_words(value)}" for name, value in each["moved"].items() if value)
            position = f"{each['topic']}/{each['partition']}@{each['offset']}"
            rows.append(
                (each["occurred_at"][:19].replace("T", " "), each["event_type"], moved, position, each["event_id"])
            )
            warnings |= {WARNINGS[name] for name in WARNINGS if each["moved"].get(name)}
        return [
            section(key, (), [], note=" ".join(sorted(warnings)), svg=strip(events)),
            section("Events", ("at", "type", "moved", "record", "event"), rows),
        ]

    async def waiting(self, _: str) -> list[Json]:
        """Return the items that need an operator, each with the command that resolves it."""
        settings = {"copy": [f". {shlex.quote(str(self._directory.env))}"]}
        first = section("First, in a shell of yours", (), [("settings of this stack", settings)])
        spooled = section("Spool and consumers", ("what", "waits", "since", "details"), (await self.state())["waits"])
        return [first, await self._parked(""), self._unrecognized(), spooled]

    async def _parked(self, key: str) -> Json:
        rows = []
        for each in await self._fetch(_PARKED, key, LISTED):
            which = shlex.join([each["grp"], each["key"], "--topic", each["topic"]])
            commands = [f"drx-consumer parked retry {which}"]
            if each["class"] == "poison":  # it would be parked again
                commands.insert(0, f"drx-consumer parked skip {which} --offset {each['offset']} --reason TEXT")
            why, since = f"{each['class']} {each['code']}", _at(each["parked_at"].timestamp())
            right = "release asked for" if each["released"] else {"copy": commands}
            rows.append((each["grp"], {"key": each["key"]}, why, since, each["records"], right))
        return section("Parked keys", ("consumer", "key", "why", "since", "records", "to put it right"), rows)

    def _unrecognized(self) -> Json:
        rows, url = list[tuple[Any, ...]](), self._endpoints.get("ingress", "")
        for each in reversed(self._feed.unrecognized.values()):
            if len(rows) < LISTED and not self._feed.is_mended(each):
                source, reason, name = map(each.header, ("ce_source", "drx_reason", "ce_id"))
                verbs = [("show", name), ("replay", "--source", source, "--id", name, "--url", url)]
                is_final = reason == "id_conflict" or reason.startswith("malformed_")  # a mapping cannot change those
                verbs = verbs[: 1 if is_final else 2]
                commands = [shlex.join(["drx-bridge", "unrecognized", *verb]) for verb in verbs]
                rows.append((source, reason, _at(each.timestamp_ms / 1000), {"copy": commands}))
        rows.sort(key=lambda row: row[1])
        return section("Unrecognized deliveries", ("source", "reason", "since", "to look at it, to replay it"), rows)


def _fields(kind: Any, value: Any, at: str = "", phi: str = "") -> Iterator[tuple[str, ...]]:
    """Yield path, PHI class and text of each non-empty field, by its schema."""
    branches = [each for each in (kind if isinstance(kind, list) else [kind]) if isinstance(each, Mapping)]
    if isinstance(value, Mapping):
        declared = {each["name"]: each for branch in branches for each in branch.get("fields", ())}
        for name, inner in value.items():
            known = declared.get(name, {"phi": phi})
            yield from _fields(known.get("type"), inner, f"{at}.{name}".lstrip("."), known.get("phi", ""))
    elif isinstance(value, list):
        items = next((each["items"] for each in branches if "items" in each), None)
        for number, inner in enumerate(value):
            yield from _fields(items, inner, f"{at}[{number}]", phi)
    elif value not in (None, ""):
        yield at, _CLASSES.get(phi, ""), str(value)


def _at(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC):%Y-%m-%d %H:%M:%S}"


def strip(events: Sequence[Mapping[str, Any]]) -> str:
    """Return an SVG with a row per state machine and a column per event; the page's CSS has the colours."""
    box = ET.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_WIDTH} {_ROW * len(MACHINES)}")
    column = (_WIDTH - _NAMES) / max(1, len(events))
    for row, name in enumerate(MACHINES):
        ET.SubElement(box, "text", y=f"{row * _ROW + 17}").text = _words(name)
        moves = [
            (position, _words(each["moved"][name])) for position, each in enumerate(events) if name in each["moved"]
        ]
        for (start, word), (end, _) in zip(moves, [*moves[1:], (len(events), "")], strict=True):
            x, width = _NAMES + start * column, (end - start) * column - 2
            part = ET.SubElement(box, "g", {"class": word.partition(" ")[0] or "none"})
            ET.SubElement(part, "title").text = f"{_words(name)} {word} from {events[start]['occurred_at']}"
            ET.SubElement(part, "rect", x=f"{x}", y=f"{row * _ROW + 2}", width=f"{width}", height=f"{_ROW - 4}", rx="4")
            if len(word) * _LETTER + 10 < width:
                ET.SubElement(part, "text", x=f"{x + 6}", y=f"{row * _ROW + 17}").text = word
    return ET.tostring(box, encoding="unicode")


def _words(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value).replace("_", " ")
