"""What `/metrics` promises: its names, both its formats, and that no sender can make it grow."""

from __future__ import annotations

import asyncio
import random
import string
from collections.abc import Callable, Iterable, Iterator

import aiohttp
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from bridge.runtime.metrics import IngressMetrics
from tests.builders import a_body, signed_headers
from tests.cluster import Cluster, Topics
from tests.integration.ingress_process import IngressProcess, Reply, ask
from tests.integration.service_process import HANG_S

pytestmark = pytest.mark.kafka

# Of one process, whatever is sent.
SERIES_MAX = 1_500
REQUESTS = 10_000
AT_ONCE = 32
METHODS = ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "PROPFIND")
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

Parse = Callable[[str], Iterable[Metric]]


@pytest.fixture(scope="module")
def ingress(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[IngressProcess]:
    Topics(cluster.bootstrap_servers).standard()
    with IngressProcess(tmp_path_factory.mktemp("ingress"), cluster.bootstrap_servers, LOG__LEVEL="error") as one:
        yield one.ready()


async def scrape(ingress: IngressProcess, accept: str = "text/plain") -> Reply:
    async with aiohttp.ClientSession() as session:
        return await ask(session, f"{ingress.management_url}/metrics", headers={"accept": accept})


def series(reply: Reply) -> set[str]:
    """Name and labels of every line that holds a value."""
    return {line.rpartition(" ")[0] for line in reply.body.decode().splitlines() if not line.startswith("#")}


def answered(reply: Reply, **labels: str) -> float:
    """Requests counted under some labels."""
    samples = [each for family in parse_text(reply.body.decode()) for each in family.samples]
    return sum(
        each.value
        for each in samples
        if each.name == "drxbridge_http_requests_total" and labels.items() <= each.labels.items()
    )


def word(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_lowercase + string.digits + "._-", k=rng.randint(1, 30)))


async def send_anything(session: aiohttp.ClientSession, ingress: IngressProcess, rng: random.Random) -> int:
    """Make one request with an open word where a label might be tempted to take it; return its status."""
    path, method, body = f"/webhooks/{ingress.source}", "POST", a_body()
    webhook_id = f"evt_{word(rng)}"
    headers = signed_headers(body, webhook_id=webhook_id)
    match rng.randrange(6):
        case 0:
            path = f"/{word(rng)}/{word(rng)}?{word(rng)}={word(rng)}"
        case 1:
            path = f"/webhooks/{word(rng)}"
        case 2:
            body = a_body(id=webhook_id, type=word(rng), data_prescription_id=word(rng))
            headers = signed_headers(body, webhook_id=webhook_id)
        case 3:
            method = rng.choice((*METHODS, word(rng).strip("._-").upper() or "X"))
        case 4:
            headers[rng.choice(("content-type", "content-encoding", "webhook-signature"))] = word(rng)
        case _:
            body = a_body(id=webhook_id, source=word(rng), account_id=word(rng), **{word(rng): word(rng)})
            headers = signed_headers(body, webhook_id=webhook_id)
    return (await ask(session, ingress.url + path, method=method, data=body, headers=headers)).status


async def test_nothing_that_is_sent_makes_a_new_series(ingress: IngressProcess) -> None:
    """Every series is there from the start, so that a rate sees the first of anything, and none ever comes."""
    before = await scrape(ingress)
    statuses: set[int] = set()

    async def send(seed: int) -> None:
        rng = random.Random(seed)  # noqa: S311 - test traffic
        for _ in range(REQUESTS // AT_ONCE + 1):
            statuses.add(await send_anything(session, ingress, rng))

    connector = aiohttp.TCPConnector(limit=AT_ONCE)
    async with asyncio.timeout(HANG_S), aiohttp.ClientSession(connector=connector) as session:
        await asyncio.gather(*map(send, range(AT_ONCE)))

    after = await scrape(ingress)
    assert answered(after) - answered(before) >= REQUESTS
    assert {200, 202, 401, 404, 405, 415} <= statuses
    assert not {status for status in statuses if status >= 500}
    # Words of senders are bounded by themselves.
    assert {each for each in series(after) if "other_reported" not in each} == series(before)
    assert len(series(after)) <= SERIES_MAX


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        ("*/*", "text/plain", parse_text),
        ("text/plain;version=0.0.4", "text/plain", parse_text),
        (OPENMETRICS, "application/openmetrics-text", parse_openmetrics),
        (f"{OPENMETRICS};q=0.7,text/plain;q=0.5", "application/openmetrics-text", parse_openmetrics),
    ],
)
async def test_either_format_is_given_to_who_asks_for_it(
    ingress: IngressProcess, accept: str, content_type: str, parse: Parse
) -> None:
    reply = await scrape(ingress, accept)

    assert reply.status == 200
    assert reply.headers["Content-Type"].split(";")[0] == content_type
    names = {family.name for family in parse(reply.body.decode())}
    assert "drxbridge_http_requests" in {name.removesuffix("_total") for name in names}


async def test_every_family_is_there_under_our_prefix_from_the_start(ingress: IngressProcess) -> None:
    wanted = {family.name for family in IngressMetrics(CollectorRegistry()).registry.collect()}

    parse: Parse = parse_openmetrics
    families = {family.name for family in parse((await scrape(ingress, OPENMETRICS)).body.decode())}

    assert families == wanted
    assert {name.partition("_")[0] for name in families} == {"drxbridge", "process", "python"}


async def test_counters_tell_what_was_answered(ingress: IngressProcess) -> None:
    before = await scrape(ingress)
    body = a_body(type="no such type")
    async with aiohttp.ClientSession() as session:
        for sent in (signed_headers(body), signed_headers(body), signed_headers(b"another")):
            await ask(session, ingress.webhook_url, method="POST", data=body, headers=sent)
        await ask(session, f"{ingress.url}/elsewhere")
    reader, writer = await asyncio.open_connection(*ingress.url.removeprefix("http://").split(":"))
    writer.write(b"no HTTP\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()
    after = await scrape(ingress)

    def gained(**labels: str) -> float:
        return answered(after, **labels) - answered(before, **labels)

    assert gained(route="/webhooks/{source}", method="POST", outcome="parked", code="") == 2
    assert gained(outcome="refused", code="signature_mismatch") == 1
    assert gained(route="other", method="other", outcome="refused", code="not_found") == 1
    assert gained(route="other", method="other", outcome="refused", code="malformed_http") == 1
    assert gained() == 5
