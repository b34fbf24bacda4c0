"""The story of the demo, chapter by chapter: what is done to the stack, and what must come out of it."""

from __future__ import annotations

import asyncio
import random
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from getpass import getuser
from pathlib import Path
from time import monotonic
from typing import Any

import aiohttp
import asyncpg  # noqa: TID251 - read apart from the door that the consumers write through
import orjson
from aiokafka import AIOKafkaProducer  # noqa: TID251 - writes what our own producer never would

from bridge.avro.event_decoder import open_decoder
from bridge.commands.tail_format import plain
from bridge.dev.demo.evidence import APPLIED, AUDIT, HISTORY, NOTHING, Evidence, Forwarded, Found, Row
from bridge.dev.demo.screen import Screen
from bridge.dev.oracle import COLUMNS, body_differences, expected_state, header_differences, record_differences
from bridge.dev.services import PARTITIONS
from bridge.dev.signing import Sign, standard_headers
from bridge.dev.simulator import Answer, RetryPolicy, Sender
from bridge.dev.sources import SOURCES
from bridge.dev.stack import Stack
from bridge.dev.story import MAIL_ORDER_CAPTIONS, MINUTE, Life, Outgoing, a_cast, mail_order, token
from bridge.kafka.connection import Connection, reachable
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC, partition
from bridge.settings import Registry

SOURCE = "drx"
# Columns of the read model that are shown: the six machines.
MACHINES = ("transmission", "order_status", "open_requests", "dispense", "fulfillment", "shipment")
# Fields of the first record that are shown; the others are like them.
SHOWN = (
    *("event_id", "occurred_at", "received_at", "source", "environment", "prescription_id", "sequence"),
    *("patient", "pharmacy", "medication", "origin", "awaiting"),
)
# Headers that are shown of what `forward` sends.
FORWARDED_SHOWN = ("webhook-id", "webhook-timestamp", "webhook-signature", "idempotency-key", "drx-offset")
# Columns of the lake that are shown of the first row.
LAKE_SHOWN = (
    "_topic",
    "_partition",
    "_offset",
    "event_type",
    "occurred_at",
    "prescription_id",
    "patient",
    "medication",
)
PARKED_SHOWN = ("webhook_id", "source", "received_at", "reason", "detail")
# What a program of another team might write by mistake: JSON, where Avro belongs.
POISON = b'{"type": "prescription.processed", "note": "where is the schema?"}'
REASON = "JSON from another team"
# The story covers four days and must end before now.
BEGAN_AGO = timedelta(days=5)
# Enough is missing for no parser to take the body for whole; so much of its end is shown.
CUT_BYTES = 40
# Texts in JSON. Shorter ones, such as an initial, could stand in sealed bytes by chance.
MARKERS = re.compile(rb':"([^"\\]{5,})"')

Event = Mapping[str, Any]


async def tour(stack: Stack, screen: Screen) -> str:
    """Play all chapters on a running stack; return the prescription that the first one is about."""
    source = stack.endpoints["sources"][SOURCE]
    url = f"{stack.endpoints['ingress']}{source['path']}"
    rng = random.Random()  # noqa: S311 - a story, not keys
    forged_key = secrets.token_bytes(32)
    async with (
        aiohttp.ClientSession() as session,
        open_decoder(Registry()) as decoder,
        asyncpg.create_pool(stack.endpoints["postgres"], min_size=1, max_size=1) as database,
    ):

        def sender(signs: Sign) -> Sender:
            return Sender(session=session, url=url, sign=signs, policy=RetryPolicy(), rng=rng)

        drx = sender(SOURCES[SOURCE].signer(Path(source["secret_file"])))
        forger = sender(lambda webhook_id, time, body: standard_headers(webhook_id, time, body, key=forged_key))
        return await Tour(stack, screen, Evidence(stack, decoder, database, session), drx, forger).play(rng)


@dataclass
class Tour:
    """Plays the chapters; what is not as it must be ends up on the screen."""

    stack: Stack
    screen: Screen
    evidence: Evidence
    drx: Sender
    forger: Sender

    async def play(self, rng: random.Random) -> str:
        """Play all chapters in order; return the prescription that the first one is about."""
        life = a_life(rng)
        events = list(life.events)
        marker = f"forged-{token(rng, 10)}"
        life.tell("cancel.responded", MINUTE, request_id=life.request_id("cx"), decision="approved", note=marker)
        life.tell("alert.raised", MINUTE, alert_id="al_1", category="other", workflow="new_rx", severity="info")
        records, rows = await self._deliveries(events)
        await self._forged(life.events[-2], marker)
        await self._broken(life.events[-1])
        await self._read_model(events, records, rows)
        await self._forwarded(events, records)
        await self._lake(events, records)
        sick = a_life(rng)
        well = a_life(rng, lambda number: number == partition_of(sick.prescription_id))
        await self._put_right(sick.events, await self._poisoned(sick.events, well.events))
        one = a_life(rng)
        other = a_life(rng, lambda number: number != partition_of(one.prescription_id))
        await self._outage([one.events, other.events])
        await self._repeats(one.events)
        return life.prescription_id

    async def _deliveries(self, events: Sequence[Event]) -> tuple[list[Found], list[Row | None]]:
        """Return the record of each event, and the row of the prescription after it."""
        screen, key = self.screen, key_of(events[0])
        text = f"DRx pushes a signed delivery for each thing that happens to {key}. Here is the first one, hop by hop."
        screen.chapter("1  The life of one prescription", text)
        records, rows, wanted = [], [], (PRESCRIPTIONS_TOPIC, key, partition_of(key))
        for number, (event, caption) in enumerate(zip(events, MAIL_ORDER_CAPTIONS, strict=True), start=1):
            answer = await self._deliver(event)
            found = await self.evidence.records(event["id"])
            record = found[0] if found else NOTHING
            checks = [
                unanswered(answer),
                unequal(records=(len(found), 1)),
                unequal(place=((record.topic, record.key, record.partition), wanted)),
                header_differences(event, orjson.dumps(event), record.headers, source=SOURCE),
                record_differences(event, record.value),
            ]
            if number == 1:
                self._hop_by_hop(event, answer, record, checks)
            else:
                hops, faults = f"{words(answer)}  →  {record.place}", [fault for each in checks for fault in each]
                screen.check(caption, faults, title=event["type"], hops=hops, count=len(checks))
            records.append(record)
            rows.append(await self.evidence.row(key, events=number))
        await self._check_order(events)
        return records, rows

    def _hop_by_hop(self, event: Event, answer: Answer, record: Found, checks: Sequence[Sequence[str]]) -> None:
        screen, (accepted, once, placed, headed, same) = self.screen, checks
        screen.hop(1, f"DRx signs and pushes {event['type']}")
        screen.pairs({"POST": f"/webhooks/{SOURCE}", **answer.headers, "body": orjson.dumps(event).decode()})
        screen.hop(2, f"The bridge verifies, maps and waits for Kafka  →  {words(answer)}")
        screen.check("200 accepted, after all in-sync replicas have it", accepted)
        screen.hop(3, "Kafka, read back by another client")
        screen.check("the event is there once", once)
        screen.pairs({"record": record.place, "key": record.key, **record.headers})
        screen.check("topic, key and partition are those of the prescription", placed)
        screen.check("the headers say what is inside without opening it", headed)
        screen.hop(4, f"The Avro value, {len(record.payload)} bytes, decoded as {record.record}")
        screen.pairs({name: record.value.get(name) for name in SHOWN})
        screen.line(f"… and {len(record.value) - len(SHOWN)} more")
        screen.check("every field is what was sent, and none was added", same)
        screen.line("")
        screen.line("The rest of its life, checked in the same way:")

    async def _forged(self, event: Event, marker: str) -> None:
        screen = self.screen
        text = "Somebody who does not know the secret claims that the prescription was cancelled."
        screen.chapter("2  A forged delivery", text)
        before = await self.evidence.records()
        answer = await self.forger.deliver(Outgoing(event["id"], orjson.dumps(event)))
        screen.hop(1, f"POST, signed with another secret  →  {words(answer)}")
        screen.check("refused: 401, with nothing but a constant code", unanswered(answer, 401, "refused"))
        after = await self.evidence.records()
        screen.hop(2, "Kafka, every topic read from its first record to its last")
        faults = [f"found in {each.place}" for each in after if each.holds(marker) or each.holds(event["id"])]
        screen.check("nothing of it is in any topic", faults + unequal(records=(len(after), len(before))))

    async def _broken(self, event: Event) -> None:
        screen, body = self.screen, orjson.dumps(event)[:-CUT_BYTES]
        text = "DRx signs a body that was cut off on the way out. It is genuine, so it is kept, byte for byte."
        screen.chapter("3  A broken delivery", text)
        answer = await self.drx.deliver(Outgoing(event["id"], body))
        screen.hop(1, f"POST, signed, {len(body)} bytes that end too early  →  {words(answer)}")
        faults = unanswered(answer, 202, "parked", "malformed_json")
        screen.check("parked: 202, DRx need not send it again", faults)
        found = await self.evidence.records(event["id"])
        screen.hop(2, f"Kafka: {UNRECOGNIZED_TOPIC}, apart from the events")
        for each in found:
            kept = bytes(each.value.get("body", b""))
            end = f"{len(kept)} bytes, the last of them {kept[-CUT_BYTES:].decode(errors='backslashreplace')}"
            fields = {name: each.value.get(name) for name in PARKED_SHOWN}
            screen.pairs({"record": each.place, "key": each.key, **fields, "body": end})
        keys = [(each.topic, each.key) for each in found]
        screen.check("its key is the webhook id", unequal(keys=(keys, [(UNRECOGNIZED_TOPIC, event["id"])])))
        kept_bodies = [each.value.get("body") for each in found]
        screen.check("its body is what was sent, byte for byte", unequal(body=(kept_bodies, [body])))

    async def _read_model(self, events: Sequence[Event], records: Sequence[Found], rows: Sequence[Row | None]) -> None:
        screen, key = self.screen, key_of(events[0])
        text = "A consumer has kept up all along: each event, the word to display after it, and what it moved."
        screen.chapter("4  The same life in PostgreSQL", text)
        history = await self.evidence.ask(HISTORY, key)
        screen.table(timeline(history, rows))
        # As the history is written: instants with `Z`, decimals as text.
        bodies = [orjson.loads(orjson.dumps(each.value, default=plain, option=orjson.OPT_UTC_Z)) for each in records]
        faults = unequal(
            order=([row["event_id"] for row in history], [event["id"] for event in events]),
            places=([row["place"] for row in history], [each.place for each in records]),
            bodies=([orjson.loads(row["body"]) for row in history], bodies),
        )
        screen.check("the history has every event once, whole, in order, and where in Kafka it lies", faults)
        faults = [
            f"after event {number}: {fault}"
            for number, row in enumerate(rows, start=1)
            for fault in misstated(row, events[:number])
        ]
        text = f"after each of the {len(events)} events, all six machines and the word were what the story means"
        screen.check(text, faults)
        row = await self.evidence.row(key, events=len(events))
        screen.line("")
        screen.line("Its row as it is now:")
        screen.pairs({name: shown(row, name) for name in (*MACHINES, "display")} if row else {})
        screen.check("the row is what the story ends with; the forged cancel has left no trace", misstated(row, events))

    async def _forwarded(self, events: Sequence[Event], records: Sequence[Found]) -> None:
        screen, key = self.screen, key_of(events[0])
        screen.chapter(
            "5  The same life at another system",
            "Another consumer, with a position of its own, posts each event to another system, as DRx would: the body\n"
            "of the contract, signed with a secret of that system. It has neither Kafka nor Avro; here is what it got.",
        )
        found = await self.evidence.forwarded(key, events=len(events))
        first = found[0] if found else Forwarded("", {}, {})
        screen.hop(1, f"{events[0]['type']}, as the receiver has it")
        shown_headers = {name: first.headers.get(name) for name in FORWARDED_SHOWN}
        screen.pairs({**shown_headers, "body": orjson.dumps(first.body).decode() if found else ""})
        ids = [each.headers.get("webhook-id") for each in found]
        screen.hop(2, f"All that it got of {key}")
        text = f"all {len(events)} events have arrived, each once, in the order in which they were sent"
        screen.check(text, unequal(order=(ids, [event["id"] for event in events])))
        faults = [f"{each.body.get('type')}: {each.refused}" for each in found if each.refused]
        screen.check("the receiver has verified each with its secret", faults)
        faults = [
            f"{event['type']}: {path} differs"
            for event, each in zip(events, found, strict=False)
            for path in body_differences(event, each.body)
        ]
        screen.check("each body says what DRx sent, member for member", faults)
        places = [f"{each.headers.get('drx-topic')}/{each.headers.get('drx-partition')}" for each in found]
        places = [f"{place}@{each.headers.get('drx-offset')}" for place, each in zip(places, found, strict=True)]
        text = "its headers name the record that each is of; of the forged and the broken delivery it got nothing"
        screen.check(text, unequal(places=(places, [record.place for record in records])))

    async def _lake(self, events: Sequence[Event], records: Sequence[Found]) -> None:
        screen, key = self.screen, key_of(events[0])
        text = (
            "A third consumer keeps every event for reports, as a row of a Parquet file; here a reader has opened them."
        )
        screen.chapter("6  The same life in a lake of files", text)
        rows = await self.evidence.in_lake(key, events=len(events))
        files = await self.evidence.lake_files()
        screen.hop(1, f"{len(files)} files, such as {files[0] if files else 'none'}")
        screen.pairs({name: rows[0].get(name) for name in LAKE_SHOWN} if rows else {})
        screen.hop(2, f"All rows of {key}")
        ids = [row["event_id"] for row in rows]
        text = f"all {len(events)} events are there, each once; of the forged and the broken delivery there is none"
        screen.check(text, unequal(order=(ids, [event["id"] for event in events])))
        faults = [
            f"{event['type']}: {name} differs"
            for event, record, row in zip(events, records, rows, strict=False)
            for name in sorted(row.keys() | record.value.keys())
            if not name.startswith("_") and row.get(name) != record.value.get(name)
        ]
        screen.check("each column says what the record says, and those that its type does not have are empty", faults)
        places = [f"{row['_topic']}/{row['_partition']}@{row['_offset']}" for row in rows]
        screen.check(
            "each row names the record that it is of", unequal(places=(places, [each.place for each in records]))
        )

    async def _poisoned(self, sick: Sequence[Event], well: Sequence[Event]) -> int:
        """Put the poison behind two events, and three behind the poison; return its offset."""
        screen, evidence, key, other = self.screen, self.evidence, key_of(sick[0]), key_of(well[0])
        screen.chapter(
            "7  A poisoned record",
            "A program of another team writes to the topic, past the bridge, what nobody can decode.\n"
            f"It stands under the key of {key}, whose later events must wait for it, and nobody else's.",
        )
        faults = [fault for event in sick[:2] for fault in unanswered(await self._deliver(event))]
        row = await evidence.row(key, events=2)
        screen.hop(1, f"Two signed events of {key}  →  in PostgreSQL: {shown(row)}")
        screen.check("both are applied", faults + misstated(row, sick[:2]))
        offset = await self._poison(key)
        screen.hop(2, f"The poison, {len(POISON)} bytes of JSON  →  {PRESCRIPTIONS_TOPIC}/{partition_of(key)}@{offset}")
        parked = await evidence.parked(key, events=1)
        screen.check("its key is parked", unequal(offsets=([each["offset"] for each in parked], [offset])))
        screen.hop(3, f"DRx goes on with both, {key} and {other}, which are neighbours in the partition")
        for number in range(1, 4):
            await self._beside_poison(sick[1 + number], well[:number], waiting=1 + number)
        screen.hop(4, "What an operator sees")
        await self._parked("list", shows=key)
        await self._parked("show", key, "--topic", PRESCRIPTIONS_TOPIC, shows=f"@{offset}  ")
        found = [(each["event_id"], each["class"]) for each in await evidence.parked(key, events=4)]
        wanted = [("", "poison"), *((event["id"], "behind") for event in sick[2:5])]
        text = "behind the poison its events wait in the order in which they were sent"
        screen.check(text, unequal(order=(found, wanted)))
        row = await evidence.row(key, events=2)
        screen.check(f"its row has stayed as it was: {shown(row)}", misstated(row, sick[:2]))
        return offset

    async def _beside_poison(self, event: Event, well: Sequence[Event], *, waiting: int) -> None:
        """Deliver an event of the poisoned prescription, and the latest one of another in the same partition."""
        screen, evidence, key, other = self.screen, self.evidence, key_of(event), key_of(well[0])
        faults = unanswered(await self._deliver(event))
        parked = await evidence.parked(key, events=waiting)
        text = f"{key}  accepted, and waits: {len(parked)} records are parked"
        screen.check(text, faults + unequal(waiting=(len(parked), waiting)), title=event["type"], count=2)
        faults = unanswered(await self._deliver(well[-1]))
        answered = monotonic()
        row = await evidence.row(other, events=len(well))
        text = f"{other}  accepted, and {(monotonic() - answered) * 1000:.0f} ms later in PostgreSQL: {shown(row)}"
        screen.check(text, faults + misstated(row, well), title=well[-1]["type"], count=2)

    async def _put_right(self, sick: Sequence[Event], offset: int) -> None:
        screen, evidence, key, user = self.screen, self.evidence, key_of(sick[0]), getuser()
        text = "The poison is given up, with a reason that is kept; the events behind it are released."
        screen.chapter("8  An operator puts it right", text)
        topic = ("--topic", PRESCRIPTIONS_TOPIC)
        await self._parked("skip", key, *topic, "--offset", str(offset), "--reason", REASON, shows=key)
        await self._parked("retry", key, *topic, shows=key)
        row = await evidence.row(key, events=5)
        screen.check(f"all that waited is applied: {shown(row)}", misstated(row, sick[:5]))
        applied = [each["event_id"] for each in await evidence.ask(APPLIED, key)]
        screen.check("in the order in which it was sent", unequal(order=(applied, [event["id"] for event in sick[:5]])))
        left = await evidence.parked(key, events=0)
        screen.check("nothing of the prescription is parked any more", unequal(records=(len(left), 0)))
        faults = unanswered(await self._deliver(sick[5]))
        row = await evidence.row(key, events=6)
        screen.check(f"its next event is applied at once: {shown(row)}", faults + misstated(row, sick[:6]))
        decisions = [tuple(each.values()) for each in await evidence.ask(AUDIT, key)]
        wanted = [("skip", offset, user, REASON), ("retry", None, user, "")]
        screen.check(f"the audit has both decisions, and that {user} made them", unequal(audit=(decisions, wanted)))

    async def _outage(self, lives: Sequence[Sequence[Event]]) -> None:
        """Deliver one event of each prescription before Kafka goes away, and four of each meanwhile."""
        screen, evidence, keys = self.screen, self.evidence, [key_of(events[0]) for events in lives]
        screen.chapter(
            "9  Kafka is away",
            "DRx does not know that, and may never send again what is refused. So nothing is refused:\n"
            "what Kafka does not take is sealed on this disk, and answered as soon as the disk has confirmed it.",
        )
        answers = [await self._deliver(events[0]) for events in lives]
        screen.hop(1, f"One signed event each of {' and '.join(keys)}  →  {words(answers[-1])}")
        screen.check("Kafka has taken them", [fault for each in answers for fault in unanswered(each)])
        await asyncio.to_thread(self.stack.stop_brokers)
        screen.hop(2, "Every broker is killed, as a power cut would")
        left = await reachable(Connection(self.stack.endpoints["bootstrap_servers"]).servers)
        screen.check("no broker takes a connection", [f"{each} does" for each in left])
        screen.hop(3, "DRx goes on; the first delivery gives Kafka two seconds, and then it is known")
        for event in (events[number] for number in range(1, 5) for events in lives):
            answer = await self._deliver(event)
            text = f"{key_of(event)}  {words(answer)}"
            screen.check(text, unanswered(answer, 202, "spooled"), title=event["type"])
        before, event = await evidence.spooled(), lives[0][1]
        answer = await self._deliver(event)
        screen.check(f"once more: {words(answer)}", unanswered(answer, 202, "spooled"), title=event["type"])
        screen.check("the repeat is not written again", unequal(events=(await evidence.spooled(), before)))
        await self._check_disk([event for events in lives for event in events], count=4 * len(lives))
        with screen.waiting("starting the brokers"):
            began = monotonic()
            await asyncio.to_thread(self.stack.start_brokers)
        answered = monotonic()
        screen.hop(5, f"The brokers are back, after {answered - began:.1f} s")
        remaining = await evidence.drained()
        text = f"the spool is empty {monotonic() - answered:.1f} s later"
        screen.check(text, unequal(events=(remaining, 0)))
        await self._check_order(*(events[:5] for events in lives))
        for events, key in zip(lives, keys, strict=True):
            row = await evidence.row(key, events=5)
            screen.check(f"and in PostgreSQL, where {key} is: {shown(row)}", misstated(row, events[:5]))

    async def _check_disk(self, events: Sequence[Event], *, count: int) -> None:
        screen, directory = self.screen, self.stack.directory.spool
        screen.hop(4, "What stands on the disk, as an operator sees it, and as bytes")
        output = await self.evidence.run("drx-bridge", "spool", "status")
        screen.output(output)
        faults = unequal(code=(output.code, 0), events=(await self.evidence.spooled(), count))
        screen.check(f"it holds {count} events", faults)
        paths = sorted(path for path in directory.rglob("*") if path.is_file())
        files = {str(path.relative_to(directory)): path.read_bytes() for path in paths}
        written = {name: content for name, content in files.items() if content.strip(b"\0")}
        screen.pairs({name: f"{len(each):,} bytes: {each[:24].hex(' ', 4)} …" for name, each in written.items()})
        markers = {
            each for event in events for each in MARKERS.findall(orjson.dumps([{"": event["id"]}, event["data"]]))
        }
        told = [name for name, content in files.items() if any(marker in content for marker in markers)]
        text = f"it is sealed: of {len(markers)} names, numbers and ids in these events none stands in any file"
        screen.check(text, [f"{name} holds one" for name in told])

    async def _repeats(self, events: Sequence[Event]) -> None:
        """Send again what was taken, then something else under its id, and go on as if nothing had been."""
        screen, key = self.screen, key_of(events[0])
        text = "A sender that has lost an answer sends again. What is durable already is known by its id and its body."
        screen.chapter("10  The same once more", text)
        for number, way in enumerate(("went straight to Kafka", "waited on the disk")):
            event = events[number]
            answer = await self._deliver(event)
            screen.hop(number + 1, f"{event['type']}, which {way}, once more  →  {words(answer)}")
            screen.check("it is known", unanswered(answer, 200, "duplicate"))
        medication = {**event["data"]["medication"], "quantity": f"{event['data']['medication']['quantity']}0"}
        changed = orjson.dumps({**event, "data": {**event["data"], "medication": medication}})
        answer = await self.drx.deliver(Outgoing(event["id"], changed))
        screen.hop(3, f"Its id with another body, well signed: ten times the quantity  →  {words(answer)}")
        screen.check("it is kept, apart from the events", unanswered(answer, 202, "parked", "id_conflict"))
        answer = await self._deliver(events[5])
        screen.hop(4, f"The next event of {key}  →  {words(answer)}")
        screen.check("the way to Kafka is straight again", unanswered(answer))
        await self._check_order(events[:6])
        found = await self.evidence.records(event["id"])
        apart = [each.value.get("body") for each in found if each.topic == UNRECOGNIZED_TOPIC]
        text = f"the other body is in {UNRECOGNIZED_TOPIC}, byte for byte"
        screen.check(text, unequal(bodies=(apart, [changed])))
        row = await self.evidence.row(key, events=6)
        screen.check("PostgreSQL knows nothing of it", misstated(row, events[:6]))

    async def _deliver(self, event: Event) -> Answer:
        return await self.drx.deliver(Outgoing(event["id"], orjson.dumps(event)))

    async def _check_order(self, *lives: Sequence[Event]) -> None:
        with self.screen.waiting("reading all topics from the beginning"):
            records = await self.evidence.records()
        for events in lives:
            key = key_of(events[0])
            found = [each for each in records if each.key == key and each.topic == PRESCRIPTIONS_TOPIC]
            ids = ([each.headers.get("ce_id") for each in found], [event["id"] for event in events])
            faults = unequal(partitions=(len({each.partition for each in found}), 1), order=ids)
            text = f"all {len(events)} events of {key} are in Kafka, each once, in the order in which they were sent"
            self.screen.check(text, faults)

    async def _poison(self, key: str) -> int:
        async with AIOKafkaProducer(bootstrap_servers=self.stack.endpoints["bootstrap_servers"]) as producer:
            place = partition_of(key)
            written = await producer.send_and_wait(PRESCRIPTIONS_TOPIC, POISON, key=key.encode(), partition=place)
        return int(written.offset)

    async def _parked(self, verb: str, *arguments: str, shows: str) -> None:
        """Run a verb of `drx-consumer parked`, which must end well and show some words."""
        output = await self.evidence.run("drx-consumer", "parked", verb, "read_model", *arguments)
        self.screen.output(output)
        faults = unequal(code=(output.code, 0)) + ([] if shows in output.text else [f"{shows} is missing"])
        if faults:
            self.screen.check(f"drx-consumer parked {verb} does as it should", faults)


def a_life(rng: random.Random, fits: Callable[[int], bool] = lambda _partition: True) -> Life:
    """Draw a prescription whose partition fits."""
    while True:
        life = Life(a_cast(rng), rng=rng, starts_at=datetime.now(UTC) - BEGAN_AGO)
        if fits(partition_of(life.prescription_id)):
            mail_order(life)
            return life


def partition_of(key: str) -> int:
    """Return where the events of a prescription belong."""
    return partition(key.encode(), PARTITIONS)


def key_of(event: Event) -> str:
    """Return the prescription that an event is about."""
    return str(event["data"]["prescription_id"])


def words(answer: Answer) -> str:
    """Write how a delivery was answered, and how fast."""
    reply = answer.reply
    parts = filter(None, (str(reply.status or "no answer"), reply.outcome, reply.reason))
    return f"{' '.join(parts)} in {reply.latency_s * 1000:.1f} ms"


def shown(row: Row | None, column: str = "display") -> str:
    """Write a word of a row."""
    value = row[column] if row else "nothing"
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)


def timeline(history: Sequence[Row], rows: Sequence[Row | None]) -> Iterator[tuple[str, str, str, str]]:
    """Write each event with the word displayed after it and the machines that it moved."""
    before = dict.fromkeys(MACHINES, "none")
    for event, row in zip(history, rows, strict=False):
        after = {name: shown(row, name) for name in MACHINES} if row else before
        moved = ", ".join(f"{name} {after[name]}" for name in MACHINES if after[name] != before[name])
        yield f"{event['occurred_at']:%b %d %H:%M}", event["event_type"], shown(row), moved
        before = after


def unanswered(answer: Answer, status: int = 200, outcome: str = "accepted", reason: str = "") -> list[str]:
    """Say how an answer differs from the one that must come; without a `reason` any will do."""
    found = (answer.reply.status, answer.reply.outcome, answer.reply.reason if reason else "")
    return unequal(answer=(found, (status, outcome, reason)))


def misstated(row: Row | None, events: Sequence[Event]) -> list[str]:
    """Say how a row differs from what these events mean."""
    wanted = {COLUMNS[name]: value for name, value in expected_state(events).items()} | {"events": len(events)}
    return unequal(**{name: (row[name], value) for name, value in wanted.items()}) if row else ["there is no row"]


def unequal(**pairs: tuple[object, object]) -> list[str]:
    """Name each pair (found, expected) that is none; long values stay out."""
    return [
        f"{name} differs" if isinstance(expected, list) else f"{name} is {found!r}, expected {expected!r}"
        for name, (found, expected) in pairs.items()
        if found != expected
    ]
