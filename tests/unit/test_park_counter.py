import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.runtime.park_limit import ParkCounter, ParkLimitError


def test_no_more_than_its_share_is_parked() -> None:
    counter = ParkCounter(last=20, percent=10)

    counter.note(parked=1)
    with counter.room():
        assert counter.left == 0
        with pytest.raises(ParkLimitError), counter.room():
            pytest.fail("there is no room")


def test_what_was_not_parked_after_all_is_not_counted() -> None:
    counter = ParkCounter(last=20, percent=10)

    with pytest.raises(ZeroDivisionError), counter.room():
        _ = 1 / 0

    assert counter.left == 2


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 50), st.integers(0, 100))
def test_it_counts_the_last_records(parked: list[bool], last: int, percent: int) -> None:
    counter = ParkCounter(last=last, percent=percent)
    for each in parked:
        counter.note(parked=each, other=not each)

    assert counter.left == max(0, last * percent // 100 - sum(parked[-last:]))
