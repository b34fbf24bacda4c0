"""The state of an id in the index of an ingress: pending, spooled, committed or unknown."""

import asyncio
from hashlib import sha256

import pytest

from bridge.event import Identity, Settled
from bridge.known.known_ids import Known, KnownIds

WINDOW_S = 3600
START_S = 1_700_000_000.0


class Clock:
    def __init__(self) -> None:
        self.s = START_S

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dedupe(clock: Clock) -> KnownIds:
    return KnownIds(windows_s={"drx": WINDOW_S}, capacity=1000, now=clock)


def an_identity(event_id: str = "evt_1", *, body: bytes = b"{}", reason: str = "", source: str = "drx") -> Identity:
    return Identity(source, event_id, sha256(body).hexdigest(), reason)


EVENT = an_identity()
OTHER_BODY = an_identity(body=b"[]")


async def test_a_retry_that_is_given_up_takes_nobody_with_it(dedupe: KnownIds) -> None:
    dedupe.begin([EVENT])
    (given_up,) = dedupe.begin([EVENT]).pending
    (patient,) = dedupe.begin([EVENT]).pending

    given_up.cancel()
    dedupe.settled(EVENT, "spooled")

    assert await patient == "spooled"


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


@pytest.mark.parametrize(
    ("identity", "at_s"), [(EVENT, START_S - WINDOW_S), (EVENT, -1.0), (an_identity(source="stranger"), START_S)]
)
def test_what_is_too_old_or_not_ours_is_not_recalled(dedupe: KnownIds, identity: Identity, at_s: float) -> None:
    dedupe.recalled(identity, at_s)

    assert len(dedupe) == 0


def test_recall_finds_that_what_is_spooled_was_written(dedupe: KnownIds, clock: Clock) -> None:
    """The process died between the acknowledgement and the removal; the drain must not write it again."""
    dedupe.settled(EVENT, "spooled")

    dedupe.recalled(EVENT, START_S - 100 * WINDOW_S)

    assert dedupe.in_topic(EVENT)
    clock.s += WINDOW_S - 1
    assert dedupe.begin([EVENT]) == Known()


@pytest.mark.parametrize("s", [-1.0, 0.0, 4_294_967_295.0, 1e12])
def test_a_clock_that_is_out_of_its_mind_stops_nothing(dedupe: KnownIds, clock: Clock, s: float) -> None:
    clock.s = s

    dedupe.begin([EVENT])
    dedupe.settled(EVENT, "committed")

    assert dedupe.in_topic(EVENT)


async def test_an_index_keeps_no_future_of_those_who_have_left(dedupe: KnownIds) -> None:
    """A write may stay unknown for long, and its sender retries all the time."""
    dedupe.begin([EVENT])

    for _ in range(100):
        dedupe.begin([EVENT]).pending[0].cancel()

    (pending,) = dedupe._pending.values()
    assert len(pending.waiting) == 1
    assert isinstance(pending.waiting[0], asyncio.Future)


def test_an_id_is_known_until_the_last_fraction_of_its_window(dedupe: KnownIds, clock: Clock) -> None:
    """With a window of twice the tolerance, a captured delivery is not stale before."""
    clock.s += 0.9
    dedupe.settled(EVENT, "committed")
    recalled = an_identity("evt_2")
    dedupe.recalled(recalled, clock.s)
    clock.s += WINDOW_S - 0.1

    assert (dedupe.begin([EVENT]), dedupe.begin([recalled])) == (Known(), Known())
