"""Faults fire their alerts and no other page, alerts clear, and the documented queries return data."""

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby

import pytest

from tests.cluster import Cluster
from tests.faults.alerts.cases import CASES, Case
from tests.faults.alerts.results import RESULTS, Result
from tests.faults.alerts.servers import FACTOR
from tests.faults.alerts.site import Site, open_site
from tests.faults.ingress.results import keep
from tests.monitoring.queries import Query, queries
from tests.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

# Consumers that the installation does not have; its `desk` publishes nothing.
_ABSENT = "(archive|fhir|forward|hl7v2|outbox|workflow)"
_UNASKED = re.compile(f"drxbridge_{_ABSENT}_")


def asked() -> dict[str, list[str]]:
    found = [each for each in queries() if re.search(r"\.(md|json)", each.where) and not _UNASKED.search(each.text)]
    return {place: [each.text for each in some] for place, some in groupby(found, key=_place)}


def unanswered(site: Site, texts: Iterable[str]) -> list[str]:
    """Return the queries to which there was no answer at any time, not even zero."""
    now = time.time()
    return [text for text in texts if not _numbers(site.prometheus.series(text, since=site.began, until=now))]


def _place(query: Query) -> str:
    return query.where.partition(":")[0]


def _numbers(series: Sequence[Sequence[float]]) -> list[float]:
    return [value for values in series for value in values if not math.isnan(value)]


@pytest.fixture(scope="module")
def site(
    make_cluster: Callable[[int], Cluster],
    make_postgres: Callable[[], EmbeddedPostgres],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    with open_site(make_cluster, make_postgres, tmp_path_factory.mktemp("alerts")) as one:
        yield one


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}-{case.severity}")
def test_a_fault_fires_its_alert_and_no_other_page_and_it_clears(site: Site, case: Case) -> None:
    site.calm()
    inbox, before = site.inbox, site.inbox.count
    began = time.monotonic()
    with case.fault(site):
        fired = inbox.wait(case.alert, case.severity, firing=True, since=before)
    healed = time.monotonic()
    cleared = inbox.wait(case.alert, case.severity, firing=False, since=before)
    site.calm()
    site.played.add(case.title)

    came = [each for each in inbox.since(before) if each.firing]
    keep(
        Result(
            alert=case.alert,
            severity=case.severity,
            fault=case.title,
            factor=FACTOR,
            fired_s=round(fired.at - began, 1),
            cleared_s=round(max(0.0, cleared.at - healed), 1),
            others=sorted({each.name for each in came} - {case.alert}),
        ),
        RESULTS,
    )
    assert {each.name for each in came if each.severity == "page"} <= {case.alert, *case.consequences}
    assert [each.labels for each in came].count(fired.labels) == 1, "it came and went"


@pytest.fixture(scope="module")
def eventful(site: Site) -> Site:
    """Give it with something to see in every graph, whether or not the alerts have been tried before."""
    for case in CASES:
        if case.title not in site.played:
            with case.fault(site):
                site.seen()
            site.well()
    return site


@pytest.mark.parametrize(("place", "texts"), asked().items(), ids=asked())
def test_every_query_of_a_dashboard_and_of_a_page_has_an_answer(eventful: Site, place: str, texts: list[str]) -> None:
    del place
    assert unanswered(eventful, texts) == []
