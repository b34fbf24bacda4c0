"""Checks the promises of a run: a pure function of the senders' ledger, the log, and its effects.

Every 2xx is a promise. A delivery with another response, or none, may have an effect or not. A repeated record (with
the same event id) is counted but is not a fault, at any position: order is that of first occurrences.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from math import inf
from typing import Any, NamedTuple

import orjson

from tests.faults.ingress.ledger import HOSTILE, Attempt, Kind
from tests.oracle.states import expected_state

# Allowed responses to genuine deliveries, and to intruders.
_ANSWERS = {0, 200, 202, 503}
_REFUSALS = {0, 401, 503}
# Expected reasons of parked deliveries.
PARKED: Mapping[Kind, str] = {"conflict": "id_conflict", "unusable": "unknown_type"}

Identity = tuple[str, str]


class Logged(NamedTuple):
    """One record of the log, with the fields that promises concern."""

    place: tuple[str, int]  # topic and partition
    offset: int
    key: str
    event_id: str
    body_sha256: str  # lower-case hex, of the body as it was sent
    parked: bool  # true in the topic of parked deliveries
    clear: bytes  # everything except its value: it must not contain health information


@dataclass(slots=True)
class Effects:
    """The effects of a consumer, by prescription.

    `states` are its columns by the names of the model, `counts` the effects as the consumer counted them, and `events`
    the ids of those that had an effect.
    """

    states: Mapping[str, Mapping[str, Any]]
    counts: Mapping[str, int]
    events: Mapping[str, Sequence[str]]


@dataclass(slots=True)
class Verdict:
    """Broken promises by kind, with the ids of their events; all lists must be empty."""

    lost: list[str] = field(default_factory=list)  # promised, but not in the log, or without effect
    foreign: list[str] = field(default_factory=list)  # in the log or among the effects, but forged, stale or changed
    misordered: list[str] = field(default_factory=list)  # accepted before a later one of its key was sent, logged after
    answers: list[str] = field(default_factory=list)  # responses that the contract does not allow
    states: list[str] = field(default_factory=list)  # prescriptions whose state differs from the model
    unexplained: list[str] = field(default_factory=list)  # repeated events that the row's fault does not explain
    repeated: int = 0  # records that repeat an event; not a fault
    repeated_effects: int = 0  # effects beyond one for each event


def judge_log(
    attempts: Sequence[Attempt], log: Sequence[Logged], *, replicas: int = 1, may_repeat: AbstractSet[str] | None = None
) -> Verdict:
    """Compare the log with the senders' ledger.

    Between several replicas order is promised only for events that were not spooled. With `may_repeat`, no other ids
    may be in the log twice.
    """
    times = Counter((each.event_id, each.parked) for each in log)
    events = {(each.event_id, each.body_sha256) for each in log if not each.parked}
    parked = {(each.event_id, each.body_sha256) for each in log if each.parked}
    hashes = _hashes(attempts)
    issued = {hashes[id(each.delivery)] for each in attempts if each.kind not in HOSTILE}
    verdict = Verdict(
        answers=[_said(each) for each in attempts if not _allowed(each)],
        foreign=sorted(event_id for event_id, _ in {*events, *parked} - issued),
        repeated=times.total() - len(times),
    )
    if may_repeat is not None:
        verdict.unexplained = sorted({name for (name, _), count in times.items() if count > 1} - may_repeat)
    owed = [each for each in attempts if each.promised and each.kind not in HOSTILE]
    verdict.lost = sorted(
        {
            each.delivery.id
            for each in owed
            if hashes[id(each.delivery)] not in (parked if each.outcome == "parked" else events)
        }
    )
    ordered = [each for each in owed if replicas == 1 or each.outcome != "spooled"]
    verdict.misordered = _misordered(ordered, attempts, log)
    return verdict


def judge_effects(verdict: Verdict, attempts: Sequence[Attempt], log: Sequence[Logged], effects: Effects) -> None:
    """Compare the effects with the log, and the state of every prescription with the model; add to the verdict."""
    hashes = _hashes(attempts)
    bodies = {hashes[id(each.delivery)]: each.delivery.body for each in attempts}
    logged: dict[str, dict[str, bytes]] = {}
    for record in log:
        if not record.parked:
            # Of two bodies under one id the first is valid.
            logged.setdefault(record.key, {}).setdefault(
                record.event_id, bodies.get((record.event_id, record.body_sha256), b"")
            )
    for key, told in logged.items():
        seen = effects.events.get(key, ())
        verdict.lost += sorted(told.keys() - set(seen))
        verdict.repeated_effects += max(0, effects.counts.get(key, 0) - len(told)) + len(seen) - len(set(seen))
        state = expected_state(orjson.loads(body) for body in told.values() if body)
        if effects.states.get(key) != state:
            verdict.states.append(key)
    for key, seen in effects.events.items():
        verdict.foreign += sorted(set(seen) - logged.get(key, {}).keys())


def _hashes(attempts: Iterable[Attempt]) -> dict[int, Identity]:
    deliveries = {id(each.delivery): each.delivery for each in attempts}
    return {number: (each.id, each.sha256) for number, each in deliveries.items()}


def _allowed(attempt: Attempt) -> bool:
    if attempt.kind in HOSTILE:
        return attempt.status in _REFUSALS
    if attempt.promised and attempt.kind in PARKED:
        return (attempt.outcome, attempt.reason) == ("parked", PARKED[attempt.kind])
    # Its signature may have become too old by then.
    aged = attempt.stepped or attempt.kind == "replayed"
    return attempt.status in _ANSWERS or (aged and attempt.status in _REFUSALS)


def _misordered(owed: Iterable[Attempt], attempts: Iterable[Attempt], log: Sequence[Logged]) -> list[str]:
    """Find the events that are after one that was sent when they had already been promised.

    Also those in another partition than earlier events of the same prescription, since there is no order between
    partitions.
    """
    sent_at: dict[str, float] = {}
    for each in attempts:
        sent_at[each.delivery.id] = min(each.sent_at, sent_at.get(each.delivery.id, inf))
    promised_at: dict[str, float] = {}
    for each in owed:
        if each.outcome != "parked":  # these leave the order of their prescription
            promised_at[each.delivery.id] = min(each.answered_at, promised_at.get(each.delivery.id, inf))
    latest: dict[tuple[str, str], float] = {}
    partitions: dict[tuple[str, str], int] = {}
    found, seen = [], set()
    for record in log:
        if record.parked or record.event_id in seen:
            continue
        seen.add(record.event_id)
        topic, partition = record.place
        row = (topic, record.key)
        moved = partitions.setdefault(row, partition) != partition
        if moved or promised_at.get(record.event_id, inf) < latest.get(row, -inf):
            found.append(record.event_id)
        latest[row] = max(latest.get(row, -inf), sent_at.get(record.event_id, -inf))
    return found


def _said(attempt: Attempt) -> str:
    return f"{attempt.status} {attempt.reason} to {attempt.kind} {attempt.delivery.id}"
