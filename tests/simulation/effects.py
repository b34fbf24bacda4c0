"""The promises of consumers by name, and their checks once a world of consumers is at rest."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bridge.errors import DecodeError
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.record import identity_of
from bridge.runtime.logging import Line, render
from consumers.api import ATTEMPTS
from consumers.app import ConsumerWorker
from consumers.read_model.history import prescription_of
from consumers.runtime.partition import KeyQueue
from tests.oracle.states import COLUMNS, expected_state
from tests.simulation.dialects import MARKER
from tests.simulation.held import held
from tests.simulation.loop import PROCESS
from tests.simulation.promises import BUGS, Broken, Where, places_of
from tests.simulation.sinks import DECODER, GROUPS, GUILTY, PUBLISHING, Effect

if TYPE_CHECKING:
    from tests.simulation.consuming import Scene

# The name of each promise, and what breaks it.
EFFECTS: Mapping[str, str] = {
    "applied": "an event that a consumer has neither applied nor parked, and that no operator gave up",
    "acknowledged": "an event that a sender was answered 2xx for, and that a consumer has not applied",
    "applied_once": "an event with two effects in PostgreSQL, or one that an operator had given up",
    "applied_in_order": "an effect of a key before that of an earlier record of the key",
    "parked_at_fault": "a key that is parked, and none of whose events is at fault",
    "state": "a row of the read model that is not what the oracle makes of the events",
    "published": "a published record that its topic lacks, that no effect has made, or that overtook an earlier one",
    "settled": "records or releases that nothing keeps and nobody settles, lost lanes, or progress not in the group",
}
# After any other kind of act, a handler outside the transaction may be called again for what it has done.
HARMLESS = {"refused", "bug", "stumbles", "slow", "poison", "retry", "resume", "offsets_lost", "backup", *PUBLISHING}
# Seconds for which work in progress may still hold records of a partition that was taken away.
HELD_S = 15.0


class Effects:
    """Checks one world."""

    def __init__(self, scene: "Scene") -> None:
        self._scene = scene
        self.broken = [*scene.before]
        self._gone: dict[KeyQueue, float] = {}  # of partitions that were taken away, by when that was first seen
        self.names = EFFECTS.keys() | {"no_bug", "no_phi"}

    def note(self, promise: str, *what: object) -> None:
        """Record a broken promise, once per cause."""
        assert promise in self.names
        found = Broken(promise, " ".join(map(str, what)))
        if found not in self.broken:
            self.broken.append(found)
            self._scene.world.note("BROKEN", *found)

    def logged(self, line: Line) -> None:
        """Check a log line when it is written."""
        event, process = line[2]["event"], PROCESS.get()
        shown = {name: value for name, value in line[2].items() if name not in ("event", "where", "hint", "group")}
        self._scene.world.note(
            process.name if process else "log", event, *(f"{n}={value}" for n, value in shown.items())
        )
        if event in BUGS:
            self.note("no_bug", event, *line[2].get("where", ())[-3:])
        text = render(line)
        if MARKER.encode() in text or b"kq7_" in text:
            self.note("no_phi", "log line", event)

    def _rows(self, query: str, *args: Any) -> list[Any]:
        return [tuple(each) for each in self._scene.postgres.server.rows(query, *args)]

    # At rest.

    def left(self) -> list[Any]:
        """Return the remaining work: unsettled partitions, requested releases, lanes that nothing takes records for."""
        progress = {(grp, TopicPartition(topic, part)): at for grp, topic, part, at in self._rows(_PROGRESS)}
        left: list[Any] = self._rows(
            "select grp, key from drx_consumer.parked_key where release_requested_at is not null"
        )
        left += self._rows("select grp, id, 'not published' from drx_consumer.outbox")
        left += [(each.name, "lost lanes") for each in self._scene.workers.values() if _has_lost_lanes(each.worker)]
        for name, group in self._scene.groups.items():
            for tp, records in group.kafka.logs.items():
                if progress.get((name, tp), -1) != len(records):
                    left.append((name, *tp, progress.get((name, tp)), len(records)))
                elif group.kafka.offsets.get(tp, 0) != len(records) and "offsets_lost" not in self._scene.plan.kinds:
                    left.append((name, *tp, "committed", group.kafka.offsets.get(tp)))
        return left

    def is_at_rest(self) -> bool:
        return not self.left() and all(
            each.worker is not None and all(check() == "ok" for check in each.worker.checks.values())
            for each in self._scene.workers.values()
        )

    def judge_held(self) -> None:
        """Check that no records are held for long after their partition was taken away."""
        now = self._scene.world.loop.time()
        for worker in self._scene.workers.values():
            if worker.is_frozen:
                continue
            queues = held(worker.worker, kinds=(KeyQueue,))
            gone = {each: self._gone.get(each, now) for each in queues if each.partition.gone}
            self._gone |= gone
            late = {each.partition.tp: since for each, since in gone.items() if now - since > HELD_S}
            if late:
                self.note("settled", worker.name, "still holds records of", *late)

    def judge_parked(self) -> None:
        """Check the parked records before any correction."""
        rows = self._rows(
            'select grp, topic, part, "offset", event_id, class, code, attempts, raised from drx_consumer.parked_event'
        )
        rivals = self._rivals()
        # The limit of attempts also counts the first failures of an outage, and deadlocks, which may be all of them.
        counts_others = not {"sinks.state", "postgres.fails"}.isdisjoint(self._scene.plan.kinds)
        guilty = (*GUILTY, "stumbles") if counts_others else GUILTY
        for group, topic, part, offset, event_id, cls, code, attempts, raised in rows:
            if MARKER in (raised or "") or "kq7_" in (raised or ""):
                self.note("no_phi", "raised", raised)
            record = self._scene.logs[TopicPartition(topic, part)][offset]
            is_struck = code == "deadlock" and "postgres.fails" in self._scene.plan.kinds and attempts >= ATTEMPTS
            is_guilty = is_struck or self._scene.sinks.guilt(event_id) in guilty or _value(record) is None
            if cls not in ("behind", "operator") and not is_guilty and event_id not in rivals:
                self.note("parked_at_fault", group, event_id, "at", topic, part, offset, cls, code)
        parked = {(grp, event_id) for grp, *_, event_id, _, _, _, _ in rows}
        self._judge_applied(parked)

    def judge(self) -> None:
        """Check the end, when no record is parked any more."""
        self._judge_applied(set())
        self._judge_acknowledged()
        self._judge_published()
        self._judge_state()

    def _effects(self, group: str) -> Sequence[Effect]:
        """Return the effects in their order."""
        return (
            self._scene.sinks.applied if group == "forward" else [Effect(*row) for row in self._rows(_EFFECTS, group)]
        )

    def _record(self, effect: Effect) -> ConsumedRecord:
        return self._scene.logs[TopicPartition(effect.topic, effect.partition)][effect.offset]

    def _wanted(self, group: str) -> Iterable[ConsumedRecord]:
        for records in self._scene.groups[group].kafka.logs.values():
            for each in records:
                if group != "forward" or each.header("ce_type") != "system.ping":
                    yield each

    def _rivals(self) -> set[str]:
        """Ids that are in the log with two bodies."""
        bodies: dict[str, set[str]] = defaultdict(set)
        for each in self._scene.log:
            bodies[each.header("ce_id")].add(each.header("drx_part_sha256") or each.header("drx_body_sha256"))
        return {event_id for event_id, found in bodies.items() if len(found) > 1}

    def _judge_applied(self, parked: set[tuple[str, str]]) -> None:
        for group in GROUPS:
            effects = self._effects(group)
            counts = Counter(each.event_id for each in effects)
            given_up = self._given_up(group)
            records: dict[str, list[ConsumedRecord]] = defaultdict(list)
            for each in self._wanted(group):
                records[each.header("ce_id")].append(each)
            for event_id, found in records.items():
                count = counts.pop(event_id, 0)
                is_readable = any(_value(each) is not None for each in found)
                if not count and is_readable and event_id not in given_up and (group, event_id) not in parked:
                    self.note("applied", group, "lacks", event_id, [each[:3] for each in found])
                may_repeat = group == "forward" and not HARMLESS.issuperset(self._scene.plan.kinds)
                if count > 1 and not may_repeat:
                    self.note("applied_once", group, "has", event_id, count, "times")
                if count and event_id in given_up and group != "forward":
                    self.note("applied_once", group, "has", event_id, "though it was given up")
            if counts:
                self.note("applied", group, "has what nobody sent", *counts)
            self._judge_order(group, effects)

    def _judge_acknowledged(self) -> None:
        """Follow each event from the response to its sender into every consumer that wants it."""
        ids = placed(self._scene.log)
        for group in GROUPS:
            done = {each.event_id for each in self._effects(group)} | self._given_up(group)
            passed = _ids(self._scene.log) - _ids(each for each in self._wanted(group) if _value(each) is not None)
            for where in sorted(self._scene.acknowledged):
                if not ids[where] & (done | passed):
                    self.note("acknowledged", group, "lacks", *where)

    def _judge_published(self) -> None:
        """Compare what `desk` has published, the first time each, with its effects by key."""
        published: dict[bytes, dict[str, None]] = defaultdict(dict)
        for partition in self._scene.notes.partitions():
            for each in partition.records:
                published[each.key].setdefault((each.value or b"").decode())
        wanted: dict[bytes, dict[str, None]] = defaultdict(dict)
        for effect in self._effects("desk") if self._scene.sinks.publishing else ():
            wanted[self._record(effect).key or b""].setdefault(effect.event_id)
        for key in published.keys() | wanted.keys():
            found = list(published[key])
            if "restore" in self._scene.plan.kinds:  # of effects that the backup did not have, and that were given up
                found = [each for each in found if each in wanted[key]]
            if found != list(wanted[key]):
                self.note("published", key, found, "for", [*wanted[key]])

    def _given_up(self, group: str) -> set[str]:
        found = {event_id for (event_id,) in self._rows(_GIVEN_UP, group)}
        # A ping takes its id, and has no effect in `forward`.
        pings = _ids(each for each in self._scene.log if each.header("ce_type") == "system.ping")
        return found | (pings & self._rivals()) if group == "forward" else found

    def _judge_order(self, group: str, effects: Sequence[Effect]) -> None:
        last: dict[Any, int] = defaultdict(int)
        seen = set[str]()
        for each in effects:
            if each.event_id in seen:
                continue
            seen.add(each.event_id)
            key = each.topic, each.partition, self._record(each).key
            if each.offset < last[key]:
                self.note("applied_in_order", group, *each, "after", last[key])
            last[key] = max(last[key], each.offset)

    def _judge_state(self) -> None:
        """Compare the read model with the oracle's."""
        events: dict[str, list[Any]] = defaultdict(list)
        for each in self._effects("read_model"):
            value = _value(self._record(each))
            key = prescription_of(value)
            if key is not None:
                events[key].append(value.value)
        rows = {row["prescription_id"]: row for row in self._scene.postgres.server.rows(_STATES)}
        for key in events.keys() | rows.keys():
            row = rows.get(key)
            expected = expected_state(events.get(key, ()))
            found = {name: row and row[column] for name, column in COLUMNS.items()}
            if row is None or found != expected or row["events"] != len(events[key]):
                different = {n: (found[n], expected[n]) for n in COLUMNS if found[n] != expected[n]}
                self.note("state", key, different, row and row["events"], len(events[key]))


def placed(records: Iterable[ConsumedRecord]) -> Mapping[Where, set[str]]:
    """Return the ids of the events that are in some records, by what their senders were answered for."""
    ids: dict[Where, set[str]] = defaultdict(set)
    for each in records:
        identity = identity_of(each.headers)
        for where in places_of(identity) if identity else ():
            ids[where].add(each.header("ce_id"))
    return ids


def _has_lost_lanes(worker: ConsumerWorker | None) -> bool:
    """Return whether a worker of key queues has ended before its process."""
    processor = worker._processor if worker else None
    if processor is None:
        return False
    alive = sum("KeyQueues._work" in repr(task.get_coro()) for task in processor._tasks._tasks)
    return alive < processor._key_queues._workers


def _ids(records: Iterable[ConsumedRecord]) -> set[str]:
    return {each.header("ce_id") for each in records}


def _value(record: ConsumedRecord) -> Any:
    """Return the event of a record; None if nobody can read it."""
    with suppress(DecodeError):
        return DECODER.decode(record)
    return None


_PROGRESS = "select grp, topic, part, next_offset from drx_consumer.progress"
_EFFECTS = 'select event_id, topic, part, "offset" from desk.effect where grp = $1 order by number'
_GIVEN_UP = "select event_id from drx_consumer.audit where grp = $1 and inbox_written"
_STATES = "select * from read_model.prescription"
