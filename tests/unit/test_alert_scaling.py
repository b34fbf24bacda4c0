"""Rules run faster by one factor: every span of time is divided by it, and nothing else is."""

from __future__ import annotations

import re

import pytest

from tests.faults.alerts.scaling import scaled, scaled_duration, scaled_query
from tests.monitoring.queries import RULES

FACTOR = 60
# What is no span of time in the shipped rules, however it is written: parts of all that there is, numbers of events,
# burn rates and budgets, a second look at a gauge that is 0 or 1, and how far off the clock of a sender is (60 s).
NO_SPANS = {
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "6",
    "10",
    "60",
    "86400",
    "14.4",
    "0.0005",
    "0.001",
    "0.01",
    "0.05",
    "0.1",
    "0.5",
}
_NUMBER = re.compile(r"(?<![\w:.\[])\d+(?:\.\d+)?(?![\w.])")


def numbers(query: str) -> list[str]:
    return _NUMBER.findall(re.sub(r'"[^"]*"', '""', query))


def changed(query: str) -> tuple[set[str], set[str]]:
    """Return the numbers that scaling divides, and those that it leaves."""
    pairs = list(zip(numbers(query), numbers(scaled_query(query, FACTOR)), strict=True))
    return {one for one, other in pairs if one != other}, {one for one, other in pairs if one == other}


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("rate(a_total[5m]) > 0.05", "rate(a_total[5000ms]) > 0.05"),
        ("a unless a offset 1h", "a unless a offset 60000ms"),
        ("max_over_time(a[1h30m:1m])", "max_over_time(a[90000ms:1000ms])"),
        ("time() - min by (job) (a) > 120", "time() - min by (job) (a) > 2"),
        ("max by (job) (a_lag_seconds) > 300", "max by (job) (a_lag_seconds) > 5"),
        ("min(a) - time() < 14 * 86400", "min(a) - time() < 0.233333 * 86400"),
        ("predict_linear(a[15m], 3600) > b", "predict_linear(a[15000ms], 60) > b"),
        ("slo_burn:rate1h > 14.4 and slo:5m > 1", "slo_burn:rate1h > 14.4 and slo:5m > 1"),
        ('histogram_quantile(0.5, a{le="60",x="[5m]"}) > 60', 'histogram_quantile(0.5, a{le="60",x="[5m]"}) > 60'),
    ],
)
def test_spans_are_divided_and_nothing_else(query: str, wanted: str) -> None:
    assert scaled_query(query, FACTOR) == wanted


def test_a_span_that_cannot_be_said_is_refused() -> None:
    with pytest.raises(ValueError, match="1s cannot be divided by 7"):
        scaled_duration("1s", 7)


def test_an_alert_waits_less_and_says_the_same() -> None:
    rule = {"alert": "A", "expr": "a > 1", "for": "2m", "labels": {"window": "1h"}, "annotations": {"summary": "5m"}}

    (group,) = scaled({"groups": [{"name": "g", "rules": [rule]}]}, FACTOR)["groups"]

    assert group == {"name": "g", "rules": [{**rule, "for": "2000ms"}]}


def test_every_number_of_the_shipped_rules_is_known_to_be_a_span_or_none() -> None:
    """Whoever writes another number says here which of the two it is."""
    found = [changed(rule["expr"]) for group in RULES["groups"] for rule in group["rules"]]

    assert set().union(*(left for _, left in found)) == NO_SPANS
    assert set().union(*(spans for spans, _ in found)) == {"120", "300", "900", "1800", "3600", "14", "3"}
