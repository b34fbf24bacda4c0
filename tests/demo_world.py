"""What the demo's tour looks at, as it would be if all went well; tests spoil one thing of it at a time."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from getpass import getuser
from hashlib import sha256
from typing import Any

import orjson

from bridge.commands.tail_format import plain
from bridge.dev.demo_acts import DISPLAY, MACHINES
from bridge.dev.demo_hands import Output
from bridge.dev.demo_model import Decided, Row, Told, Waiting
from bridge.dev.demo_witness import Seen
from bridge.dev.simulator import Answer, Reply
from bridge.dev.story import Life, Outgoing, a_cast, mail_order
from bridge.event import Event
from bridge.ingress.json_body import parse
from bridge.ingress.profiles import drx_standard
from bridge.ingress.profiles.profile import Mapped
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC, partition
from consumers.read_model.facts import Document, blank
from consumers.read_model.machines import apply
from consumers.read_model.roll_up import roll_up
from tests.builders import a_delivery

PARTITIONS = 12
Change = Callable[[Seen], Seen | None]


def a_life(seed: int = 5) -> list[dict[str, Any]]:
    rng = random.Random(seed)  # noqa: S311 - a story
    life = Life(a_cast(rng), rng=rng, starts_at=datetime(2026, 9, 1, tzinfo=UTC))
    mail_order(life)
    return life.events


@dataclass
class Bridge:
    """Answers and writes as the real one would, also with its brokers away.

    Attributes:
        spoil: Changes, or loses, each record on its way.
        drains: Takes what is on disk and returns it as it is written to Kafka.
        knows: Without it, a repeat is taken for something new.
        seals: Without it, what is on disk can be read by anybody.
    """

    spoil: Change = lambda seen: seen
    accepts: Callable[[Reply], Reply] = lambda reply: reply
    genuine: bool = True
    drains: Callable[[list[Seen]], list[Seen]] = lambda spooled: spooled
    knows: bool = True
    seals: bool = True
    log: list[Seen] = field(default_factory=list)
    _spooled: list[Seen] = field(default_factory=list)
    _known: dict[str, bytes] = field(default_factory=dict)
    _is_away: bool = False

    async def deliver(self, outgoing: Outgoing) -> Answer:
        """Take one delivery."""
        if not self.genuine:
            reply = Reply(401, "refused", "signature_mismatch", 0)
        elif self.knows and self._known.get(outgoing.id) == outgoing.body:
            is_spooled = any(seen.headers["ce_id"] == outgoing.id for seen in self._spooled)
            reply = Reply(202, "spooled", "", 0) if is_spooled else Reply(200, "duplicate", "", 0)
        else:
            reply, seen = self._taken(outgoing)
            if (kept := self.spoil(seen)) is not None:
                (self._spooled if self._is_away else self.log).append(kept)
        return Answer(outgoing.id, self.accepts(reply), (), {})

    async def stop(self) -> None:
        """Be without brokers."""
        self._is_away = True

    async def start(self) -> None:
        """Have them again, and write what was spooled."""
        self._is_away = False
        for seen in self.drains(self._spooled):
            self.log.append(replace(seen, offset=len(self.log)))
        self._spooled = []

    async def answering(self) -> list[str]:
        """Name the one broker, while it is there."""
        return [] if self._is_away else ["127.0.0.1:9092"]

    def files(self) -> dict[str, bytes]:
        """Show the one file."""
        content = b"".join(seen.payload for seen in self._spooled)
        return {"1.segment": sha256(content).digest() if self.seals else content}

    def waiting(self) -> int:
        """Count what is on disk."""
        return len(self._spooled)

    async def drained(self) -> int:
        """Count it when Kafka is back."""
        return len(self._spooled)

    async def run(self, *arguments: str) -> Output:
        """Say what an operator is told."""
        return Output(" ".join(arguments), f"events {len(self._spooled)}", 0)

    async def find(self, delivery_id: str) -> list[Seen]:
        """Find the records of one delivery."""
        return [seen for seen in self.log if seen.headers["ce_id"] == delivery_id]

    async def everything(self) -> list[Seen]:
        """Read it all."""
        return list(self.log)

    async def write(self, topic: str, place: int, *, key: str, value: bytes) -> int:
        """Let somebody write past the bridge."""
        self.log.append(Seen(topic, place, len(self.log), key, {}, value))
        return len(self.log) - 1

    def _taken(self, outgoing: Outgoing) -> tuple[Reply, Seen]:
        delivery = a_delivery(outgoing.body, id=outgoing.id)
        document = parse(outgoing.body)
        if not isinstance(document, dict):
            value: dict[str, Any] = {"body": outgoing.body}
            seen = self._seen(UNRECOGNIZED_TOPIC, outgoing.id, outgoing, value, "")
            return Reply(202, "parked", "malformed_json", 0), seen
        mapped = drx_standard.map(delivery, document)
        assert isinstance(mapped, Mapped)
        (event,) = mapped.events
        if self.knows and outgoing.id in self._known:
            seen = self._seen(UNRECOGNIZED_TOPIC, event.key, outgoing, {"body": outgoing.body}, "")
            return Reply(202, "parked", "id_conflict", 0), seen
        self._known[outgoing.id] = outgoing.body
        seen = self._seen(PRESCRIPTIONS_TOPIC, event.key, outgoing, dict(event.value), event.type)
        return Reply(202, "spooled", "", 0) if self._is_away else Reply(200, "accepted", "", 0), seen

    def _seen(self, topic: str, key: str, outgoing: Outgoing, value: dict[str, Any], event_type: str) -> Seen:
        time = json.loads(outgoing.body)["timestamp"] if event_type else ""
        headers = {
            "ce_specversion": "1.0",
            "ce_id": outgoing.id,
            "ce_type": event_type,
            "ce_source": "drx",
            "ce_subject": key,
            "ce_time": time,
            "drx_schema": "drx.v1.X",
            "drx_body_sha256": sha256(outgoing.body).hexdigest(),
        }
        place = partition(key.encode(), PARTITIONS)
        return Seen(topic, place, len(self.log), key, headers, outgoing.body, "drx.v1.X", value)


@dataclass
class ReadModel:
    """Reads the log as the consumer would whenever it is asked something, and parks what it cannot decode.

    Attributes:
        parks: Without it, what cannot be decoded is passed over.
        neighbours_wait: A whole partition stands still behind what is parked.
        releases: Takes what waits under a key and returns it in the order in which it is applied.
    """

    bridge: Bridge
    parks: bool = True
    neighbours_wait: bool = False
    releases: Callable[[list[Seen]], list[Seen]] = lambda waiting: waiting
    _next: int = 0
    _told: list[Seen] = field(default_factory=list)
    _lot: dict[str, list[Seen]] = field(default_factory=dict)
    _decisions: list[Decided] = field(default_factory=list)

    async def row(self, key: str, *, events: int) -> Row | None:
        """Work it out."""
        del events
        told = self._of(key)
        document: Document = blank()
        for seen in told:
            apply(document, _event(seen))
        state = roll_up(document)._asdict() if told else {}
        words = {name: str(", ".join(state[name]) if name == "open_requests" else state[name]) for name in state}
        return Row(len(told), {name: words[name] or "none" for name in (*MACHINES, DISPLAY)}) if told else None

    async def history(self, key: str) -> list[Told]:
        """In the order of facts, which is that of the story."""
        return [_told(seen) for seen in sorted(self._of(key), key=lambda seen: _event(seen).occurred_at)]

    async def applied(self, key: str) -> list[str]:
        """In the order of applying."""
        return [seen.headers["ce_id"] for seen in self._of(key)]

    async def parked(self, key: str, *, events: int) -> list[Waiting]:
        """See what waits."""
        del events
        self._catch_up()
        waiting = self._lot.get(key, [])
        return [
            Waiting(seen.offset, seen.headers.get("ce_id", ""), "behind" if seen.value else "poison", "bad_magic")
            for seen in waiting
        ]

    async def decisions(self, key: str) -> list[Decided]:
        """All are about the one key that is ever parked."""
        del key
        return self._decisions

    async def run(self, *arguments: str) -> Output:
        """Do what `drx-consumer parked` does."""
        self._catch_up()
        verb, key = arguments[1], next(iter(self._lot), "")
        told = f"{key} " + " ".join(f"{seen.place}  " for seen in self._lot.get(key, []))
        if verb == "skip":
            offset = int(arguments[arguments.index("--offset") + 1])
            self._lot[key] = [seen for seen in self._lot.get(key, []) if seen.offset != offset]
            self._decisions.append(Decided(verb, offset, getuser(), arguments[arguments.index("--reason") + 1]))
        if verb == "retry":
            self._decisions.append(Decided(verb, None, getuser(), ""))
            self._told += self.releases(self._lot.pop(key, []))
        return Output(" ".join(arguments), told, 0)

    def _of(self, key: str) -> list[Seen]:
        self._catch_up()
        return [seen for seen in self._told if seen.key == key]

    def _catch_up(self) -> None:
        for seen in self.bridge.log[self._next :]:
            if seen.topic == PRESCRIPTIONS_TOPIC:
                self._take(seen)
        self._next = len(self.bridge.log)

    def _take(self, seen: Seen) -> None:
        waits = self._lot if self.neighbours_wait else self._lot.keys() & {seen.key}
        if waits or (self.parks and not seen.value):
            self._lot.setdefault(next(iter(waits), seen.key), []).append(seen)
        elif seen.value and seen.headers["ce_id"] not in {each.headers["ce_id"] for each in self._told}:
            self._told.append(seen)


def _event(seen: Seen) -> Event:
    value = seen.value
    return Event(
        id=value["event_id"],
        type=value["event_type"],
        source=value["source"],
        key=seen.key,
        occurred_at=value["occurred_at"],
        received_at=value["received_at"],
        value=value,
    )


def _told(seen: Seen) -> Told:
    event = _event(seen)
    body = orjson.loads(orjson.dumps(seen.value, default=plain, option=orjson.OPT_UTC_Z))
    return Told(event.id, event.type, event.occurred_at, seen.place, body)
