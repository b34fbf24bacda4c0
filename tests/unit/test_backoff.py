"""Delays grow with each failure, have a limit, and are randomized."""

import pytest

from bridge.runtime.backoff import backoff_s


@pytest.mark.parametrize(("failures", "ceiling"), [(1, 0.25), (2, 0.5), (3, 1.0), (5, 4.0), (6, 5.0), (10**6, 5.0)])
def test_the_ceiling_doubles_up_to_its_bound(failures: int, ceiling: float) -> None:
    assert backoff_s(failures, first_s=0.25, max_s=5.0, spread=max) == ceiling
    assert backoff_s(failures, first_s=0.25, max_s=5.0, spread=min) == ceiling / 2


@pytest.mark.parametrize(("failures", "ceiling"), [(1, 0.4), (2, 0.8), (20, 30.0)])
def test_the_shortest_delay_may_be_fixed(failures: int, ceiling: float) -> None:
    ends = [backoff_s(failures, first_s=0.4, max_s=30.0, least_s=0.2, spread=spread) for spread in (min, max)]

    assert ends == [0.2, ceiling]


def test_it_draws_by_default() -> None:
    delays = [backoff_s(3, first_s=1.0, max_s=60.0) for _ in range(100)]

    assert all(2.0 <= each <= 4.0 for each in delays)
    assert len(set(delays)) > 1
