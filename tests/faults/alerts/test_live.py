"""Faults fire their alerts and no other page, alerts clear, and the documented queries return data."""

import asyncio
import math
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.builders import a_body, signed_headers
from tests.cluster import Cluster
from tests.faults.alerts import faults
from tests.faults.alerts.cases import CASES, Case
from tests.faults.alerts.results import RESULTS, Result
from tests.faults.alerts.servers import FACTOR
from tests.faults.alerts.site import EVENTS, Site, open_site
from tests.faults.ingress.results import keep
from tests.integration.service_process import HANG_S
from tests.monitoring.queries import RUNBOOKS, Query, blocks, queries
from tests.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.kafka, pytest.mark.faults]

# Commands that only look: the others would change what the next one sees, and have tests of their own.
_LOOKING = (
    "drx-bridge config",
    "drx-bridge doctor",
    "drx-bridge spool status",
    "drx-bridge spool verify",
    "drx-bridge tail",
    "drx-bridge topics check",
    "drx-bridge verify",
    "drx-consumer lag",
    "drx-consumer parked list",
    "drx-consumer parked show",
)
# Consumers that the installation does not have; its `desk` publishes nothing.
_ABSENT = "(archive|fhir|forward|hl7v2|outbox|workflow)"
_UNASKED, _NOT_RUN = re.compile(f"drxbridge_{_ABSENT}_"), re.compile(rf"\b{_ABSENT}\b")
_MODULES = {"drx-bridge": "bridge", "drx-consumer": "consumers"}


class Done(NamedTuple):
    code: int
    said: str


def asked() -> dict[str, list[str]]:
    found = [each for each in queries() if re.search(r"\.(md|json)", each.where) and not _UNASKED.search(each.text)]
    return {place: [each.text for each in some] for place, some in groupby(found, key=_place)}


def unanswered(site: Site, texts: Iterable[str]) -> list[str]:
    """Return the queries to which there was no answer at any time, not even zero."""
    now = time.time()
    return [text for text in texts if not _numbers(site.prometheus.series(text, since=site.began, until=now))]


def commands() -> list[str]:
    lines = [line for page in RUNBOOKS for block in blocks(page, "sh") for line in block.strip().split("\n")]
    return sorted({line for line in lines if line.startswith(_LOOKING) and not _NOT_RUN.search(line)})


def run(site: Site, line: str, *, key: str, directory: Path) -> Done:
    """Run a command in the environment of the process that it is about, with real values for the words in capitals."""
    program, *arguments = shlex.split(line)
    env = site.ingress.env if program == "drx-bridge" else site.reader.env
    words = {"KEY": key, "TOPIC": EVENTS, "NAME": "read_model", **_a_delivery(site, directory)}
    return asyncio.run(_run(_MODULES[program], [words.get(each, each) for each in arguments], env, directory))


def _place(query: Query) -> str:
    return query.where.partition(":")[0]


def _numbers(series: Sequence[Sequence[float]]) -> list[float]:
    return [value for values in series for value in values if not math.isnan(value)]


def _a_delivery(site: Site, directory: Path) -> dict[str, str]:
    body = a_body()
    (directory / "delivery.json").write_bytes(body)
    headers = signed_headers(body)
    return {
        "SECRETS": str(site.ingress.secrets_dir),
        "ID": headers["webhook-id"],
        "TIMESTAMP": headers["webhook-timestamp"],
        "SIGNATURE": headers["webhook-signature"],
    }


async def _run(module: str, arguments: Sequence[str], env: Mapping[str, str], directory: Path) -> Done:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, *arguments),
        env=dict(env),
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(HANG_S):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, out.decode())


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
