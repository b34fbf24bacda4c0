"""The guided tour: one prescription's life, one forged and one broken delivery, checked at every hop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from bridge.dev.demo_acts import ACTS
from bridge.dev.demo_compare import differences
from bridge.dev.demo_faults import answer_faults, header_faults, order_faults, unequal
from bridge.dev.demo_model import Row
from bridge.dev.demo_screen import Screen
from bridge.dev.demo_witness import Seen, holding, with_id
from bridge.dev.simulator import Answer
from bridge.dev.story import Outgoing
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC, partition

# Fields of a value that are shown of the first event; the others are like them.
SHOWN = (
    "event_id",
    "occurred_at",
    "received_at",
    "source",
    "environment",
    "prescription_id",
    "sequence",
    "patient",
    "pharmacy",
    "medication",
    "origin",
    "awaiting",
)
# Of a broken body, this much of the end is shown.
END_BYTES = 40
SOURCE = "drx"

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Lived:
    """A life that was played: its events, and what Kafka and the read model had right after each."""

    key: str
    events: Sequence[Event]
    records: Sequence[Seen | None]
    rows: Sequence[Row | None]


class Sends(Protocol):
    """Makes deliveries; `Sender` does."""

    async def deliver(self, outgoing: Outgoing) -> Answer:
        """Make one delivery and say how it ended."""


class Witness(Protocol):
    """Reads the topics of the contract."""

    async def find(self, delivery_id: str) -> list[Seen]:
        """Return the records of one delivery, waiting a while for the first."""

    async def everything(self) -> list[Seen]:
        """Return all records of all topics, in the order of each partition."""


class Follows(Protocol):
    """Reads the read model; `PostgresWitness` does."""

    async def row(self, key: str, *, events: int) -> Row | None:
        """Return the row of a prescription, waiting a while until it has so many events."""


class Tour:
    """Plays each part of the story and looks for it in Kafka; what is not as it should be ends up on the screen."""

    def __init__(
        self, *, screen: Screen, sender: Sends, forger: Sends, witness: Witness, model: Follows, partitions: int
    ) -> None:
        """Keep the parts.

        Args:
            screen: Where the story is told and the checks are counted.
            sender: A DRx that knows the secret.
            forger: The same, with another secret.
            witness: Reads Kafka.
            model: Reads what the read model makes of it, to be shown later.
            partitions: Count that every topic has.
        """
        self._screen = screen
        self._sender = sender
        self._forger = forger
        self._witness = witness
        self._model = model
        self._partitions = partitions

    async def life(self, events: Sequence[Event]) -> Lived:
        """Play a whole life: its first event hop by hop, the others in short, and then their order."""
        key = key_of(events[0])
        self._screen.chapter(
            "1  The life of one prescription",
            f"DRx pushes a signed delivery for each thing that happens to {key}. Here is the first one, hop by hop.",
        )
        records = [await self._first(events[0])]
        rows = [await self._model.row(key, events=1)]
        self._screen.note("")
        self._screen.note("The rest of its life, checked in the same way:")
        for event, act in zip(events[1:], ACTS[1:], strict=False):
            records.append(await self._next(event, act.told))
            rows.append(await self._model.row(key, events=len(records)))
        with self._screen.waiting("reading all topics from the beginning"):
            seen = await self._witness.everything()
        self._screen.check(
            f"all {len(events)} events are in one partition, each once, in the order in which they were sent",
            order_faults([str(event["id"]) for event in events], [each for each in seen if each.key == key]),
        )
        return Lived(key, events, records, rows)

    async def forged(self, event: Event, *, marker: str) -> None:
        """Send what looks like an event but is signed with another secret."""
        self._screen.chapter(
            "2  A forged delivery",
            "Somebody who does not know the secret claims that the prescription was cancelled.",
        )
        outgoing = outgoing_of(event)
        before = await self._witness.everything()
        answer = await self._forger.deliver(outgoing)
        self._screen.hop(1, f"POST, signed with another secret  →  {reply_words(answer)}")
        self._screen.check(
            "refused: 401, with nothing but a constant code",
            unequal(status=(answer.reply.status, 401), outcome=(answer.reply.outcome, "refused")),
        )
        seen = await self._witness.everything()
        self._screen.hop(2, "Kafka, every topic read from its first record to its last")
        faults = [f"found in {each.place}" for each in holding(seen, marker) + with_id(seen, outgoing.id)]
        faults += [] if len(seen) == len(before) else [f"{len(seen) - len(before)} new records"]
        self._screen.check("nothing of it is in any topic", faults)

    async def broken(self, outgoing: Outgoing) -> None:
        """Send a signed body that is no JSON: DRx's own fault, and still not lost."""
        self._screen.chapter(
            "3  A broken delivery",
            "DRx signs a body that was cut off on the way out. It is genuine, so it is kept, byte for byte.",
        )
        answer = await self._sender.deliver(outgoing)
        self._screen.hop(1, f"POST, signed, {len(outgoing.body)} bytes that end too early  →  {reply_words(answer)}")
        wanted = {
            "status": (answer.reply.status, 202),
            "outcome": (answer.reply.outcome, "parked"),
            "reason": (answer.reply.reason, "malformed_json"),
        }
        self._screen.check("parked: 202, DRx need not send it again", unequal(**wanted))
        seen = await self._witness.find(outgoing.id)
        self._screen.hop(2, f"Kafka: {UNRECOGNIZED_TOPIC}, apart from the events")
        if len(seen) != 1:
            self._screen.check("it is there once", [f"{len(seen)} records"])
            return
        (parked,) = seen
        shown = {name: parked.value.get(name) for name in ("webhook_id", "source", "received_at", "reason", "detail")}
        body = bytes(parked.value.get("body", b""))
        end = f"{len(body)} bytes, the last of them {body[-END_BYTES:].decode(errors='backslashreplace')}"
        self._screen.pairs({"record": parked.place, "key": parked.key, **shown, "body": end})
        self._screen.check(
            "its key is the webhook id",
            unequal(topic=(parked.topic, UNRECOGNIZED_TOPIC), key=(parked.key, outgoing.id)),
        )
        self._screen.check("its body is what was sent, byte for byte", unequal(body=(body, outgoing.body)))

    async def _first(self, event: Event) -> Seen | None:
        screen, outgoing = self._screen, outgoing_of(event)
        answer = await self._sender.deliver(outgoing)
        screen.hop(1, f"DRx signs and pushes {event['type']}")
        screen.pairs({"POST": f"/webhooks/{SOURCE}", **answer.headers, "body": outgoing.body.decode()})
        screen.hop(2, f"The bridge verifies, maps and waits for Kafka  →  {reply_words(answer)}")
        screen.check("200 accepted, after all in-sync replicas have it", answer_faults(answer))
        seen = await self._witness.find(outgoing.id)
        screen.hop(3, "Kafka, read back by another client")
        screen.check("the event is there once", [] if len(seen) == 1 else [f"{len(seen)} records"])
        if len(seen) != 1:
            return None
        (record,) = seen
        screen.pairs({"record": record.place, "key": record.key, **record.headers})
        screen.check("topic, key and partition are those of the prescription", self._place_faults(record, event))
        screen.check(
            "the headers say what is inside without opening it", header_faults(record, outgoing, event, source=SOURCE)
        )
        screen.hop(4, f"The Avro value, {len(record.payload)} bytes, decoded as {record.record}")
        screen.pairs({name: record.value.get(name) for name in SHOWN})
        screen.note(f"… and {len(record.value) - len(SHOWN)} more")
        screen.check("every field is what was sent, and none was added", differences(event, record.value))
        return record

    async def _next(self, event: Event, told: str) -> Seen | None:
        outgoing = outgoing_of(event)
        answer = await self._sender.deliver(outgoing)
        seen = await self._witness.find(outgoing.id)
        faults = answer_faults(answer)
        record = seen[0] if len(seen) == 1 else None
        if record is None:
            faults.append(f"{len(seen)} records in Kafka")
        else:
            faults += self._place_faults(record, event)
            faults += header_faults(record, outgoing, event, source=SOURCE)
            faults += [f"value differs at {path}" for path in differences(event, record.value)]
        place = "nowhere" if record is None else record.place
        self._screen.step(event["type"], told, hops=f"{reply_words(answer)}  →  {place}", checks=5, faults=faults)
        return record

    def _place_faults(self, record: Seen, event: Event) -> list[str]:
        key = key_of(event)
        return unequal(
            topic=(record.topic, PRESCRIPTIONS_TOPIC),
            key=(record.key, key),
            partition=(record.partition, partition(key.encode(), self._partitions)),
        )


def outgoing_of(event: Event) -> Outgoing:
    """Write an event as DRx pushes it."""
    return Outgoing(str(event["id"]), orjson.dumps(event))


def key_of(event: Event) -> str:
    """Return the prescription that an event is about."""
    return str(event["data"]["prescription_id"])


def reply_words(answer: Answer) -> str:
    """Write how a delivery was answered, and how fast."""
    reply = answer.reply
    words = " ".join(filter(None, (str(reply.status or "no answer"), reply.outcome, reply.reason)))
    return f"{words} in {reply.latency_s * 1000:.1f} ms"
