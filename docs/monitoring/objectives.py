"""The objectives, as recorded burn rates: how many times faster than allowed a budget is being spent.

Source: Google, "The Site Reliability Workbook", chapter 5, "Multiwindow, Multi-Burn-Rate Alerts".
"""
# ruff: noqa: INP001 - scripts beside their pages, no package

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from docs.monitoring.alert import Alert, Severity

DELIVERIES = 'drxbridge_http_requests_total{route="/webhooks/{source}",outcome!="refused"}'
_UNAVAILABLE = 'drxbridge_http_requests_total{route="/webhooks/{source}",outcome="unavailable"}'
_ANSWERS = 'drxbridge_http_request_duration_seconds_{part}{{route="/webhooks/{{source}}",outcome!="refused"{more}}}'
# Consumers that wait for a batch to be full, on purpose; they are late by an alert of their own.
BATCHING = "archive([.].*)?"
_AGES = 'drxbridge_freshness_seconds_{part}{{segment="kafka_to_applied",service!~"' + BATCHING + '"{more}}}'


@dataclass(frozen=True, slots=True)
class Objective:
    """What may go wrong, and how often.

    Attributes:
        name: Value of the label `slo`.
        budget: Part of all that may be bad in thirty days.
        all: Selector of the counter of all.
        bad: Selector of the counter of what is bad; or with `good`, of what is not.
        by: Labels that are kept.
        good: Whether `bad` names the good ones.
    """

    name: str
    budget: float
    all: str
    bad: str
    by: str = "namespace"
    good: bool = False


def _within(name: str, budget: float, template: str, le: str, *, by: str = "namespace") -> Objective:
    whole = template.format(part="count", more="")
    return Objective(name, budget, whole, template.format(part="bucket", more=f',le="{le}"'), by=by, good=True)


# Promised: 99.95 % are accepted; 99 % answered in 250 ms and 99.9 % in 2 s; 99 % applied in 5 s and 99.9 % in 60 s.
OBJECTIVES = (
    Objective("availability", 0.0005, DELIVERIES, _UNAVAILABLE),
    _within("latency_250ms", 0.01, _ANSWERS, "0.25"),
    _within("latency_2s", 0.001, _ANSWERS, "2.0"),
    _within("freshness_5s", 0.01, _AGES, "5.0", by="namespace, service"),
    _within("freshness_60s", 0.001, _AGES, "60.0", by="namespace, service"),
)


@dataclass(frozen=True, slots=True)
class Window:
    """A pair of windows: the long one says that it matters, the short one that it still goes on."""

    long: str
    short: str
    factor: float
    hold: str
    severity: Severity


FAST = (Window("1h", "5m", 14.4, "2m", "page"), Window("6h", "30m", 6, "15m", "page"))
SLOW = (Window("1d", "2h", 3, "1h", "ticket"), Window("3d", "6h", 1, "3h", "ticket"))
# At night one failure may be a large part of all; so few are no outage yet, and heartbeats alone soon make more.
BAD_MIN = 10


def recordings() -> list[dict[str, object]]:
    """Return the recording rules: a burn rate per window, and the bad ones counted over the long windows."""
    spans = dict.fromkeys(span for window in (*FAST, *SLOW) for span in (window.short, window.long))
    rates = [_rate(objective, span) for objective in OBJECTIVES for span in spans]
    counts = [_count(objective, window.long) for objective in OBJECTIVES for window in (*FAST, *SLOW)]
    return [*rates, *counts]


def burns(name: str, slos: str, windows: Sequence[Window], fault: str) -> list[Alert]:
    """Return an alert for each of the windows: the budget of an objective whose name is like `slos` burns too fast."""
    chosen = f'{{slo=~"{slos}"}}' if "*" in slos else f'{{slo="{slos}"}}'
    return [
        Alert(
            name,
            f"drxbridge:slo_burn:rate{each.long}{chosen} > {each.factor}\n"
            f"and drxbridge:slo_burn:rate{each.short}{chosen} > {each.factor}\n"
            f"and drxbridge:slo_bad:increase{each.long}{chosen} >= {BAD_MIN}",
            each.severity,
            f"{fault}: the error budget has burned {each.factor:g} times too fast for {each.long}",
            each.hold,
            {"window": each.long},
        )
        for each in windows
    ]


def _bad(objective: Objective, function: str, span: str) -> str:
    part = f"sum by ({objective.by}) ({function}({objective.bad}[{span}]))"
    return f"sum by ({objective.by}) ({function}({objective.all}[{span}])) - {part}" if objective.good else part


def _rate(objective: Objective, span: str) -> dict[str, object]:
    whole = f"sum by ({objective.by}) (rate({objective.all}[{span}]))"
    expression = f"({_bad(objective, 'rate', span)})\n  / ({whole} > 0) / {objective.budget}"
    return {"record": f"drxbridge:slo_burn:rate{span}", "labels": {"slo": objective.name}, "expr": expression}


def _count(objective: Objective, span: str) -> dict[str, object]:
    expression = _bad(objective, "increase", span)
    return {"record": f"drxbridge:slo_bad:increase{span}", "labels": {"slo": objective.name}, "expr": expression}
