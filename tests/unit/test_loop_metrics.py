"""Metrics without locks count like the library's."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from bridge.runtime.metrics import LoopHistogram

BOUNDS = (0.5, 1.0, 10.0)


def exposed(kind: type[Histogram], amounts: list[float]) -> bytes:
    registry = CollectorRegistry()
    child = kind("x", "Text", ("route",), registry=registry, buckets=BOUNDS).labels("a")
    for amount in amounts:
        child.observe(amount)
    return generate_latest(registry)


@given(st.lists(st.sampled_from(BOUNDS) | st.floats(0, 20)))
def test_it_exposes_what_the_library_would(amounts: list[float]) -> None:
    """A value on a bound belongs to that bound's bucket."""
    ours, theirs = (  # the time of creation is another one
        [line for line in exposed(kind, amounts).splitlines() if b"_created" not in line]
        for kind in (LoopHistogram, Histogram)
    )

    assert ours == theirs


@given(st.lists(st.integers(0, 80).map(lambda quarters: quarters / 4)))
def test_many_at_once_count_as_one_by_one(amounts: list[float]) -> None:
    """Quarters, whose sum is the same in any order."""
    one_by_one, at_once = (LoopHistogram("x", "Text", registry=None, buckets=BOUNDS) for _ in range(2))
    for amount in amounts:
        one_by_one.observe(amount)
    at_once.observe_all(amounts)

    ours, theirs = (
        [
            (each.name, each.labels, each.value)
            for each in next(iter(metric.collect())).samples
            if "created" not in each.name
        ]
        for metric in (at_once, one_by_one)
    )
    assert ours == theirs
