"""The promises by name, and their checks while a world runs and once it is at rest."""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client import generate_latest

from bridge.event import Identity
from bridge.ingress.call import Call
from bridge.kafka.accepted import Accepted, from_entry
from bridge.kafka.record import identity_of
from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from bridge.runtime.http_server import Response
from bridge.runtime.logging import Line, render
from bridge.spool.keys import KeyRing
from bridge.spool.segment import decrypt, scan
from bridge.spool.set_aside import names_of, read_aside
from tests.simulation.dialects import MARKER, Delivery, Expected, native
from tests.simulation.held import held
from tests.simulation.kafka import Kafka, Partition, Stored
from tests.simulation.loop import PROCESS, Process
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
    "newest": "a retry of the newest body of a key that is a second event, or another body that is a duplicate",
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
DEADLINE_S = 4.0
# A deadline is late by a sweep at most.
SWEEP_S = 0.25
# A delivery is looked up when it arrives, and may wait in memory until its deadline; what is drained is looked up then.
WAITS_S, DRAINS_S = DEADLINE_S + SWEEP_S, 0.5
# A follower reads on this long after brokers, network or its process were in trouble: a client is replaced after 15 s.
# A drain asks for the end of the log first, and logs that it does not get there.
# After trouble of more than `ANEW_S` a drain begins anew.
FOLLOWS_S, CATCHES_UP_S, ANEW_S = 30.0, 2.0, 8.0
# How long order is kept behind unreadable data; how soon a missing key is noticed.
ORDER_S, NO_KEY_S = 40.0, 3.0
# Acts after which a process may not get to spool what Kafka does not take in time.
SLOW = {"freeze", "disk_slow", "disk_hangs", "disk_fails", "disk_full", "disk_read_only", "key_away"}
# Acts after which a spool may not be able to set a second body aside.
UNABLE = {"disk_fails", "disk_full", "disk_read_only", "unread"}
# Equal bodies are a repeat for 600 s; a record is read this long after it was visible, at most.
SOON_S, READS_S = 590.0, 120.0
PROBES = 6  # of each host
RESENT = 20  # deliveries at most that no process has taken

Where = tuple[str, str, str]


class Broken(NamedTuple):
    """A broken promise, and its cause."""

    promise: str
    what: str


class Seen(NamedTuple):
    """The position of a record, and the time when all in-sync replicas had it."""

    visible_at: float
    partition: Partition
    offset: int
    key: str
    began: float  # when its producer was given it
    writer: Process  # whose producer that was


def where_of(delivery: Delivery, event: Expected) -> Where:
    """Return the lookup key of an event: its source, and its id, its body, or both."""
    return delivery.source, event.id, event.sha256


@dataclass(eq=False)
class Promises:
    """Checks one world."""

    world: World
    kafka: Kafka
    hosts: Sequence[Host]
    senders: Senders
    operators: Operators
    broken: list[Broken] = field(default_factory=list)
    lines: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self._written: dict[Where, float] = {}
        # Events that were damaged in a segment, and those that may come later than others, with the reason.
        self._damaged: dict[tuple[str, str], set[Where]] = defaultdict(set)
        self._found: dict[tuple[str, str], float] = {}  # when a process has found damage in a segment
        self._late: dict[tuple[str, str], set[Where]] = defaultdict(set)
        self._behind: dict[str, float] = {}  # when a drain of a process last went on without the end of the log
        # Events of which a response claims that they are in the log, with their keys; known once they have been judged.
        self.acknowledged: dict[Where, str] = {}
        self._forgot = defaultdict[str, list[float]](list)  # when a process forgot the ids of what is in its spool
        self.senders.on_answer = self.answered
        self.kafka.on_write = self.written
        self.kafka.on_bug = partial(self.note, "no_bug")
        self.operators.on_bit = self.turned

    def note(self, promise: str, *what: object) -> None:
        """Record a broken promise, once per cause."""
        assert promise in PROMISES
        found = Broken(promise, " ".join(map(str, what)))
        if found not in self.broken:
            self.broken.append(found)
            self.world.note("BROKEN", *found)

    # While it runs.

    def logged(self, line: Line) -> None:
        """Check a log line when it is written."""
        event, process = line[2]["event"], PROCESS.get()
        name = process.name if process else ""
        self.lines[event] += 1
        if not event.startswith("delivery."):
            shown = {name: value for name, value in line[2].items() if name not in ("event", "where", "generation")}
            self.world.note(name or "log", event, *(f"{name}={value}" for name, value in shown.items()))
        if event in BUGS:
            self.note("no_bug", event, line[2].get("reason", ""), *line[2].get("where", ())[-3:])
        if event == "worker.follow_behind":
            self._behind[name] = self.world.loop.time()
        if event.startswith("worker.spool_"):
            self._look(self.hosts[HOSTS.index(name.partition(".")[0])], name, event, line[2])
        text = render(line)
        if MARKER.encode() in text or b"kq7_" in text:
            self.note("no_phi", "log line", event)

    def _look(self, host: Host, process: str, event: str, line: Mapping[str, Any]) -> None:
        """Record the events that log lines about the spool excuse."""
        now, stem = self.world.loop.time(), line.get("segment", "")
        segment = SPOOL / f"{stem}.segment"
        if event == "worker.spool_damaged":
            self._found[host.name, stem] = now
            self._forgot[process].append(now)
        elif event == "worker.spool_set_aside":
            self._late[host.name, line["name"]] = self._entries(host, SPOOL / "set-aside" / line["name"])
        elif event == "worker.spool_locked":
            self._late[host.name, f"locked {stem}"] = self._entries(host, segment)
        elif event == "worker.spool_available":
            # What was spooled into an unread segment later was passed over, too; this start reads it.
            for (name, unread), entries in self._late.items():
                if name == host.name and entries and (file := SPOOL / f"{unread}.segment") in host.disk.files:
                    entries.update(self._entries(host, file))
        elif event == "worker.spool_unread":
            # A start logs it at once, and then waits; a running process has waited.
            is_late = host.port is None or now - host.disk.failing_since >= ORDER_S
            entries = self._entries(host, segment) if is_late and line["code"] == "unread" else set()
            # Kept when it can be read again: later events have passed it meanwhile.
            self._late.setdefault((host.name, stem), set()).update(entries)
            self._forgot[process].append(now)

    def _entries(self, host: Host, path: Path, content: bytes = b"", at: int | None = None) -> set[Where]:
        """Return the events in a file of a spool, or those of the record with the byte `at`."""
        file, keys = host.disk.files.get(path), KeyRing(host.keys_at)
        keys.load()
        content = content or bytes(file.content if file else b"")
        number = int(path.stem.partition("-")[0], 16)
        found: set[Where] = set()
        for record in scan(content, segment=number, newest=True, keys=keys.decrypting).records:
            end = record.offset + record.header.size
            key = keys.decrypting.get(record.header.key_id)
            entry = decrypt(content[record.offset : end], key) if key else None
            if entry is not None and (at is None or record.offset <= at < end):
                found.update(places_of(from_entry(entry).identity))
        return found

    def turned(self, host: Host, path: Path, before: bytes, at: int | None) -> None:
        """Record which event is lost with a byte of a segment, or which are with all of it."""
        self._damaged[host.name, path.stem] |= self._entries(host, path, before, at)
        if at is None:  # the next start does not know these ids
            self._found[host.name, path.stem] = self.world.loop.time()

    def _is_lost(self, attempt: Attempt, where: Where) -> bool:
        """Return whether an accepted event may be lost: it was damaged, and accepted before the damage was found."""
        return any(
            where in entries and attempt.answered_at <= self._found.get(tp, -1.0)
            for tp, entries in self._damaged.items()
        )

    def written(self, partition: Partition, records: Sequence[Stored]) -> None:
        """Record a batch that a leader has accepted."""
        for record in records:
            identity = identity_of(record.headers)
            if identity is None:
                self.note("not_forged", "a record without identity in", *partition.tp)
                continue
            for each in places_of(identity):
                self._written[each] = min(record.visible_at, self._written.get(each, inf))  # one may be gone by then
            self.world.note("kafka", "takes", identity.id, identity.reason, "in", *partition.tp)
            for name, content in record.headers:
                if MARKER.encode() in content:
                    self.note("no_phi", "header", name)

    def answered(self, attempt: Attempt, answer: Response) -> None:
        """Check a response when the process sends it."""
        delivery = attempt.delivery
        if MARKER.encode() in answer.head + answer.body:
            self.note("no_phi", "answer to", delivery)
        allowed = {200, 202, 503} if delivery.kind != "hostile" else {401, 503}
        if attempt.status not in allowed:
            self.note("answers", attempt.status, attempt.code, "to", delivery)
        if attempt.outcome == "ignored" and not (attempt.variant == "ignoring" and delivery.word == "pinged"):
            self.note("answers", "ignored", delivery)
        host = self.hosts[HOSTS.index(attempt.host)]
        if attempt.code == "deadline" and host.takes and not (self.operators.done & SLOW or self._has_rival(attempt)):
            self.note("answers", "503 beside a spool that takes it", delivery, "at", attempt.start)
        now, since = self.world.loop.time(), max(host.key_gone_at, host.disk.delayed_at)
        has_looked = now - since > NO_KEY_S and not host.stood_still(now - NO_KEY_S, now)
        has_looked &= not host.disk.faults.slow_s
        # Of several events one may have been encrypted before, also with another delivery.
        if attempt.status == 202 and attempt.outcome == "spooled" and has_looked and len(delivery.events) == 1:
            # An earlier attempt, or an equal body, may have been encrypted before that was noticed.
            equal = [each for each in self.senders.attempts if each.delivery.sha256 == delivery.sha256]
            tried = [each for each in equal if each.host == host.name]
            if not any(0 <= each.arrived_at < host.key_gone_at + NO_KEY_S for each in tried if each is not attempt):
                self.note("not_lost", "spooled under a key that no restart finds", delivery, "at", attempt.start)
        if attempt.status == 200 and attempt.outcome in ("accepted", "duplicate"):
            for event in self._due(attempt):
                if self._written.get(where_of(delivery, event), inf) > now:
                    self.note("durable_before_200", attempt.outcome, delivery, "at", attempt.start)

    def _has_rival(self, attempt: Attempt) -> bool:
        """Return whether a host got another body under the id: of two, one waits, and has less time left."""
        got = {each.delivery for each in self.senders.attempts if each.host == attempt.host}
        return sum(each.id == attempt.delivery.id != "" for each in got) > 1

    @staticmethod
    def _due(attempt: Attempt) -> Sequence[Expected]:
        """Return the events that a response promises."""
        events = attempt.delivery.events
        if attempt.variant == "ignoring":
            return [each for each in events if not each.id.endswith("/other.reported")]
        return events

    def is_parked(self, source: str) -> bool:
        """Return whether a delivery of a source was parked."""
        return any(each.outcome == "parked" and each.delivery.source == source for each in self.senders.attempts)

    async def probe(self) -> None:
        """Check that each host accepts events of each partition when all dependencies are available."""
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

    async def resend(self) -> None:
        """Check that no process keeps refusing a delivery that it could not accept once."""
        rng = random.Random(f"{self.world.seed} resend")  # noqa: S311 - of the seed
        taken = {each.delivery.sha256 for each in self.senders.attempts if each.promised}
        refused = {
            (each.delivery.sha256, each.host): each.delivery
            for each in self.senders.attempts
            if each.arrived_at >= 0 and each.delivery.kind != "hostile" and each.delivery.source != "plain"
        }
        for (_, name), delivery in [each for each in refused.items() if each[0][0] not in taken][-RESENT:]:
            host = self.hosts[HOSTS.index(name)]
            attempt = await self.senders.attempt(delivery, host, rng, patience_s=DEADLINE_S + 1)
            if not attempt.promised:
                self.note("ready", host.name, "refuses still", attempt.status, attempt.code, delivery)

    # At rest.

    def judge(self) -> None:
        """Check a world at rest."""
        seen = self._read()
        self._judge_answers(seen)
        self._judge_repeats(seen)
        self._judge_places()
        self._judge_order(seen)
        self._judge_facts(seen)
        self._judge_newest(seen)
        self._judge_processes()

    def _read(self) -> Mapping[Where, Sequence[Seen]]:
        """Read the whole log; every record must belong to a delivery."""
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
                tps = places_of(identity)
                is_parked = partition.tp.topic == UNRECOGNIZED_TOPIC
                if is_parked and (identity.source, identity.body_sha256) not in sent:
                    self.note("not_forged", identity.id, "in", *partition.tp)
                elif not is_parked and not any(key in events.get(each, ()) for each in tps):
                    self.note("not_forged", identity.id, "under", key, "in", *partition.tp)
                for each in tps:
                    writer = self.kafka.writers[record.pid]
                    seen[each].append(Seen(record.visible_at, partition, offset, key, record.began, writer))
        return seen

    def _aside(self) -> set[Where]:
        """Return the records that are set aside, which operators can see."""
        found: set[Where] = set()
        for host in self.hosts:
            keys = KeyRing(host.key_dir)
            keys.load()
            for name in names_of(host.disk, SPOOL):
                entry = read_aside(host.disk, SPOOL, name, keys.decrypting).entry
                if not isinstance(entry, str):
                    found.update(places_of(from_entry(entry).identity))
        return found

    def _judge_answers(self, seen: Mapping[Where, Sequence[Seen]]) -> None:
        aside = self._aside()
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
                where = where_of(delivery, event)
                if where not in aside and not self._is_lost(attempt, where):
                    self._acknowledge(where, event.key, seen)
                    if where not in seen:
                        self.note("not_lost", attempt.outcome, delivery, event.id, "at", attempt.start)

    def _acknowledge(self, where: Where, key: str, seen: Mapping[Where, Sequence[Seen]]) -> None:
        """Note an event that consumers must find, unless its topic was deleted with it."""
        if where not in seen or any(each.partition not in self.kafka.buried for each in seen[where]):
            self.acknowledged[where] = key

    def _judge_parked(self, attempt: Attempt, seen: Mapping[Where, Sequence[Seen]], *, is_rivalled: bool) -> None:
        """What is parked stands in its topic, for a reason that holds; a replay has made events of what was unknown."""
        delivery, reason = attempt.delivery, attempt.code
        where = ("parked " + delivery.source, "", delivery.sha256)
        if not seen.get(where) and not self._is_lost(attempt, where):
            self.note("not_lost", "parked", delivery, "at", attempt.start)
        reasons = {
            "environment_mismatch": delivery.kind == "unusable" and delivery.source == "drx",
            "unusable": delivery.kind == "unusable" and delivery.source == "plain",
            "id_conflict": is_rivalled,
            "unknown_type": delivery.source == "acme" and attempt.variant == "early" and bool(delivery.word),
        }
        if not reasons.get(reason):
            self.note("answers", "parked", reason, delivery)
        if reason == "unknown_type" and seen.get(where) and UNRECOGNIZED_TOPIC not in self.operators.emptied:
            for event in delivery.events:
                self._acknowledge(where_of(delivery, event), event.key, seen)
                if where_of(delivery, event) not in seen:
                    self.note("mendable", delivery, event.id)

    def _judge_time(self, attempt: Attempt) -> None:
        """Check that responses are within the deadline, unless the process ended or was frozen."""
        if attempt.arrived_at < 0:
            return
        host = self.hosts[HOSTS.index(attempt.host)]
        until = attempt.answered_at if attempt.status else attempt.arrived_at + DEADLINE_S + SWEEP_S
        if any(attempt.arrived_at <= at <= until for at, _ in host.ends) or host.stood_still(attempt.arrived_at, until):
            return
        if not attempt.status or until - attempt.arrived_at > DEADLINE_S + SWEEP_S:
            self.note("in_time", attempt.delivery, "at", attempt.start, attempt.status, until - attempt.arrived_at)

    def _judge_repeats(self, seen: Mapping[Where, Sequence[Seen]]) -> None:
        """Check that repeated records are explained; another body under a known id never is."""
        attempts: dict[Where, list[Attempt]] = defaultdict(list)
        by_id: dict[tuple[str, str], list[Attempt]] = defaultdict(list)
        for attempt in self.senders.attempts:
            if attempt.arrived_at >= 0 and attempt.delivery.kind != "hostile":
                for event in attempt.delivery.events:
                    attempts[where_of(attempt.delivery, event)].append(attempt)
                by_id[attempt.delivery.source, attempt.delivery.id].append(attempt)
        bodies = Counter(where[:2] for where in seen)
        for where, tps in seen.items():
            # A drain writes a second body that it cannot set aside, and again at the next start.
            is_written_anyway = bodies[where[:2]] > 1 and self.operators.done & UNABLE
            if where[1] and attempts[where] and not is_written_anyway and not self._may_repeat(attempts[where], tps):
                self.note("once", *where[:2], [(*each.partition.tp, each.offset, each.began) for each in tps])
        for (source, event_id), tried in by_id.items():
            taken = [each for each in tried if each.outcome in ("accepted", "spooled")]
            pairs = [(one, two) for one in taken for two in taken] if source == "drx" else []
            for one, two in pairs:
                if one.delivery.sha256 != two.delivery.sha256 and self._knew(one, two, seen):
                    self.note("one_body", event_id, one.outcome, "then", two.outcome, "at", two.start)
            if pairs and not self.operators.done & UNABLE and not self.operators.emptied:
                self._judge_bodies(taken, attempts, seen)

    def _judge_bodies(
        self,
        taken: Sequence[Attempt],
        attempts: Mapping[Where, Sequence[Attempt]],
        seen: Mapping[Where, Sequence[Seen]],
    ) -> None:
        """No process adds another body to the log under an id that it could find there, or had written itself."""
        hosts: dict[Where, set[str]] = defaultdict(set)
        for each in taken:
            hosts[where_of(each.delivery, each.delivery.events[0])].add(each.host)
        one, *others = sorted(hosts.keys() & seen.keys(), key=lambda where: seen[where][0].offset) or [("", "", "")]
        for other in others:
            first, second = seen[one][0], seen[other][0]
            is_own = first.writer is second.writer and hosts[one] & hosts[other]
            if first.partition is second.partition and (
                is_own or not self._may_repeat(attempts[other], (first, second))
            ):
                self.note("one_body", other[1], "stands in the log with two bodies, by", second.writer.name)

    def _knew(self, one: Attempt, two: Attempt, seen: Mapping[Where, Sequence[Seen]]) -> bool:
        """Return whether a process that accepted one body, or found it at its start, must refuse the other."""
        if one.host != two.host or one.arrived_at > two.arrived_at:
            return False
        where = where_of(one.delivery, one.delivery.events[0])
        # A repeat of a delivery that still waits for the disk gets the same response.
        tried = [each for each in self.senders.attempts if each.delivery is two.delivery and each.start == two.start]
        is_found = one.answered_at < two.arrived_at and all(each.finished for each in tried)
        if one.start != two.start and (self.operators.emptied or not is_found):
            written_at = min((each.visible_at for each in seen.get(where, ())), default=inf)
            is_spooled = one.outcome == "spooled" and 0 <= one.answered_at < two.arrived_at < written_at
            return is_spooled and two.takes and two.start not in self._forgot and not self._is_late(where)
        is_forgotten = any(one.answered_at <= at <= two.arrived_at for at in self._forgot.get(two.start, ()))
        if not (is_forgotten or self._is_late(where)):
            return True
        # What is spooled is forgotten when damage is found; the drain then sets the second body aside, unless both are
        # written at the same moment, or the disk fails.
        wheres = [where_of(each.delivery, each.delivery.events[0]) for each in (one, two)]
        bodies = sorted((seen[each][0] for each in wheres if each in seen), key=lambda each: each.visible_at)
        is_avoidable = len(bodies) == 2 and bodies[0].visible_at < bodies[1].began and not self.operators.done & UNABLE
        return is_avoidable and (bodies[0].writer is bodies[1].writer or not self._may_repeat([two], bodies))

    def _is_late(self, where: Where) -> bool:
        """Return whether an event may come later than others: set aside, locked, unreadable for long, or damaged."""
        return any(where in each for each in (*self._late.values(), *self._damaged.values()))

    def _may_repeat(self, attempts: Sequence[Attempt], tps: Sequence[Seen]) -> bool:
        """Return whether no process that wrote a repeat could know the event yet."""
        if any(each.is_unlooked for each in attempts) or self.lines["worker.recall_given_up"]:
            return True
        if tps[0].partition.tp[0] in self.operators.emptied:
            return True  # a replica that was cut off meanwhile reads on at its former offset
        return not any(
            self._was_known(attempts, tps[0].visible_at, each) for each in tps[1:] if each.partition is tps[0].partition
        )

    def _was_known(self, attempts: Sequence[Attempt], visible_at: float, repeat: Seen) -> bool:
        """Return whether a process could read an event before it decided to write it again."""
        at, name, began = visible_at + 1.0, repeat.writer.name, repeat.began
        if at < repeat.writer.began:
            return True  # a start first reads the topics to their ends
        host = name.partition(".")[0]
        arrived = [each.arrived_at for each in attempts if each.host == host and began - WAITS_S <= each.arrived_at]
        looked_at = min((each for each in arrived if each <= began), default=began - DRAINS_S)
        if looked_at == began - DRAINS_S and self._behind.get(name, -1.0) >= visible_at:
            return False
        stood_still = self.hosts[HOSTS.index(host)].stood_still
        for start, end, where in sorted(self.operators.troubles):
            is_anew = not arrived and start + ANEW_S < end < began and where != "lag" and not stood_still(start, end)
            if where in ("", "lag", host) and start - WAITS_S <= at and not is_anew:
                at = max(at, end + (FOLLOWS_S if arrived else CATCHES_UP_S))
        return at < looked_at

    def _judge_places(self) -> None:
        """Check that a key stays in one partition, for any number of partitions."""
        numbers: dict[tuple[str, bytes], int] = {}
        for topic, number, key in (
            (*each.tp, record.key) for each in self.kafka.partitions() for record in each.records
        ):
            if topic != UNRECOGNIZED_TOPIC and numbers.setdefault((topic, key), number) != number:
                self.note("in_order", "the key", key, "stands in two partitions of", topic)

    def _first(self) -> Mapping[Sequence[str], Attempt]:
        """Return by source and id of an event the attempt that arrived first."""
        arrived = [each for each in self.senders.attempts if each.arrived_at >= 0 and each.delivery.kind != "hostile"]
        first: dict[Sequence[str], Attempt] = {}
        for attempt in sorted(arrived, key=lambda each: each.arrived_at):
            for event in attempt.delivery.events:
                first.setdefault((attempt.delivery.source, event.id), attempt)
        return first

    def _judge_order(self, seen: Mapping[Where, Sequence[Seen]]) -> None:
        """Check that of two events of a key, the one that a process or host accepted first is first."""
        taken: dict[tuple[str, str, str], dict[Where, Attempt]] = defaultdict(dict)
        begun: dict[Where, float] = {}
        first = self._first()
        tps: dict[Where, set[str]] = defaultdict(set)
        for attempt in self.senders.attempts:
            for event in self._due(attempt):
                where = where_of(attempt.delivery, event)
                begun.setdefault(where, attempt.sent_at)
                if attempt.arrived_at >= 0:
                    tps[where].add(attempt.host)
                # Sources without ids have a rule of their own, and what is put back or replayed comes later.
                if attempt.outcome in ("accepted", "spooled") and event.id and not attempt.origin:
                    of_key = taken[attempt.delivery.source, event.key, attempt.host]
                    before = of_key.setdefault(where, attempt)
                    if attempt.answered_at < before.answered_at:
                        of_key[where] = attempt
        for attempts in taken.values():
            ordered = sorted(attempts.items(), key=lambda each: each[1].arrived_at)
            pairs = ((earlier, later) for n, earlier in enumerate(ordered) for later in ordered[n + 1 :])
            for (one, earlier), (two, later) in pairs:
                is_before = begun[two] > earlier.answered_at or _came_before(earlier, first[two[:2]], first)
                if not is_before or len(tps[two]) > 1 or self._is_late(one):
                    continue
                if _is_behind(seen.get(one), seen.get(two)):
                    self.note("in_order", later.delivery, "before", earlier.delivery, "at", later.start)

    def _judge_facts(self, seen: Mapping[Where, Sequence[Seen]]) -> None:
        """Check that the promised states of a record are in the log in their order."""
        facts: dict[str, dict[int, Attempt]] = defaultdict(dict)
        for attempt in self.senders.attempts:
            if attempt.delivery.source == "plain" and attempt.outcome in ("accepted", "spooled", "duplicate"):
                facts[attempt.delivery.key].setdefault(attempt.delivery.number, attempt)
        for key, promised in facts.items():
            if len({each.host for each in promised.values()}) > 1:
                continue  # each replica knows the other's last fact only once it has read it
            wheres = [where_of(each.delivery, each.delivery.events[0]) for each in promised.values()]
            if any(map(self._is_late, wheres)) or self.operators.emptied:
                continue
            at, before = -1, ""
            for number, attempt in sorted(promised.items()):
                digest = attempt.delivery.sha256
                if attempt.outcome in ("duplicate", "spooled") and digest == before:
                    continue
                before = digest
                found = [each.offset for each in seen.get(("plain", "", digest), ()) if each.offset > at]
                if not found:
                    self.note("facts", key, "number", number, attempt.outcome, "at", attempt.start)
                    break
                at = min(found)

    def _judge_newest(self, seen: Mapping[Where, Sequence[Seen]]) -> None:
        """Check what each process made of bodies without ids, in the order of their arrival."""
        arrived = [each for each in self.senders.attempts if each.delivery.source == "plain" and each.arrived_at >= 0]
        arrived.sort(key=lambda each: each.arrived_at)
        for name, key in {(each.start, each.delivery.key): None for each in arrived}:
            tried = [
                each
                for each in arrived
                if each.start == name and (each.delivery.key == key or each.delivery.word == "rx")
            ]
            run = list[Attempt]()  # attempts with the newest body
            for each in tried:
                others = [] if run and run[-1].delivery.sha256 == each.delivery.sha256 else run
                if each.outcome == "duplicate" and (others or not run) and all(other.promised for other in others):
                    self.note("newest", each.delivery, "is a duplicate after", *others[-1:], "at", name)
                run = [each] if others or not run else [*run, each]
                if each.outcome == "accepted" and len(run) > 1 and run[-2].promised and run[-2].outcome != "parked":
                    earlier = tried[: tried.index(run[0])]
                    if all(other.promised for other in earlier) and self._is_newest(run, seen):
                        self.note("newest", each.delivery, "is a second event at", name)

    def _is_newest(self, run: Sequence[Attempt], seen: Mapping[Where, Sequence[Seen]]) -> bool:
        """Return whether a process knew that the last of these attempts with one body repeats the first."""
        first, last = run[0], run[-1]
        is_soon = max(each.clock_s for each in run) - min(each.clock_s for each in run) < SOON_S
        if not (first.finished and is_soon) or self.lines["worker.recall_given_up"] or self._forgot.get(last.start):
            return False
        # What another process has written may be newer, once it is read.
        return not any(
            each.writer.name != last.start and first.arrived_at - READS_S < each.visible_at <= last.arrived_at
            for (source, _, _), records in seen.items()
            for each in records
            if source == "parked plain" or (source == "plain" and each.key == last.delivery.key)
        )

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
            appends = sum(len(each.appends) for each in writers._writers.values())
            left |= {"appends": appends, "blocked": writers.blocked, "oldest": spool.oldest_ms()}
            left |= {"in progress": metrics.registry.get_sample_value("drxbridge_http_inflight_requests") or 0}
            left |= Counter(type(each).__name__ for each in held(durability, host.port, kinds=(Accepted, Call)))
            if any(left.values()):
                self.note("at_rest", host.name, {name: count for name, count in left.items() if count})
            for name, check in durability.checks.items():
                if (result := check()) != "ok":
                    self.note("ready", host.name, name, result)
            values: Any = generate_latest(metrics.registry)
            if MARKER.encode() in values or b"kq7_" in values:
                self.note("no_phi", "metrics of", host.name)


def _came_before(one: Attempt, two: Attempt, first: Mapping[Sequence[str], Attempt]) -> bool:
    """Return whether a process got one before the other, and could accept it without waiting."""
    is_new = all(first.get((one.delivery.source, each.id)) is one for each in one.delivery.events)
    return is_new and one.start == two.start and one.arrived_at < two.arrived_at


def _is_behind(one: Sequence[Seen] | None, two: Sequence[Seen] | None) -> bool:
    """Return whether the first record of one is after that of the other, in the same partition."""
    return bool(one and two and one[0].partition is two[0].partition and one[0].offset > two[0].offset)


def places_of(identity: Identity) -> Sequence[Where]:
    """Return the lookup keys of a record: id and body, id alone, body alone."""
    source = f"parked {identity.source}" if identity.reason else identity.source
    return ((source, identity.id, identity.body_sha256), (source, identity.id, ""), (source, "", identity.body_sha256))
