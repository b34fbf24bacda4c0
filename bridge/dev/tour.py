"""The tour of `drx-bridge demo`: follow one prescription through a real stack, hop by hop, and check each hop.

Each hop is read back with different code from the code that wrote it. If a check fails, the exit code is 1.
"""

import asyncio
import hashlib
import random
import re
import secrets
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg  # noqa: TID251 - reads independently of the consumers' own pool
import orjson
from aiokafka import AIOKafkaProducer  # noqa: TID251 - writes a record that our own producer never writes
from pyarrow import dataset  # noqa: TID251 - reads the lake as an external tool does
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.avro.event_decoder import EventDecoder, open_decoder
from bridge.commands.tail import decoded
from bridge.commands.tail_format import Shown
from bridge.dev.services import CONSUMERS, PARTITIONS, run_program
from bridge.dev.sources import SOURCES, DevSource
from bridge.dev.stack import TOPICS, Stack
from bridge.dev.traffic import new_id, scenario
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.reader import open_reader
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC, partition
from bridge.registry.address import RegistryAddress
from bridge.runtime.screen import printable
from bridge.sender.sender import Delivered, Post, RetryPolicy, Sender
from bridge.sender.signing import read_signer, standard_headers

# The first scenario of `scenarios/drx.ndjson`: a caption for each event, and the read model's status after it.
STEPS = (
    ("A draft waits in the prescriber's queue.", "draft"),
    ("Signed and sent to the pharmacy.", "sent"),
    ("The pharmacy's system has confirmed it.", "processed"),
    ("It is in the mail-order pharmacy's queue.", "received"),
    ("Counted, labelled, billed and packed.", "packed"),
    ("The pharmacist dispenses it.", "dispensed"),
    ("The carrier has a label for a parcel.", "dispensed"),
    ("The parcel is on its way.", "dispensed"),
    ("The parcel is at the patient's door.", "delivered"),
)
# JSON instead of Avro, as another team's program might write by mistake.
UNDECODABLE = b'{"type": "prescription.processed", "note": "where is the schema?"}'
REASON = "JSON from another team"
# Strings of a body to search for in the spool; strings under five characters could match encrypted bytes by chance.
MARKERS = re.compile(rb':"([^"\\]{5,})"')
CUT_BYTES = 40
# A vendor's mapping file (docs/vendors.md), an event table for this file, and a request body of the vendor.
MAPPING = 'prefix = "acme:"\nkey = "rx"\naccount = "shop"\n'
MAPPED = """
[[event]]
when = "event == '{word}'"
type = "fulfillment.status_changed"
data = {{queue_id = "rx", fulfillment_status = "'{status}'"}}
"""
BODY = b'{"shop": "s_7", "rx": "10442", "event": "PACKED"}'
VALUE_MAX = 100
# Other correct responses on a slow machine, where Kafka misses a deadline or the sender retries early.
SLOW = ("200 duplicate", "202 spooled")
# Timeout in seconds, for a busy machine. A row usually appears 0.1 s after the response; a drain takes seconds.
WAIT_S = 60.0
POLL_S = 0.05

ROW = "select events, display from read_model.prescription where prescription_id = $1"
REPORTED = "select event_type, body ->> 'reported_type' from read_model.timeline where event_id = $1"
# Rows are written once, so transaction number and physical position give the order of the writes.
APPLIED = "select event_id from read_model.event where prescription_id = $1 order by xmin::text::bigint, ctid"
# A record that could not be decoded has an empty event id.
PARKED = """
select e.event_id, e.class
from drx_consumer.parked_key k left join drx_consumer.parked_event e using (grp, topic, part, key)
where k.grp = 'read_model' and k.key = $1 order by e."offset"
"""
AUDIT = "select verb, reason from drx_consumer.audit where grp = 'read_model' and key = $1 order by number"

BodyJson = dict[str, Any]
Rows = list[tuple[Any, ...]]


@dataclass
class Part:
    """A numbered part of the tour and its counts, for the summary table."""

    title: str
    started: float  # seconds of the monotonic clock
    checked: int = 0
    differences: int = 0


class Screen:
    """Prints the parts of the tour with their checks, and collects the differences."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=True, highlight=False)
        self._parts: list[Part] = []
        self.differences: list[str] = []

    def chapter(self, title: str, text: str) -> None:
        """Print a title and a paragraph below it."""
        self._console.print(Text.assemble("\n", (title, "bold cyan"), "\n", text))

    def part(self, title: str, text: str) -> None:
        """Begin the next numbered part of the tour."""
        self._parts.append(Part(title, time.monotonic()))
        self.chapter(f"{len(self._parts)}  {title}", text)

    def line(self, text: str, style: str = "dim") -> None:
        """Print a detail."""
        self._console.print(Text(f"     {text}", style))

    def hop(self, number: int, text: str) -> None:
        """Print the next hop of a delivery."""
        self._console.print(Text(f"  {number}  {text}", "bold"))

    def pairs(self, values: Mapping[str, object]) -> None:
        """Print names and values, one per line; values are cut to `VALUE_MAX` characters."""
        for name, value in values.items():
            self.line(f"{name:<18} {printable(str(value))[:VALUE_MAX]}")

    def check(self, text: str, found: object, expected: object) -> None:
        """Print `text` with a check mark if `found` equals `expected`; otherwise, print and record the difference."""
        fine = found == expected
        self._parts[-1].checked += 1
        self._parts[-1].differences += not fine
        self._console.print(Text(f"     {'✓' if fine else '✗'} {text}", "green" if fine else "bold red"))
        if not fine:
            self.differences.append(f"{text}: found {found!r}, expected {expected!r}")
            self.line(self.differences[-1], "red")

    def close(self) -> None:
        """Print a table of checks and differences by part."""
        number, checked = len(self.differences), sum(each.checked for each in self._parts)
        table = Table("", "part", "checks", "differences", "seconds", box=None, padding=(0, 2, 0, 0))
        for column in table.columns[2:]:
            column.justify = "right"
        ends = [*(each.started for each in self._parts[1:]), time.monotonic()]
        for position, (each, end) in enumerate(zip(self._parts, ends, strict=True), start=1):
            counts = (each.checked, each.differences, round(end - each.started))
            style = "bold red" if each.differences else ""
            table.add_row(str(position), each.title, *map(str, counts), style=style)
        self.chapter(f"{checked} checks, {f'{number} differences' if number else 'no difference'}", "")
        self._console.print(table)


async def tour(stack: Stack, screen: Screen, *, source: str, short: bool = False) -> str:
    """Run the parts on a running stack; return the key of the first part's prescription."""
    endpoint, rng = stack.endpoints["sources"][source], random.Random()  # noqa: S311 - test traffic, not keys
    forged_key = secrets.token_bytes(32)
    async with (
        aiohttp.ClientSession() as session,
        open_decoder(RegistryAddress()) as decoder,
        asyncpg.create_pool(stack.endpoints["postgres"], min_size=1, max_size=1) as database,
    ):
        url = f"{stack.endpoints['ingress']}{endpoint['path']}"
        signs = (
            read_signer(SOURCES[source].configured, Path(endpoint["secret_file"])),
            lambda webhook_id, at, body: standard_headers(webhook_id, at, body, key=forged_key),
        )
        drx, forger = (Sender(session=session, url=url, sign=each, policy=RetryPolicy(), rng=rng) for each in signs)
        return await Tour(stack, screen, decoder, database, session, drx, forger).play(rng, short=short)


@dataclass
class Tour:
    """Runs the parts of the tour, and reads results back from Kafka, PostgreSQL, spool, receiver and lake."""

    stack: Stack
    screen: Screen
    decoder: EventDecoder
    database: Any
    session: aiohttp.ClientSession
    drx: Sender
    forger: Sender
    wait_s: float = WAIT_S

    async def play(self, rng: random.Random, *, short: bool) -> str:
        """Run all parts, or the four of a short tour, in order; return the key of the first part's prescription."""
        events = _scenario_with(rng)
        await self._one_prescription(events)
        await self._forged_and_truncated(events[0], rng)
        if not short:
            await self._downstream(events)
            blocked = _scenario_with(rng)
            target = _partition_of(blocked)
            await self._undecodable(blocked, _scenario_with(rng, lambda other: other == target))
        one = _scenario_with(rng)
        target = _partition_of(one)
        await self._outage(one, _scenario_with(rng, lambda other: other != target))
        if not short:
            await self._repeats(one)
            await self._unknown_type(one[6])
            await self._parked_and_replayed(rng)
        return _key_of(events)

    async def _one_prescription(self, events: Sequence[BodyJson]) -> None:
        screen, key = self.screen, _key_of(events)
        text = f"DRx posts a signed delivery for each event of {key}. The first delivery is shown hop by hop."
        screen.part("The events of one prescription", text)
        for number, (event, (caption, status)) in enumerate(zip(events, STEPS, strict=True), start=1):
            screen.hop(number, f"{event['type']}: {caption}")
            response = await self._accepted(event)
            if number == 1:
                screen.pairs(response.headers)
            records = await self._records(event["id"])
            for each in records if number == 1 else ():
                screen.pairs({"record": _position(each), "Avro": f"{each.record}, {len(each.at.value or b'')} bytes"})
            digest = hashlib.sha256(orjson.dumps(event)).hexdigest()
            names = ("ce_type", "drx_body_sha256")
            found = [(each.at.topic, each.at.key, *map(each.at.header, names)) for each in records]
            wanted = [(PRESCRIPTIONS_TOPIC, key.encode(), event["type"], digest)]
            screen.check("the event is in Kafka once, keyed by its prescription, with the body's digest", found, wanted)
            await self._comes(f"PostgreSQL shows: {status}", ROW, key, [(number, status)])

    async def _forged_and_truncated(self, event: BodyJson, rng: random.Random) -> None:
        """Deliver an event signed with a wrong key, then one with a truncated body."""
        screen = self.screen
        text = "A client without the secret posts a copy of the first event."
        screen.part("A forged delivery", text)
        new = orjson.loads(scenario(rng)[0])["id"]
        response = await self.forger.deliver(Post(new, orjson.dumps({**event, "id": new})))
        screen.check("the response is 401, with a constant code", str(response.reply), "401 refused signature_mismatch")
        screen.check("no topic has a record with that id", await self._records(new), [])
        text = "DRx posts a truncated body. Its signature is valid, so the bridge stores the body, byte for byte."
        screen.part("A broken delivery", text)
        body = orjson.dumps({**event, "id": new})[:-CUT_BYTES]
        response = await self.drx.deliver(Post(new, body))
        screen.check("the response is 202: DRx does not resend", str(response.reply), "202 parked malformed_json")
        await self._kept(f"the body is in {UNRECOGNIZED_TOPIC}, byte for byte", new, body)

    async def _downstream(self, events: Sequence[BodyJson]) -> None:
        screen, key = self.screen, _key_of(events)
        screen.part("The same events in three systems", "Each consumer group has its own offsets.")
        records = _of_key(await self._records(), key)
        wanted: Rows = [(event["id"], _position(each)) for event, each in zip(events, records, strict=False)]
        screen.check("Kafka has every event once, in order", _ce_ids(records), [event["id"] for event in events])
        history = ("drx-consumer", "where", key, "--history")
        await self._operate(*history)
        applied = orjson.loads(await self._run(*history, "--json") or "{}").get("events", [])
        applied = [(each["event_id"], _position_of(each, "")) for each in applied]
        screen.check("PostgreSQL has each event, in order, with partition and offset", applied, wanted)

        async def forwarded() -> Rows:
            async with self.session.get(f"{self.stack.endpoints['receiver']}/received") as response:
                received = [each for each in orjson.loads(await response.read()) if key in each["body"]]
            return [
                (each["refused"], _position_of(each["headers"], "drx-"), _normal(orjson.loads(each["body"])))
                for each in received
            ]

        bodies: Rows = [("", position, _normal(event)) for event, (_, position) in zip(events, wanted, strict=False)]
        await self._becomes("the receiver has verified each, with its body as DRx sent it", forwarded, bodies)

        def lake() -> Rows:
            files = Path(self.stack.endpoints["lake"]) / "events"
            if not any(files.rglob("*.parquet")):
                return []
            found = dataset.dataset(files, format="parquet", partitioning=None)
            rows = found.to_table(filter=dataset.field("_key") == key).sort_by("_offset").to_pylist()
            return [(each["event_id"], _position_of(each, "_")) for each in rows]

        await self._becomes("the lake has each event once, in Parquet", lambda: asyncio.to_thread(lake), wanted)

    async def _undecodable(self, blocked: Sequence[BodyJson], unblocked: Sequence[BodyJson]) -> None:
        screen, key, other = self.screen, _key_of(blocked), _key_of(unblocked)
        screen.part(
            "A record that cannot be decoded",
            "Another team's program bypasses the bridge and writes JSON to the topic instead of Avro.\n"
            f"Its key is {key}: later events of this key must wait; events of other keys must not.",
        )
        for event in blocked[:2]:
            await self._accepted(event)
        async with AIOKafkaProducer(bootstrap_servers=self.stack.endpoints["bootstrap_servers"]) as producer:
            target = _partition_of(blocked)
            written = await producer.send_and_wait(PRESCRIPTIONS_TOPIC, UNDECODABLE, key=key.encode(), partition=target)
        waiting: Rows = [("", "poison")]
        await self._comes(f"the key of {PRESCRIPTIONS_TOPIC}/{target}@{written.offset} is parked", PARKED, key, waiting)
        for number, event in enumerate(blocked[2:5], start=1):
            await self._accepted(event)
            waiting = [*waiting, (event["id"], "behind")]
            await self._comes("the event waits behind that record, in order", PARKED, key, waiting)
            await self._accepted(unblocked[number - 1])
            status = STEPS[number - 1][1]
            await self._comes(
                f"{other}, in the same partition, does not wait: {status}", ROW, other, [(number, status)]
            )
        topic = ("--topic", PRESCRIPTIONS_TOPIC)
        screen.part("An operator resolves it", "The record is skipped, and the events behind it released.")
        parked = ("drx-consumer", "parked")
        await self._operate(*parked, "list", "read_model")
        why = ("--offset", str(written.offset), "--reason", REASON)
        await self._operate(*parked, "skip", "read_model", key, *topic, *why)
        await self._operate(*parked, "retry", "read_model", key, *topic)
        await self._comes("all events of the key are applied", ROW, key, [(5, "packed")])
        await self._comes("they are applied in the order sent", APPLIED, key, [(each["id"],) for each in blocked[:5]])
        await self._comes("no record of the key is parked any more", PARKED, key, [])
        await self._comes("the audit table has both decisions", AUDIT, key, [("skip", REASON), ("retry", "")])

    async def _outage(self, *prescriptions: Sequence[BodyJson]) -> None:
        """Deliver one event of each prescription before the outage of Kafka, and four of each during it."""
        screen = self.screen
        screen.part(
            "An outage of Kafka",
            "DRx may never retry a refused delivery, so the bridge refuses none. It encrypts events that Kafka\n"
            "does not acknowledge, writes them to the local disk, and responds once they are synced.",
        )
        for events in prescriptions:
            await self._accepted(events[0])
        await asyncio.to_thread(self.stack.stop_brokers)
        screen.hop(1, "All brokers are killed, as by a power cut; the first delivery waits two seconds for Kafka")
        spooled = [events[number] for number in range(1, 5) for events in prescriptions]
        for event in [*spooled, spooled[0]]:
            response = await self.drx.deliver(_outgoing(event))
            screen.check(f"{event['type']}, in {_milliseconds(response)}: spooled", str(response.reply), "202 spooled")
        screen.check("the spool has each event once, although one was sent twice", await self._spooled(), len(spooled))
        files = [each for each in self.stack.directory.spool.rglob("*") if each.is_file()]
        content = b"".join(each.read_bytes() for each in files)
        markers = {each for event in spooled for each in MARKERS.findall(orjson.dumps(event["data"]))}
        text = f"the spool is encrypted: no file contains any of {len(markers)} names, numbers and ids of these events"
        screen.check(text, [each for each in markers if each in content], [])
        await asyncio.to_thread(self.stack.start_brokers)
        screen.hop(2, "The brokers are started again")
        await self._becomes("the spool is empty", self._spooled, 0)
        records = await self._records()
        for events in prescriptions:
            found = _of_key(records, _key_of(events))
            text = f"all events of {_key_of(events)} are in Kafka, each once, in the order in which they were sent"
            screen.check(text, _ce_ids(found), [each["id"] for each in events[:5]])
            await self._comes("PostgreSQL has applied all five events: packed", ROW, _key_of(events), [(5, "packed")])

    async def _repeats(self, events: Sequence[BodyJson]) -> None:
        """Repeat two deliveries, then send another body under a known id, then the next event."""
        screen = self.screen
        text = "A sender that got no response sends again. The bridge recognises durable events by id and body."
        screen.part("A repeated delivery", text)
        for event, way in zip(events, ("went straight to Kafka", "was spooled"), strict=False):
            response = await self.drx.deliver(_outgoing(event))
            screen.check(f"{event['type']}, which {way}, is a duplicate", str(response.reply), "200 duplicate")
        event = events[0]
        changed = orjson.dumps({**event, "data": {**event["data"], "origin": "renewal"}})
        response = await self.drx.deliver(Post(event["id"], changed))
        screen.check("another body under the same id is parked", str(response.reply), "202 parked id_conflict")
        await self._kept(f"that body is in {UNRECOGNIZED_TOPIC}, byte for byte", event["id"], changed)
        await self._accepted(events[5])
        await self._comes("PostgreSQL has applied the next event: dispensed", ROW, _key_of(events), [(6, "dispensed")])

    async def _unknown_type(self, event: BodyJson) -> None:
        screen, kind = self.screen, "prescription.kept_cold"
        text = f"DRx begins to push {kind}, a type that this bridge does not know. Consumers still get it."
        screen.part("An unknown event type", text)
        data = {"prescription_id": event["data"]["prescription_id"], "degrees": 4}
        await self._accepted({**event, "type": kind, "data": data})
        records = await self._records(event["id"])
        found = [
            (each.at.topic, each.at.header("ce_type"), (each.value or {}).get("reported_type")) for each in records
        ]
        wanted = [(PRESCRIPTIONS_TOPIC, "other.reported", kind)]
        screen.check("the event is with its prescription's others, as other.reported with DRx's type", found, wanted)
        for each in records[:1]:
            screen.pairs({"extensions": (each.value or {}).get("extensions")})
        await self._comes("PostgreSQL has the event in the timeline", REPORTED, event["id"], [("other.reported", kind)])

    async def _parked_and_replayed(self, rng: random.Random) -> None:
        """Deliver a body that a mapping file does not cover, correct the file, and replay the delivery."""
        screen, stack, new = self.screen, self.stack, new_id(rng)
        text = "The mapping covers STARTED alone. A delivery of PACKED has a valid signature, so it is parked."
        screen.part("A vendor with an incomplete mapping", text)
        mapping = stack.directory.path / "acme.toml"
        acme = DevSource("mapped", options={"mapping": str(mapping)})
        slots = stack.directory.secret_dir("acme", make=acme.new_secret)
        started = MAPPING + MAPPED.format(word="STARTED", status="in_progress")
        mapping.write_text(started)
        await asyncio.to_thread(stack.restart_ingress, acme.settings("acme", slots))
        url, sign = f"{stack.endpoints['ingress']}/webhooks/acme", read_signer(acme.configured, slots / "current")
        vendor = Sender(session=self.session, url=url, sign=sign, policy=RetryPolicy(), rng=rng)
        response = await vendor.deliver(Post(new, BODY))
        screen.check("the response is 202: the vendor does not resend", str(response.reply), "202 parked unknown_type")
        await self._kept(f"the body is in {UNRECOGNIZED_TOPIC}, byte for byte", new, BODY)
        await self._operate("drx-bridge", "unrecognized", "list", "--source", "acme")
        screen.hop(1, "PACKED is added to acme.toml, and the ingress is restarted")
        mapping.write_text(started + MAPPED.format(word="PACKED", status="packed"))
        await asyncio.to_thread(stack.restart_ingress, {})
        await self._operate("drx-bridge", "unrecognized", "replay", "--source", "acme", "--url", url)
        screen.hop(2, "The delivery in each consumer after the replay")

        async def states() -> dict[str, str]:
            found = orjson.loads(await self._run("drx-consumer", "where", new, "--json"))
            return {group: each["state"] for group, each in found["groups"].items()}

        await self._becomes("every consumer has applied the event", states, dict.fromkeys(CONSUMERS, "applied"))
        await self._operate("drx-consumer", "where", new)

    async def _accepted(self, event: BodyJson) -> Delivered:
        """Deliver an event, and wait until Kafka has it."""
        response = await self.drx.deliver(_outgoing(event))
        reply = str(response.reply)
        text = f"{event['type']}, in {_milliseconds(response)}"
        if reply in SLOW:
            await self._becomes(f"{text}: {reply}, because this machine is slow, and later in Kafka", self._spooled, 0)
        else:
            self.screen.check(f"{text}: accepted, after all in-sync replicas have the record", reply, "200 accepted")
        return response

    async def _kept(self, text: str, event_id: str, body: bytes) -> None:
        """Check that the topic of parked deliveries has the delivery once."""

        async def kept() -> list[Any]:
            found = await self._records(event_id)
            return [(each.value or {}).get("body") for each in found if each.at.topic == UNRECOGNIZED_TOPIC]

        await self._becomes(text, kept, [body])

    async def _comes(self, text: str, query: str, key: str, expected: Rows) -> None:
        """Wait until `query` returns the expected rows for a key."""

        async def ask() -> Rows:
            return [tuple(each) for each in await self.database.fetch(query, key)]

        await self._becomes(text, ask, expected)

    async def _becomes(self, text: str, ask: Callable[[], Awaitable[object]], expected: object) -> None:
        deadline = time.monotonic() + self.wait_s
        while (found := await ask()) != expected and time.monotonic() < deadline:  # noqa: ASYNC110 - as others write it
            await asyncio.sleep(POLL_S)
        if found != expected:
            self.wait_s = 0.0  # after one timeout, later differences are reported without waiting
        self.screen.check(text, found, expected)

    async def _records(self, event_id: str = "") -> list[Shown]:
        """Return the records of all topics, or only the records of `event_id` if it is given."""
        connection = KafkaConnection(self.stack.endpoints["bootstrap_servers"])
        async with open_reader(connection, TOPICS, from_beginning=True) as reader:
            return [
                await decoded(each, decoder=self.decoder, masker=None)
                async for each in reader.until_end()
                if event_id in {"", each.header("ce_id")}
            ]

    async def _spooled(self) -> int:
        """Return how many events are spooled, as `drx-bridge spool status` reports."""
        return int(orjson.loads(await self._run("drx-bridge", "spool", "status", "--json"))["events"])

    async def _operate(self, program: str, *arguments: str) -> None:
        self.screen.line(f"$ {shlex.join([program, *arguments])}", "bold cyan")
        text = await self._run(program, *arguments)
        for line in text.splitlines():
            if not line.startswith("{"):  # the audit line; a check reads the audit table instead
                self.screen.line(line, "cyan")

    async def _run(self, program: str, *arguments: str) -> str:
        output = await asyncio.to_thread(run_program, program, *arguments, settings=self.stack.settings)
        if output.code:
            self.screen.check(output.command, output.text, "")
        return output.text


def _scenario_with(rng: random.Random, fits: Callable[[int], bool] = lambda _partition: True) -> list[BodyJson]:
    """Return the events of a prescription whose partition satisfies `fits`."""
    while True:
        events = [orjson.loads(body) for body in scenario(rng)]
        if fits(_partition_of(events)):
            return events


def _partition_of(events: Sequence[BodyJson]) -> int:
    return partition(_key_of(events).encode(), PARTITIONS)


def _key_of(events: Sequence[BodyJson]) -> str:
    return str(events[0]["data"]["prescription_id"])


def _of_key(records: Sequence[Shown], key: str) -> list[Shown]:
    return [each for each in records if (each.at.topic, each.at.key) == (PRESCRIPTIONS_TOPIC, key.encode())]


def _ce_ids(records: Sequence[Shown]) -> list[str]:
    return [each.at.header("ce_id") for each in records]


def _position(record: Shown) -> str:
    return f"{record.at.topic}/{record.at.partition}@{record.at.offset}"


def _position_of(values: Mapping[str, Any], prefix: str) -> str:
    return f"{values[f'{prefix}topic']}/{values[f'{prefix}partition']}@{values[f'{prefix}offset']}"


def _outgoing(event: BodyJson) -> Post:
    return Post(event["id"], orjson.dumps(event))


def _milliseconds(response: Delivered) -> str:
    return f"{response.reply.latency_s * 1000:.1f} ms"


def _normal(value: Any) -> Any:
    """Return a body for comparison: no empty members or trailing zeros, and times as `datetime`."""
    if isinstance(value, dict):
        return {name: _normal(inner) for name, inner in value.items() if inner not in (None, {}, [])}
    if isinstance(value, list):
        return [_normal(inner) for inner in value]
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT.*Z", value):
        return datetime.fromisoformat(value)
    return re.sub(r"^(\d+)\.0+$|(\.\d*[1-9])0+$", r"\1\2", value) if isinstance(value, str) else value
