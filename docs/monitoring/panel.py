"""A panel, the queries that many of them ask alike, and the panels of several dashboards; units are Grafana's."""
# ruff: noqa: INP001 - scripts beside their pages, no package

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

POSTS = 'route="/webhooks/{source}"'
RATE = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph.

    Attributes:
        title: What it shows.
        text: What to see in it.
        unit: Of its values.
        queries: Legend to query.
    """

    title: str
    text: str
    unit: str
    queries: Mapping[str, str]


def series(name: str, more: str = "") -> str:
    """Return a selector of what the dashboard is about."""
    return f'drxbridge_{name}{{namespace=~"$namespace"{"," if more else ""}{more}}}'


def rates(name: str, by: str, more: str = "") -> str:
    """Return how fast counters grow."""
    return f"sum by ({by}) (rate({series(name, more)}[{RATE}]))"


def most(name: str, by: str, more: str = "") -> str:
    """Return the largest of gauges."""
    return f"max by ({by}) ({series(name, more)})"


def total(name: str, by: str, more: str = "") -> str:
    """Return the sum of series as they stand."""
    return f"sum by ({by}) ({series(name, more)})"


def quantile(quantile: float, name: str, *, by: str = "", more: str = "") -> str:
    """Return a quantile of a histogram."""
    return f"histogram_quantile({quantile:g}, {rates(f'{name}_bucket', f'le, {by}' if by else 'le', more)})"


def ours(query: str) -> str:
    """Return what a query finds of our processes; every program with the client library has series of that name."""
    return f"{query}\nand on (namespace, instance) drxbridge_build_info"


def burn(slo: str, span: str, by: str) -> str:
    """Return how fast budgets burn, as recorded."""
    return f'max by ({by}) (drxbridge:slo_burn:rate{span}{{namespace=~"$namespace",slo=~"{slo}"}})'


DELIVERIES = Panel(
    "Deliveries by outcome",
    "What senders are answered.",
    "reqps",
    {"{{outcome}}": rates("http_requests_total", "outcome", POSTS)},
)
ANSWERS = Panel(
    "Time to the answer",
    "Objectives: 99 % within 250 ms, 99.9 % within 2 s.",
    "s",
    {
        "99 %": quantile(0.99, "http_request_duration_seconds", more=f'{POSTS},outcome!="refused"'),
        "99.9 %": quantile(0.999, "http_request_duration_seconds", more=f'{POSTS},outcome!="refused"'),
    },
)
APPLIED = Panel(
    "From Kafka to applied",
    "Objectives: 99 % within 5 s, 99.9 % within 60 s.",
    "s",
    {"{{service}} 99 %": quantile(0.99, "freshness_seconds", by="service", more='segment="kafka_to_applied"')},
)
SPOOLED = Panel(
    "Events on disk", "Durable and not in Kafka yet.", "short", {"{{instance}}": total("spool_events", "instance")}
)
LAG = Panel(
    "Lag",
    "Age of the oldest record not settled.",
    "s",
    {"{{service}} {{topic}}": most("consumer_lag_seconds", "service, topic")},
)
