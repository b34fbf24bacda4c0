from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumers.runtime.breaker import ParkBreaker


def test_it_opens_when_more_than_its_share_was_parked() -> None:
    breaker = ParkBreaker(last=20, percent=10)

    breaker.note(parked=2)
    before = breaker.open
    breaker.note(parked=1)

    assert (before, breaker.open) == (False, True)


def test_what_was_parked_long_ago_counts_no_more() -> None:
    breaker = ParkBreaker(last=20, percent=10)
    breaker.note(parked=2)
    breaker.note(other=20)

    breaker.note(parked=2)

    assert (breaker.open, breaker.left) == (False, 0)


def test_it_goes_on_counting_where_an_earlier_life_ended() -> None:
    breaker = ParkBreaker(last=20, percent=10)

    breaker.seed([19, 4])
    before = breaker.left
    breaker.note(other=1)

    assert (before, breaker.left) == (0, 1)


@given(st.lists(st.booleans(), max_size=200).filter(any), st.integers(1, 50), st.integers(0, 100))
def test_ages_say_all_about_an_earlier_life(parked: list[bool], last: int, percent: int) -> None:
    lived, seeded = ParkBreaker(last=last, percent=percent), ParkBreaker(last=last, percent=percent)
    for each in parked:
        lived.note(parked=each, other=not each)
    seeded.seed([len(parked) - 1 - number for number, each in enumerate(parked) if each])

    assert (seeded.open, seeded.left) == (lived.open, lived.left)


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 50), st.integers(0, 100))
def test_it_counts_the_last_records(parked: list[bool], last: int, percent: int) -> None:
    breaker = ParkBreaker(last=last, percent=percent)
    for each in parked:
        breaker.note(parked=each, other=not each)

    assert breaker.open == (sum(parked[-last:]) > last * percent // 100)


def test_what_is_reserved_is_no_more_to_be_had_until_it_is_given_back() -> None:
    breaker = ParkBreaker(last=100, percent=2)

    taken = [breaker.reserve() for _ in range(3)]
    breaker.note(parked=1)
    breaker.give_back()
    left = breaker.left
    breaker.give_back()

    assert (taken, left, breaker.left, breaker.open) == ([True, True, False], 0, 1, False)
