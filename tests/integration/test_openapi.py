"""What docs/openapi.yaml says, asked of a running ingress by schemathesis: no answer but those of the page."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own
from prometheus_client.parser import text_string_to_metric_families

from bridge.contract.events import EVENT_MODELS
from tests.cluster import Cluster
from tests.integration.ingress_process import IngressProcess, ask
from tests.integration.openapi_hooks import SOURCE_VARIABLE

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("standard_topics")]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "openapi.yaml"
ROUTE = "/webhooks/{source}"
# The phase `coverage` breaks each member of each type in turn, ten thousand deliveries for all twenty. The shapes of
# these three are those that there are: about a prescription, a request that may have none, and about an account.
COVERED = ("fill.status_changed", "renewal.requested", "system.ping")
# Of random deliveries, of any type, as many that fit the page and as many that do not.
EXAMPLES = "50"
# What the page does not promise: a genuine body that is none of its schemas is parked by a 202, not refused.
NOT_PROMISED = "negative_data_rejection"
# A tenth of it suffices on an idle machine.
RUN_S = 300


def page_of(directory: Path, *types: str) -> Path:
    document: dict[str, Any] = yaml.safe_load(PAGE.read_text(encoding="utf-8"))
    event = document["components"]["schemas"]["Event"]
    event["oneOf"] = [{"$ref": f"#/components/schemas/{EVENT_MODELS[kind].__name__}"} for kind in types]
    event["discriminator"]["mapping"] = {kind: event["discriminator"]["mapping"][kind] for kind in types}
    path = directory / "openapi.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


async def ask_all(page: Path, url: str, source: str, *options: str) -> None:
    """Have schemathesis send what it makes up, and judge each answer by the page."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", str(page), "--url", url, "--max-examples", EXAMPLES),
        *("--checks", "all", "--exclude-checks", NOT_PROMISED, "--generation-deterministic", "--continue-on-failure"),
        *("--no-color", "--warnings", "off", *options),
        env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.integration.openapi_hooks", SOURCE_VARIABLE: source},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(RUN_S):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, said.decode()


async def answers(ingress: IngressProcess) -> Counter[str]:
    async with aiohttp.ClientSession() as session:
        text = (await ask(session, f"{ingress.management_url}/metrics")).body.decode()
    (found,) = (each for each in text_string_to_metric_families(text) if each.name == "drxbridge_http_requests")
    counted: Counter[str] = Counter()
    for sample in found.samples:
        counted[sample.labels["code"] or sample.labels["outcome"]] += int(sample.value)
    return +counted


async def test_every_answer_to_a_delivery_is_one_of_the_page(tmp_path: Path, cluster: Cluster) -> None:
    with IngressProcess(tmp_path / "ingress", cluster.bootstrap_servers) as ingress:
        await asyncio.to_thread(ingress.ready)
        page, only = page_of(tmp_path, *COVERED), ("--include-path", ROUTE)
        await ask_all(PAGE, ingress.url, ingress.source, *only, "--phases", "fuzzing")
        await ask_all(page, ingress.url, ingress.source, *only, "--phases", "coverage")
        found = await answers(ingress)

    assert found["accepted"] > 50
    assert found["parked"] > 100
    assert {"signature_missing", "id_malformed", "timestamp_malformed", "method_not_allowed"} <= found.keys()


async def test_every_answer_of_the_management_port_is_one_of_the_page(tmp_path: Path, cluster: Cluster) -> None:
    with IngressProcess(tmp_path, cluster.bootstrap_servers) as ingress:
        await asyncio.to_thread(ingress.ready)
        await ask_all(PAGE, ingress.management_url, ingress.source, "--exclude-path", ROUTE)
