from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import aiohttp
import pytest

from tests.builders import a_body
from tests.cluster import Cluster, Topics
from tests.collector import Collector, collecting, through_otelcol
from tests.integration.consumer_process import ConsumerProcess, install_code
from tests.integration.ingress_process import IngressProcess, deliver
from tests.integration.service_process import until

pytestmark = pytest.mark.kafka

CODE = """
from pathlib import Path
from consumers.api import Batches, Consumer
consumer = Consumer(name="desk", topics=["drx.prescriptions.v1"], mode=Batches(), group="{group}")
@consumer.handler
async def handle(placed, connection):
    if any(event.key == "{key}" for event, _ in placed):
        Path("{seen}").touch()
"""


def straight(collector: Collector, _: Path) -> AbstractContextManager[str]:
    return nullcontext(collector.url)


@pytest.mark.parametrize("by", [straight, through_otelcol])
async def test_the_span_of_a_consumer_is_linked_to_that_of_the_ingress(
    cluster: Cluster,
    topics: Topics,
    postgres: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    by: Callable[[Collector, Path], AbstractContextManager[str]],
) -> None:
    Topics(cluster.bootstrap_servers).standard()
    key = topics.unique_key("rx")
    with collecting() as collector, by(collector, tmp_path / "otelcol.log") as url:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        # Others have written to the topic, and a batch has more of their records than links by default.
        monkeypatch.setenv("OTEL_SPAN_LINK_COUNT_LIMIT", "100000")
        with IngressProcess(tmp_path / "ingress", cluster.bootstrap_servers) as ingress:
            ingress.ready()
            async with aiohttp.ClientSession() as session:
                body = a_body(data_prescription_id=key)
                assert (await deliver(session, ingress, body, webhook_id="evt_1")).status == 200
            code = CODE.format(group=topics.unique_key("group"), key=key, seen=tmp_path / "seen")
            env, servers = install_code(tmp_path / "package", "desk", code), cluster.bootstrap_servers
            with ConsumerProcess(tmp_path, "desk", bootstrap_servers=servers, dsn=postgres, env=env) as desk:
                until((tmp_path / "seen").exists, what="the event at the handler")
                assert await desk.end() == 0
            assert await ingress.end() == 0

    (line,) = ingress.lines("delivery.accepted")
    (received,) = [span for span in collector.spans("receive") if span.trace_id.hex() == line["trace_id"]]
    links = [link for span in collector.spans("settle") for link in span.links]
    assert (received.trace_id, received.span_id) in {(link.trace_id, link.span_id) for link in links}
