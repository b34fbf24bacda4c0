"""What the index of an ingress knows of an id: pending, spooled, committed or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import sha256
from types import MappingProxyType
from typing import get_args

import pytest

from bridge.event import Identity, Reason, Settled
from bridge.known.known_ids import Known, KnownIds

WINDOW_S = 3600
START_S = 1_700_000_000.0
WINDOWS: Mapping[str, float] = MappingProxyType({"drx": WINDOW_S, "short": 600})


class Clock:
    """Unix seconds as a test says."""

    def __init__(self) -> None:
        """Start somewhere."""
        self.s = START_S

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dedupe(clock: Clock) -> KnownIds:
    return KnownIds(windows_s=WINDOWS, capacity=1000, now=clock)


def an_identity(event_id: str = "evt_1", *, body: bytes = b"{}", reason: str = "", source: str = "drx") -> Identity:
    return Identity(source, event_id, sha256(body).hexdigest(), reason)


EVENT = an_identity()
OTHER_BODY = an_identity(body=b"[]")
PARKED = an_identity(reason="malformed_json")
PARKED_OTHER_BODY = an_identity(body=b"[]", reason="unknown_type")


def test_an_unknown_id_is_fresh_and_pending_from_now_on(dedupe: KnownIds) -> None:
    assert dedupe.begin([EVENT]) == Known(fresh=(0,))
    assert len(dedupe) == 0


async def test_a_retry_attaches_to_what_is_pending(dedupe: KnownIds) -> None:
    dedupe.begin([EVENT])

    retries = [dedupe.begin([EVENT]) for _ in range(2)]
    dedupe.settled(EVENT, "committed")

    assert [(known.fresh, known.rival, known.conflict) for known in retries] == [((), None, False)] * 2
    assert [await future for known in retries for future in known.pending] == ["committed"] * 2


async def test_a_retry_that_is_given_up_takes_nobody_with_it(dedupe: KnownIds) -> None:
    dedupe.begin([EVENT])
    (given_up,) = dedupe.begin([EVENT]).pending
    (patient,) = dedupe.begin([EVENT]).pending

    given_up.cancel()
    dedupe.settled(EVENT, "spooled")

    assert await patient == "spooled"


@pytest.mark.parametrize("state", get_args(Settled))
async def test_another_body_waits_for_what_is_pending(dedupe: KnownIds, state: Settled) -> None:
    dedupe.begin([EVENT])

    known = dedupe.begin([OTHER_BODY])
    assert known.rival is not None
    assert (known.fresh, known.pending, known.conflict) == ((), (), False)
    dedupe.settled(EVENT, state)

    assert await known.rival == state
    again = dedupe.begin([OTHER_BODY])
    assert again == (Known(fresh=(0,)) if state == "failed" else Known(conflict=True))


@pytest.mark.parametrize("state", ["committed", "spooled"])
def test_a_repeat_of_what_is_durable_is_known(dedupe: KnownIds, state: Settled) -> None:
    dedupe.begin([EVENT])
    dedupe.settled(EVENT, state)

    assert dedupe.begin([EVENT]) == Known(spooled=state == "spooled")
    assert dedupe.begin([OTHER_BODY]) == Known(conflict=True)


def test_a_failure_is_forgotten(dedupe: KnownIds) -> None:
    dedupe.begin([EVENT])
    dedupe.settled(EVENT, "failed")

    assert dedupe.begin([OTHER_BODY]) == Known(fresh=(0,))


def test_only_what_is_durable_is_held(dedupe: KnownIds) -> None:
    """An id that was only seen would have its retry answered as a duplicate of nothing."""
    for number in range(10):
        dedupe.begin([an_identity(f"evt_{number}")])
    dedupe.settled(an_identity("evt_1"), "failed")
    dedupe.settled(an_identity("evt_2"), "committed")
    dedupe.settled(an_identity("evt_3"), "spooled")

    assert len(dedupe) == 2


def test_a_late_acknowledgement_counts(dedupe: KnownIds) -> None:
    """It was given up, and then the broker had written it after all."""
    dedupe.begin([EVENT])
    dedupe.settled(EVENT, "failed")

    dedupe.settled(EVENT, "committed")

    assert dedupe.begin([EVENT]) == Known()


def test_what_is_spooled_becomes_committed_and_never_goes_back(dedupe: KnownIds) -> None:
    dedupe.settled(EVENT, "spooled")
    assert not dedupe.committed_before(EVENT)

    dedupe.settled(EVENT, "committed")
    dedupe.settled(EVENT, "spooled")

    assert dedupe.committed_before(EVENT)
    assert dedupe.begin([EVENT]) == Known(spooled=False)


def test_of_two_bodies_the_first_one_stands(dedupe: KnownIds) -> None:
    dedupe.settled(EVENT, "spooled")
    dedupe.settled(OTHER_BODY, "committed")

    assert dedupe.begin([EVENT]) == Known(spooled=True)
    assert dedupe.begin([OTHER_BODY]) == Known(conflict=True)
    assert not dedupe.committed_before(OTHER_BODY)


@pytest.mark.parametrize(("source", "window_s"), WINDOWS.items())
def test_a_window_is_the_source_s_own(dedupe: KnownIds, clock: Clock, source: str, window_s: float) -> None:
    event = an_identity(source=source)
    dedupe.settled(event, "committed")

    clock.s = START_S + window_s - 1
    assert dedupe.begin([event]) == Known()
    clock.s = START_S + window_s
    assert dedupe.begin([event]) == Known(fresh=(0,))


def test_after_its_window_an_id_may_have_another_body(dedupe: KnownIds, clock: Clock) -> None:
    dedupe.settled(EVENT, "committed")
    clock.s += WINDOW_S

    assert dedupe.begin([OTHER_BODY]) == Known(fresh=(0,))
    dedupe.settled(OTHER_BODY, "spooled")

    assert dedupe.begin([OTHER_BODY]) == Known(spooled=True)
    assert dedupe.begin([EVENT]) == Known(conflict=True)


def test_what_is_spooled_is_not_forgotten_however_long(dedupe: KnownIds, clock: Clock) -> None:
    dedupe.settled(EVENT, "spooled")
    clock.s += 100 * WINDOW_S
    for number in range(100):
        dedupe.settled(an_identity(f"other_{number}"), "committed")

    assert dedupe.begin([EVENT]) == Known(spooled=True)


def test_the_window_of_what_was_spooled_begins_when_it_is_committed(dedupe: KnownIds, clock: Clock) -> None:
    dedupe.settled(EVENT, "spooled")
    clock.s += 100 * WINDOW_S

    dedupe.settled(EVENT, "committed")

    clock.s += WINDOW_S - 1
    assert dedupe.begin([EVENT]) == Known()
    clock.s += 1
    assert dedupe.begin([EVENT]) == Known(fresh=(0,))


def test_sources_are_strangers(dedupe: KnownIds) -> None:
    dedupe.settled(EVENT, "committed")

    assert dedupe.begin([an_identity(source="short")]) == Known(fresh=(0,))


def test_a_source_that_is_not_configured_any_more_can_still_be_settled(dedupe: KnownIds) -> None:
    """Its events may stand in the spool."""
    gone = an_identity(source="gone")

    dedupe.settled(gone, "spooled")
    dedupe.settled(gone, "committed")

    assert dedupe.committed_before(gone)


async def test_events_of_one_delivery_are_looked_at_one_by_one(dedupe: KnownIds) -> None:
    committed, spooled, pending, new = (an_identity(f"dlv/{number}") for number in range(4))
    dedupe.settled(committed, "committed")
    dedupe.settled(spooled, "spooled")
    dedupe.begin([pending])

    known = dedupe.begin([committed, spooled, pending, new])

    assert (known.fresh, len(known.pending), known.spooled, known.conflict) == ((3,), 1, True, False)
    assert len(dedupe.begin([new]).pending) == 1


@pytest.mark.parametrize("state", [None, "committed", "spooled"])
async def test_a_delivery_that_clashes_registers_nothing(dedupe: KnownIds, state: Settled | None) -> None:
    """Its other events would be pending for ever."""
    dedupe.begin([EVENT])
    if state is not None:
        dedupe.settled(EVENT, state)

    known = dedupe.begin([an_identity("new"), OTHER_BODY])

    assert (known.fresh, known.conflict) == ((), state is not None)
    assert dedupe.begin([an_identity("new")]) == Known(fresh=(0,))


async def test_one_id_twice_in_a_delivery_loses_neither(dedupe: KnownIds) -> None:
    """A bug of a profile, which must not cost an event."""
    assert dedupe.begin([EVENT, EVENT]).fresh == (0, 1)


@pytest.mark.parametrize("reason", get_args(Reason))
def test_a_parked_delivery_is_known_whatever_it_was_parked_for(dedupe: KnownIds, reason: Reason) -> None:
    parked = an_identity(reason=reason)
    assert dedupe.begin([parked]) == Known(fresh=(0,))
    dedupe.settled(parked, "committed")

    assert dedupe.begin([an_identity(reason="unusable")]) == Known()


@pytest.mark.parametrize("state", ["committed", "spooled"])
def test_a_spooled_parked_delivery_is_known_too(dedupe: KnownIds, state: Settled) -> None:
    dedupe.settled(PARKED, state)

    assert dedupe.begin([PARKED]) == Known(spooled=state == "spooled")


async def test_a_retry_of_a_pending_parked_delivery_attaches(dedupe: KnownIds) -> None:
    dedupe.begin([PARKED])

    known = dedupe.begin([PARKED])
    dedupe.settled(PARKED, "committed")

    assert known.fresh == ()
    assert [await future for future in known.pending] == ["committed"]


def test_a_repaired_body_after_a_parked_one_is_an_event(dedupe: KnownIds) -> None:
    dedupe.settled(PARKED, "committed")

    assert dedupe.begin([OTHER_BODY]) == Known(fresh=(0,))
    assert dedupe.begin([PARKED_OTHER_BODY]) == Known(fresh=(0,))


def test_parked_bodies_of_one_webhook_id_do_not_clash(dedupe: KnownIds) -> None:
    dedupe.begin([PARKED])
    assert dedupe.begin([PARKED_OTHER_BODY]) == Known(fresh=(0,))
    dedupe.settled(PARKED_OTHER_BODY, "committed")
    dedupe.settled(PARKED, "committed")

    assert dedupe.begin([PARKED]) == Known()
    assert dedupe.begin([PARKED_OTHER_BODY]) == Known()


def test_the_retry_of_a_conflict_is_recognised(dedupe: KnownIds) -> None:
    dedupe.settled(EVENT, "committed")
    conflict = OTHER_BODY._replace(reason="id_conflict")
    assert dedupe.begin([OTHER_BODY]).conflict
    assert dedupe.begin([conflict]) == Known(fresh=(0,))
    dedupe.settled(conflict, "committed")

    assert dedupe.begin([OTHER_BODY]).conflict
    assert dedupe.begin([conflict]) == Known()
    assert dedupe.begin([EVENT]) == Known()


def test_what_is_found_in_a_topic_is_known(dedupe: KnownIds) -> None:
    dedupe.recalled(EVENT, START_S - WINDOW_S + 1)
    dedupe.recalled(PARKED, START_S)

    assert dedupe.begin([EVENT]) == Known()
    assert dedupe.begin([OTHER_BODY]) == Known(conflict=True)
    assert dedupe.begin([PARKED]) == Known()


@pytest.mark.parametrize(
    ("identity", "at_s"),
    [
        (EVENT, START_S - WINDOW_S),
        (EVENT, -1.0),
        (an_identity(source="stranger"), START_S),
    ],
)
def test_what_is_too_old_or_not_ours_is_not_recalled(dedupe: KnownIds, identity: Identity, at_s: float) -> None:
    dedupe.recalled(identity, at_s)

    assert len(dedupe) == 0


@pytest.mark.parametrize("at_s", [START_S + 1e6, 1e18])
def test_a_receipt_in_the_future_counts_as_now(dedupe: KnownIds, clock: Clock, at_s: float) -> None:
    dedupe.recalled(EVENT, at_s)

    clock.s += WINDOW_S
    assert dedupe.begin([EVENT]) == Known(fresh=(0,))


def test_recall_does_not_shorten_a_window(dedupe: KnownIds, clock: Clock) -> None:
    dedupe.settled(EVENT, "committed")

    dedupe.recalled(EVENT, START_S - WINDOW_S / 2)

    clock.s += WINDOW_S - 1
    assert dedupe.begin([EVENT]) == Known()


def test_recall_finds_that_what_is_spooled_was_written(dedupe: KnownIds, clock: Clock) -> None:
    """The process died between the acknowledgement and the removal; the drain must not write it again."""
    dedupe.settled(EVENT, "spooled")

    dedupe.recalled(EVENT, START_S - 100 * WINDOW_S)

    assert dedupe.committed_before(EVENT)
    clock.s += WINDOW_S - 1
    assert dedupe.begin([EVENT]) == Known()


def test_recall_finds_what_is_spooled_of_a_source_that_is_not_configured(dedupe: KnownIds) -> None:
    """As heartbeats in `spool drain`, or what was accepted before a source was removed."""
    gone = EVENT._replace(source="gone")
    dedupe.settled(gone, "spooled")

    dedupe.recalled(gone, START_S)

    assert dedupe.committed_before(gone)


def test_recall_leaves_another_body_that_is_newer(dedupe: KnownIds) -> None:
    dedupe.settled(EVENT, "spooled")

    dedupe.recalled(OTHER_BODY, START_S)

    assert dedupe.begin([EVENT]) == Known(spooled=True)
    assert not dedupe.committed_before(EVENT)


async def test_recall_does_not_end_what_is_pending(dedupe: KnownIds) -> None:
    dedupe.begin([EVENT])

    dedupe.recalled(EVENT, START_S)

    (pending,) = dedupe.begin([EVENT]).pending
    assert not pending.done()
    dedupe.settled(EVENT, "failed")
    assert dedupe.begin([EVENT]) == Known()
    assert await pending == "failed"


def test_what_goes_before_its_time_is_counted(clock: Clock) -> None:
    early: list[None] = []
    dedupe = KnownIds(windows_s=WINDOWS, capacity=10, now=clock, evicted_early=lambda: early.append(None))

    for number in range(13):
        dedupe.settled(an_identity(f"evt_{number}"), "committed")

    assert (len(dedupe), len(early)) == (10, 3)
    assert dedupe.begin([an_identity("evt_12")]) == Known()
    assert dedupe.begin([an_identity("evt_2")]) == Known(fresh=(0,))


@pytest.mark.parametrize("s", [-1.0, 0.0, 4_294_967_295.0, 1e12])
def test_a_clock_that_is_out_of_its_mind_stops_nothing(dedupe: KnownIds, clock: Clock, s: float) -> None:
    clock.s = s

    dedupe.begin([EVENT])
    dedupe.settled(EVENT, "committed")

    assert dedupe.committed_before(EVENT)


async def test_an_index_keeps_no_future_of_those_who_have_left(dedupe: KnownIds) -> None:
    """A write may stay unknown for long, and its sender retries all the time."""
    dedupe.begin([EVENT])

    for _ in range(100):
        dedupe.begin([EVENT]).pending[0].cancel()

    (pending,) = dedupe._pending.values()
    assert len(pending.waiting) == 1
    assert isinstance(pending.waiting[0], asyncio.Future)


def test_what_is_plainly_new_begins_all_or_nothing(dedupe: KnownIds) -> None:
    second, third = an_identity("evt_2"), an_identity("evt_3")
    assert dedupe.begin_new([EVENT, second])

    assert not dedupe.begin_new([third, OTHER_BODY])
    assert not dedupe.begin_new([third, third])
    assert dedupe.begin_new([third])
    dedupe.settled(EVENT, "failed")
    assert dedupe.begin_new([OTHER_BODY])


@pytest.mark.parametrize("state", ["spooled", "committed"])
def test_what_is_durable_is_not_new_until_it_is_forgotten(dedupe: KnownIds, clock: Clock, state: Settled) -> None:
    dedupe.settled(EVENT, state)
    assert not dedupe.begin_new([EVENT])
    clock.s += WINDOW_S

    assert dedupe.begin_new([EVENT]) == (state == "committed")


def test_an_id_is_known_until_the_last_fraction_of_its_window(dedupe: KnownIds, clock: Clock) -> None:
    """With a window of twice the tolerance, a captured delivery is not stale before."""
    clock.s += 0.9
    dedupe.settled(EVENT, "committed")
    recalled = an_identity("evt_2")
    dedupe.recalled(recalled, clock.s)
    clock.s += WINDOW_S - 0.1

    assert dedupe.begin([EVENT]) == Known()
    assert dedupe.begin([recalled]) == Known()
