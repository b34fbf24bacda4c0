"""What is promised, each promise by its name, and the check of it, while a world runs and once it is at rest."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

from prometheus_client import generate_latest

from bridge.event import Identity
from bridge.kafka.accepted import from_entry
from bridge.kafka.record import identity_of
from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from bridge.runtime.http import Answer
from bridge.runtime.logging import Line, render
from bridge.spool.keys import KeyRing
from bridge.spool.set_aside import names_of, read_aside
from tests.simulation.dialects import MARKER, Delivery, Expected, native
from tests.simulation.kafka import Kafka, Partition, Stored
from tests.simulation.loop import PROCESS
from tests.simulation.operators import HOSTS, Operators
from tests.simulation.replica import SPOOL, Host
from tests.simulation.senders import Attempt, Senders
from tests.simulation.world import World

# The name of each promise, and what breaks it.
PROMISES: Mapping[str, str] = {
    "durable_before_200": "a 200 whose event was not in the log of all in-sync replicas",
    "not_lost": "a delivery that was answered 2xx, and whose event is nowhere",
    "not_forged": "a record that nobody has sent, or under another key",
    "once": "an event that stands in the log twice, and nothing that the page names has happened",
    "one_body": "another body accepted under an id that the process knew",
    "in_order": "the first record of a later delivery of a key before that of an earlier one",
    "facts": "a change of a record without ids that is not in the log, or not after the one before it",
    "answers": "an answer that the contract does not allow",
    "in_time": "no answer within the deadline, by a process that lived",
    "mendable": "a parked delivery that a mended mapping and a replay do not make events of",
    "no_phi": "content of a body in an answer, a log line, a metric or a header",
    "at_rest": "work left, or memory held, with nothing left to do",
    "ready": "a readiness that is not ok with everything at hand, or ok with nothing done",
    "no_bug": "an exception that nothing expects",
}
# Log lines that name a bug.
BUGS = ("worker.failed", "worker.write_failed", "worker.http_failed", "worker.spool_failed", "worker.uncaught")
# Lines after which the page allows that an event stands in the log twice.
REPEATING = ("worker.producer_replaced", "worker.spool_damaged", "worker.spool_unread", "worker.follow_behind")
DEADLINE_S = 4.0
# A deadline is late by a sweep at most.
SWEEP_S = 0.25
# Within this after an answer, what a process knows may not be on its disk yet.
SETTLED_S = 1.0
PROBES = 6  # of each host

Where = tuple[str, str, str]


class Broken(NamedTuple):
    """A promise that was not kept, and by what."""

    promise: str
    what: str


class Seen(NamedTuple):
    """Where a record stands, and when all in-sync replicas had it."""

    visible_at: float
    partition: Partition
    offset: int
    key: str


def where_of(delivery: Delivery, event: Expected) -> Where:
    """Return by what an event is found: its source, and its id, its body, or both."""
    return delivery.source, event.id, event.sha256


@dataclass(eq=False)
class Promises:
    """Watches one world."""

    world: World
    kafka: Kafka
    hosts: Sequence[Host]
    senders: Senders
    operators: Operators
    broken: list[Broken] = field(default_factory=list)
    lines: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self._written: dict[Where, float] = {}
        self._repeating: list[tuple[float, str]] = []  # when a line of `REPEATING` was logged, and where
        self._damaged = False
        self.senders.on_answer = self.answered
        self.kafka.on_write = self.written

    def note(self, promise: str, *what: object) -> None:
        """Note a broken promise, once for each thing that breaks it."""
        assert promise in PROMISES
        found = Broken(promise, " ".join(map(str, what)))
        if found not in self.broken:
            self.broken.append(found)
            self.world.note("BROKEN", *found)

    # While it runs.

    def logged(self, line: Line) -> None:
        """Look at a line as it is written."""
        event, process = line[2]["event"], PROCESS.get()
        name = process.name if process else ""
        self.lines[event] += 1
        if not event.startswith("delivery."):
            shown = {name: value for name, value in line[2].items() if name not in ("event", "where", "generation")}
            self.world.note(name or "log", event, *(f"{name}={value}" for name, value in shown.items()))
        if event in BUGS:
            self.note("no_bug", event, line[2].get("reason", ""), *line[2].get("where", ())[-3:])
        if event in REPEATING:
            self._repeating.append((self.world.loop.time(), name.partition(".")[0]))
        self._damaged |= event == "worker.spool_damaged"
        text = render(line)
        if MARKER.encode() in text or b"kq7_" in text:
            self.note("no_phi", "log line", event)

    def written(self, partition: Partition, records: Sequence[Stored]) -> None:
        """Note what a leader has taken."""
        for record in records:
            identity = identity_of(record.headers)
            if identity is None:
                self.note("not_forged", "a record without identity in", *partition.place)
                continue
            for each in _places(identity):
                self._written.setdefault(each, record.visible_at)
            self.world.note("kafka", "takes", identity.id, identity.reason, "in", *partition.place)
            for name, content in record.headers:
                if MARKER.encode() in content:
                    self.note("no_phi", "header", name)

    def answered(self, attempt: Attempt, answer: Answer) -> None:
        """Look at an answer when the process gives it."""
        delivery = attempt.delivery
        if MARKER.encode() in answer.head + answer.body:
            self.note("no_phi", "answer to", delivery)
        allowed = {200, 202, 503} if delivery.kind != "hostile" else {401, 503}
        if attempt.status not in allowed:
            self.note("answers", attempt.status, attempt.code, "to", delivery)
        if attempt.outcome == "ignored" and not (attempt.variant == "ignoring" and delivery.word == "pinged"):
            self.note("answers", "ignored", delivery)
        if attempt.status == 200 and attempt.outcome in ("accepted", "duplicate"):
            now = self.world.loop.time()
            for event in self._due(attempt):
                if self._written.get(where_of(delivery, event), inf) > now:
                    self.note("durable_before_200", attempt.outcome, delivery, "at", attempt.start)

    @staticmethod
    def _due(attempt: Attempt) -> Sequence[Expected]:
        """Return the events that an answer promises."""
        events = attempt.delivery.events
        if attempt.variant == "ignoring":
            return [each for each in events if not each.id.endswith("/other.reported")]
        return events

    def is_parked(self, source: str) -> bool:
        """Return whether a delivery of a source was parked."""
        return any(each.outcome == "parked" and each.delivery.source == source for each in self.senders.attempts)

    async def probe(self) -> None:
        """See that each host takes events of each partition, with everything at hand."""
        rng = random.Random(f"{self.world.seed} probe")  # noqa: S311 - of the seed
        for number in range(PROBES):
            await asyncio.sleep(1.0)
            for host in self.hosts:
                name = f"probe-{host.name}-{number}"
                delivery = native(rng, 0, key=name, event_id=name)
                attempt = await self.senders.attempt(delivery, host, rng, patience_s=DEADLINE_S + 1)
                # The first ones may find out that its producer must be replaced.
                if number >= PROBES // 2 and attempt.status != 200:
                    self.note("ready", host.name, "answers", attempt.status, attempt.outcome, attempt.code)

    # At rest.

    def judge(self) -> None:
        """Judge a world at rest."""
        seen = self._read()
        self._judge_answers(seen)
        self._judge_repeats(seen)
        self._judge_order(seen)
        self._judge_facts(seen)
        self._judge_processes()

    def _read(self) -> Mapping[Where, Sequence[Seen]]:
        """Read the whole log plainly; every record must be of somebody."""
        sent: dict[tuple[str, str], Delivery] = {}
        events: dict[Where, set[str]] = defaultdict(set)
        for attempt in self.senders.attempts:
            delivery = attempt.delivery
            if delivery.kind == "hostile":
                continue
            sent[delivery.source, delivery.sha256] = delivery
            for event in delivery.events if delivery.kind != "unusable" else ():
                events[where_of(delivery, event)].add(event.key)
        seen: dict[Where, list[Seen]] = defaultdict(list)
        for partition in (*self.kafka.buried, *self.kafka.partitions()):
            for offset, record in enumerate(partition.records):
                identity = identity_of(record.headers)
                if identity is None:
                    continue
                key = record.key.decode()
                places = _places(identity)
                is_parked = partition.place.topic == UNRECOGNIZED_TOPIC
                if is_parked and (identity.source, identity.body_sha256) not in sent:
                    self.note("not_forged", identity.id, "in", *partition.place)
                elif not is_parked and not any(key in events.get(each, ()) for each in places):
                    self.note("not_forged", identity.id, "under", key, "in", *partition.place)
                for each in places:
                    seen[each].append(Seen(record.visible_at, partition, offset, key))
        return seen

    def _aside(self) -> set[Where]:
        """Return what is set aside, which operators are shown."""
        found: set[Where] = set()
        for host in self.hosts:
            keys = KeyRing(host.key_dir)
            keys.load()
            for name in names_of(host.disk, SPOOL):
                entry = read_aside(host.disk, SPOOL, name, keys.opening).entry
                if not isinstance(entry, str):
                    found.update(_places(from_entry(entry).identity))
        return found

    def _judge_answers(self, seen: Mapping[Where, Sequence[Seen]]) -> None:
        kept = self._aside() | seen.keys()
        bodies: dict[tuple[str, str], set[str]] = defaultdict(set)
        for attempt in self.senders.attempts:
            bodies[attempt.delivery.source, attempt.delivery.id].add(attempt.delivery.sha256)
        for attempt in self.senders.attempts:
            delivery = attempt.delivery
            self._judge_time(attempt)
            if delivery.kind == "hostile" or not attempt.promised or attempt.outcome == "ignored":
                continue
            if attempt.outcome == "parked":
                self._judge_parked(attempt, seen, is_rivalled=len(bodies[delivery.source, delivery.id]) > 1)
                continue
            if delivery.kind == "unusable":
                self.note("answers", attempt.outcome, delivery)
            for event in self._due(attempt):
                if where_of(delivery, event) not in kept and not self._damaged:
                    self.note("not_lost", attempt.outcome, delivery, event.id, "at", attempt.start)

    def _judge_parked(self, attempt: Attempt, seen: Mapping[Where, Sequence[Seen]], *, is_rivalled: bool) -> None:
        """What is parked stands in its topic, for a reason that holds; a replay has made events of what was unknown."""
        delivery, reason = attempt.delivery, attempt.code
        if not seen.get(("parked " + delivery.source, "", delivery.sha256)) and not self._damaged:
            self.note("not_lost", "parked", delivery, "at", attempt.start)
        reasons = {
            "environment_mismatch": delivery.kind == "unusable",
            "id_conflict": is_rivalled,
            "unknown_type": delivery.source == "acme" and attempt.variant == "early" and bool(delivery.word),
        }
        if not reasons.get(reason):
            self.note("answers", "parked", reason, delivery)
        if reason == "unknown_type":
            for event in delivery.events:
                if where_of(delivery, event) not in seen:
                    self.note("mendable", delivery, event.id)

    def _judge_time(self, attempt: Attempt) -> None:
        """An answer within the deadline, unless its process ended or stood still meanwhile."""
        if attempt.arrived_at < 0:
            return
        host = self.hosts[HOSTS.index(attempt.host)]
        until = attempt.answered_at if attempt.status else attempt.arrived_at + DEADLINE_S + SWEEP_S
        if any(attempt.arrived_at <= at <= until for at, _ in host.ends) or host.stood_still(attempt.arrived_at, until):
            return
        if not attempt.status or until - attempt.arrived_at > DEADLINE_S + SWEEP_S:
            self.note("in_time", attempt.delivery, "at", attempt.start, attempt.status, until - attempt.arrived_at)

    def _judge_repeats(self, seen: Mapping[Where, Sequence[Seen]]) -> None:
        """What stands in the log twice must be explained; another body under a known id never is."""
        attempts: dict[Where, list[Attempt]] = defaultdict(list)
        by_id: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
        for attempt in self.senders.attempts:
            if attempt.arrived_at >= 0 and attempt.delivery.kind != "hostile":
                for event in attempt.delivery.events:
                    attempts[where_of(attempt.delivery, event)].append(attempt)
                by_id[attempt.delivery.source, attempt.delivery.id].append(attempt)
        for where, places in seen.items():
            if len(places) > 1 and where[1] and attempts[where] and not self._may_repeat(attempts[where], places):
                self.note("once", *where[:2], [(*each.partition.place, each.offset) for each in places])
        for (source, event_id), tried in by_id.items():
            taken = [each for each in tried if each.outcome in ("accepted", "spooled")]
            pairs = [(one, two) for one in taken for two in taken] if source == "drx" else []
            for one, two in pairs:
                if one.delivery.sha256 != two.delivery.sha256 and self._knew(one, two, seen):
                    self.note("one_body", event_id, one.outcome, "then", two.outcome, "at", two.start)

    def _knew(self, one: Attempt, two: Attempt, seen: Mapping[Where, Sequence[Seen]]) -> bool:
        """Return whether a process that took one body must not have taken the other."""
        if one.start != two.start or not 0 <= one.answered_at < two.arrived_at:
            return False
        # What is spooled is forgotten when damage is found; the drain then sets the second body aside.
        places = [where_of(each.delivery, each.delivery.events[0]) for each in (one, two)]
        return all(each in seen for each in places) or not (self._damaged or self.lines["worker.spool_unread"])

    def _may_repeat(self, attempts: Sequence[Attempt], places: Sequence[Seen]) -> bool:
        names = {each.host for each in attempts}
        if len(names) > 1 or not all(each.finished for each in attempts):
            return True
        (name,) = names
        begun, ended = min(each.arrived_at for each in attempts), max(each.visible_at for each in places)
        host = self.hosts[HOSTS.index(name)]
        if self.operators.emptied or any(begun <= at <= ended and where == name for at, where in self._repeating):
            return True
        return any(begun <= at <= ended and not _is_settled(attempts, at) for at, _ in host.ends)

    def _judge_order(self, seen: Mapping[Where, Sequence[Seen]]) -> None:
        """Of two events of a key: the one answered before the other was sent at all stands first, on one host."""
        taken: dict[tuple[str, str, str], dict[Where, Attempt]] = defaultdict(dict)
        begun: dict[Where, float] = {}
        places: dict[Where, set[str]] = defaultdict(set)
        for attempt in self.senders.attempts:
            for event in self._due(attempt):
                where = where_of(attempt.delivery, event)
                begun.setdefault(where, attempt.sent_at)
                if attempt.arrived_at >= 0:
                    places[where].add(attempt.host)
                # Sources without ids have a rule of their own, and what is put back or replayed comes later.
                if attempt.outcome in ("accepted", "spooled") and event.id and not attempt.origin:
                    of_key = taken[attempt.delivery.source, event.key, attempt.host]
                    before = of_key.setdefault(where, attempt)
                    if attempt.answered_at < before.answered_at:
                        of_key[where] = attempt
        for attempts in taken.values():
            ordered = sorted(attempts.items(), key=lambda each: each[1].answered_at)
            pairs = ((earlier, later) for n, earlier in enumerate(ordered) for later in ordered[n + 1 :])
            for (one, earlier), (two, later) in pairs:
                if begun[two] <= earlier.answered_at or len(places[two]) > 1 or self._may_overtake(earlier):
                    continue
                if _is_behind(seen.get(one), seen.get(two)):
                    self.note("in_order", later.delivery, "before", earlier.delivery, "at", later.start)

    def _may_overtake(self, earlier: Attempt) -> bool:
        """Return whether its record may have been set aside, locked or unreadable for a time."""
        return earlier.outcome == "spooled" and bool(
            self.lines["worker.spool_set_aside"]
            or self.lines["worker.spool_key_missing"]
            or self.lines["worker.spool_unread"]
            or self.lines["worker.spool_unlocked"]
            or self._damaged
        )

    def _judge_facts(self, seen: Mapping[Where, Sequence[Seen]]) -> None:
        """The states of a record that were promised stand in the log in their order."""
        facts: dict[str, dict[int, Attempt]] = defaultdict(dict)
        for attempt in self.senders.attempts:
            if attempt.delivery.source == "plain" and attempt.outcome in ("accepted", "spooled", "duplicate"):
                facts[attempt.delivery.key].setdefault(attempt.delivery.number, attempt)
        for key, promised in facts.items():
            if self._damaged or any(map(self._may_overtake, promised.values())) or self.operators.emptied:
                continue
            at, before = -1, ""
            for number, attempt in sorted(promised.items()):
                digest = attempt.delivery.sha256
                if attempt.outcome == "duplicate" and digest == before:
                    continue
                before = digest
                found = [each.offset for each in seen.get(("plain", "", digest), ()) if each.offset > at]
                if not found:
                    self.note("facts", key, "number", number, attempt.outcome, "at", attempt.start)
                    break
                at = min(found)

    def _judge_processes(self) -> None:
        for exc in self.operators.failures:
            self.note("no_bug", "a command", repr(exc))
        for host in self.hosts:
            for failure in host.failures:
                self.note("no_bug", host.name, failure)
            durability, metrics = host.durability, host.metrics
            if durability is None or metrics is None or host.port is None:
                self.note("ready", host.name, "does not run")
                continue
            writers, spool = durability.writers, durability.spool
            left: dict[str, float] = {"records": writers.records, "bytes": writers.bytes, "spooling": writers.spooling}
            left |= {"appends": len(writers.appends), "blocked": writers.blocked, "oldest": spool.oldest_ms()}
            left |= {"in progress": metrics.registry.get_sample_value("drxbridge_http_inflight_requests") or 0}
            if any(left.values()):
                self.note("at_rest", host.name, {name: count for name, count in left.items() if count})
            for name, check in durability.checks.items():
                if (result := check()) != "ok":
                    self.note("ready", host.name, name, result)
            values: Any = generate_latest(metrics.registry)
            if MARKER.encode() in values or b"kq7_" in values:
                self.note("no_phi", "metrics of", host.name)


def _is_settled(attempts: Sequence[Attempt], at: float) -> bool:
    """Return whether what had arrived by a time was in Kafka, and the process had long known that."""
    before = [each for each in attempts if each.arrived_at <= at]
    return all(each.outcome in ("accepted", "duplicate") and each.answered_at < at - SETTLED_S for each in before)


def _is_behind(one: Sequence[Seen] | None, two: Sequence[Seen] | None) -> bool:
    """Return whether the first record of one stands behind that of the other, in the same partition."""
    return bool(one and two and one[0].partition is two[0].partition and one[0].offset > two[0].offset)


def _places(identity: Identity) -> Sequence[Where]:
    """Return under what a record is looked for: by id and body, by id alone, by body alone."""
    source = f"parked {identity.source}" if identity.reason else identity.source
    return (
        (source, identity.id, identity.body_sha256),
        (source, identity.id, ""),
        (source, "", identity.body_sha256),
    )
