"""Faults fire their alerts and no other page, alerts clear, and what people are told to ask has an answer."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.faults.alerts import faults
from tests.faults.alerts.answers import asked, commands, run, unanswered
from tests.faults.alerts.cases import CASES, Case
from tests.faults.alerts.results import RESULTS, Result
from tests.faults.alerts.servers import FACTOR
from tests.faults.alerts.site import Site, open_site
from tests.faults.ingress.results import keep
from tests.integration.service_process import until
from tests.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.kafka, pytest.mark.faults]


@pytest.fixture(scope="module")
def site(
    make_cluster: Callable[[int], Cluster],
    make_postgres: Callable[[], EmbeddedPostgres],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """Give one installation to all faults, which leave it as they found it."""
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


@pytest.mark.parametrize(
    ("cause", "fault"), [("HeartbeatMissing", faults.kafka_frozen), ("ConsumerStuck", faults.database_killed)]
)
def test_one_cause_pages_once(site: Site, cause: str, fault: faults.Fault) -> None:
    site.calm()
    with fault(site):
        until(lambda: cause in site.pages(), what="the page of the cause")
        assert site.pages() == {cause}


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


@pytest.fixture(scope="module")
def parked(site: Site) -> Iterator[str]:
    with faults.parked(site) as key:
        yield key


@pytest.mark.parametrize("line", commands())
def test_a_command_of_a_page_runs(site: Site, line: str, parked: str, tmp_path: Path) -> None:
    """It ends well, or with 1 where it has found something."""
    done = run(site, line, key=parked, directory=tmp_path)

    assert done.code in {0, 1}, done.said
    assert "Traceback" not in done.said
