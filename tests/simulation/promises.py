"""What is promised, each promise by its name, and the check of it, while a world runs and once it is at rest."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

from prometheus_client import generate_latest

from bridge.kafka.record import identity_of
from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from bridge.runtime.logging import Line, render
from tests.simulation.kafka import Kafka, Partition, Stored
from tests.simulation.replica import Host
from tests.simulation.senders import MARKER, Attempt, Senders
from tests.simulation.world import World

# The name of each promise, and what breaks it.
PROMISES: Mapping[str, str] = {
    "durable_before_200": "a 200 whose event was not in the log of all in-sync replicas",
    "not_lost": "a delivery that was answered 2xx, and whose event is nowhere",
    "not_forged": "a record that nobody has sent",
    "in_order": "the first record of a later delivery of a key before that of an earlier one",
    "answers": "an answer that the contract does not allow",
    "no_phi": "content of a body in an answer, a log line, a metric or a header",
    "at_rest": "work left, or memory held, with nothing left to do",
    "ready": "a readiness that is not ok with everything at hand, or ok with nothing done",
    "no_bug": "an exception that nothing expects",
}


class Broken(NamedTuple):
    """A promise that was not kept, and by what."""

    promise: str
    what: str


class Seen(NamedTuple):
    """Where an event or a parked delivery first stood in the log."""

    visible_at: float
    partition: Partition
    offset: int


# Log lines that name a bug.
BUGS = ("worker.failed", "worker.write_failed", "worker.http_failed", "worker.spool_failed", "worker.uncaught")


@dataclass(eq=False)
class Promises:
    """Watches one world."""

    world: World
    kafka: Kafka
    hosts: Sequence[Host]
    senders: Senders
    broken: list[Broken] = field(default_factory=list)
    lines: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self._written: dict[tuple[str, str, bool], float] = {}
        self.senders.on_answer = self.answered
        self.kafka.on_write = self.written

    def note(self, promise: str, *what: object) -> None:
        """Note a broken promise, once for each thing that breaks it."""
        assert promise in PROMISES
        found = Broken(promise, " ".join(map(str, what)))
        if found not in self.broken:
            self.broken.append(found)
            self.world.note("BROKEN", *found)

    def logged(self, line: Line) -> None:
        """Look at a line as it is written."""
        event = line[2]["event"]
        self.lines[event] += 1
        if not event.startswith("delivery."):
            shown = {name: value for name, value in line[2].items() if name not in ("event", "where", "generation")}
            self.world.note("log", event, *(f"{name}={value}" for name, value in shown.items()))
        if event in BUGS:
            self.note("no_bug", event, line[2].get("reason", ""), *line[2].get("where", ())[-3:])
        text = render(line)
        if MARKER.encode() in text or b"rx_" in text:
            self.note("no_phi", "log line", event)

    def written(self, partition: Partition, records: Sequence[Stored]) -> None:
        """Note what a leader has taken."""
        for record in records:
            identity = identity_of(record.headers)
            if identity is None:
                self.note("not_forged", "a record without identity in", *partition.place)
                continue
            where = identity.id, identity.body_sha256, bool(identity.reason)
            self._written.setdefault(where, record.visible_at)
            self.world.note("kafka", "takes", identity.id, "in", *partition.place)
            for name, content in record.headers:
                if MARKER.encode() in content:
                    self.note("no_phi", "header", name)

    def answered(self, attempt: Attempt) -> None:
        """Look at an answer when the process gives it."""
        delivery = attempt.delivery
        if MARKER in attempt.code or any(MARKER.encode() in each for each in self.senders.answers[-1:]):
            self.note("no_phi", "answer to", delivery)
        allowed = {200, 202, 503} if delivery.kind != "hostile" else {401, 503}
        if attempt.status not in allowed:
            self.note("answers", attempt.status, attempt.code, "to", delivery)
        if attempt.status == 200 and attempt.outcome in ("accepted", "duplicate"):
            at = self._written.get((delivery.id, delivery.sha256, False), inf)
            if at > self.world.loop.time():
                self.note("durable_before_200", attempt.outcome, delivery, "at", attempt.start)

    def judge(self) -> None:
        """Judge a world at rest."""
        self._judge_log()
        self._judge_processes()

    def _judge_log(self) -> None:
        sent = {(each.delivery.id, each.delivery.sha256): each.delivery for each in self.senders.attempts}
        first: dict[tuple[str, str, bool], Seen] = {}
        for partition in (*self.kafka.buried, *self.kafka.partitions()):
            for offset, record in enumerate(partition.records):
                identity = identity_of(record.headers)
                if identity is None:
                    continue
                delivery = sent.get((identity.id, identity.body_sha256))
                is_parked = partition.place.topic == UNRECOGNIZED_TOPIC
                if delivery is None or delivery.kind == "hostile":
                    self.note("not_forged", identity.id, "in", *partition.place)
                elif not is_parked and delivery.kind == "unusable":
                    self.note("not_forged", delivery, "as an event")
                elif not is_parked and record.key.decode() != delivery.key:
                    self.note("not_forged", delivery, "under the key", record.key)
                where = identity.id, identity.body_sha256, is_parked
                first.setdefault(where, Seen(record.visible_at, partition, offset))
        for attempt in self.senders.attempts:
            delivery = attempt.delivery
            if attempt.promised and (delivery.id, delivery.sha256, attempt.outcome == "parked") not in first:
                self.note("not_lost", attempt.outcome, delivery, "at", attempt.start)
        self._judge_order(first)

    def _judge_order(self, first: Mapping[tuple[str, str, bool], Seen]) -> None:
        """Of two events of a key: the one answered before the other was sent at all stands first, on one host."""
        taken: dict[tuple[str, str], dict[str, Attempt]] = defaultdict(dict)
        begun: dict[str, float] = {}
        places: dict[str, set[str]] = defaultdict(set)
        for attempt in self.senders.attempts:
            begun.setdefault(attempt.delivery.sha256, attempt.sent_at)
            if attempt.arrived_at >= 0:
                places[attempt.delivery.sha256].add(attempt.host)
            if attempt.outcome in ("accepted", "spooled"):
                by_body = taken[attempt.delivery.key, attempt.host]
                before = by_body.get(attempt.delivery.sha256)
                if before is None or attempt.answered_at < before.answered_at:
                    by_body[attempt.delivery.sha256] = attempt
        for attempts in taken.values():
            ordered = sorted(attempts.values(), key=lambda each: each.answered_at)
            for n, earlier in enumerate(ordered):
                for later in ordered[n + 1 :]:
                    if begun[later.delivery.sha256] <= earlier.answered_at or len(places[later.delivery.sha256]) > 1:
                        continue
                    one, two = (first.get((each.delivery.id, each.delivery.sha256, False)) for each in (earlier, later))
                    if one and two and one.partition is two.partition and one.offset > two.offset:
                        self.note("in_order", later.delivery, "before", earlier.delivery, "at", later.start)

    def _judge_processes(self) -> None:
        for host in self.hosts:
            for failure in host.failures:
                self.note("no_bug", host.name, failure)
            durability, metrics = host.durability, host.metrics
            if durability is None or metrics is None or host.port is None:
                self.note("ready", host.name, "does not run")
                continue
            writers, spool = durability.writers, durability.spool
            left = {"records": writers.records, "bytes": writers.bytes, "spooling": writers.spooling}
            left |= {"appends": len(writers.appends), "blocked": writers.blocked, "oldest": spool.oldest_ms()}
            if any(left.values()):
                self.note("at_rest", host.name, {name: count for name, count in left.items() if count})
            for name, check in durability.checks.items():
                if (result := check()) != "ok":
                    self.note("ready", host.name, name, result)
            values: Any = generate_latest(metrics.registry)
            if MARKER.encode() in values or b"rx_" in values:
                self.note("no_phi", "metrics of", host.name)
