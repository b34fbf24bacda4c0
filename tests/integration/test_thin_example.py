"""The consumer of docs/examples/thin reads the resource of a thin webhook from the vendor's API."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from consumers.api import Consumer, Setup
from consumers.testing import an_event, running
from tests.builders import SECRET
from tests.component.test_ingress import Ingress
from tests.component.test_ingress import running as an_ingress
from tests.endpoint import an_endpoint
from tests.installed import ROOT
from tests.unit.mapping_files import BODY, compiled

API_TOKEN = "of-the-vendor"


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "examples" / "thin"))
    yield import_module("fetch")
    sys.modules.pop("fetch")


@asynccontextmanager
async def a_bridge(fetch: Any, folder: Path, api: str) -> AsyncIterator[tuple[Ingress, Consumer]]:
    (folder / "token").write_text(API_TOKEN)
    (folder / "secret").write_text(f"{SECRET}\n")
    async with an_ingress(profile=compiled()) as ingress:
        options = {
            "source": "acme_thin",
            "api": f"{api}/prescriptions",
            "bridge": f"{ingress.url}/webhooks/drx",
            "token_file": str(folder / "token"),
            "secret_file": str(folder / "secret"),
            "allow_http": "true",
        }
        yield ingress, fetch.open_fetch(Setup(options, CollectorRegistry()))


async def test_what_a_thin_push_names_is_read_and_becomes_an_event(fetch: Any, tmp_path: Path) -> None:
    asked: list[tuple[str, str]] = []

    async def vendor(request: web.BaseRequest) -> web.StreamResponse:
        asked.append((request.path, request.headers["authorization"]))
        if len(asked) == 1:
            return web.Response(status=503)
        return web.Response(body=orjson.dumps(BODY))

    thin = an_event("other.reported", key="acme:7", reported_type="changed", source="acme_thin")
    other = an_event("other.reported", key="acme:8", reported_type="changed")
    async with an_endpoint(vendor) as api, a_bridge(fetch, tmp_path, api) as (ingress, consumer):
        async with running(consumer) as desk:
            await desk.feed(thin, other)
            assert desk.count("applied") == 2
        published = [events for _, events in ingress.publisher.published]

    assert set(asked) == {("/desk/prescriptions/7", f"Bearer {API_TOKEN}")}
    (events,) = published
    assert isinstance(events, tuple)
    (event,) = events
    assert (event.type, event.key) == ("fulfillment.status_changed", "acme:7")


def test_the_same_push_with_the_same_resource_is_the_same_delivery(fetch: Any) -> None:
    event = an_event("other.reported", reported_type="changed")
    ids = [fetch.signed(event, body, b"k")["webhook-id"] for body in (b"{}", b"{}", b"[]")]

    assert ids[0] == ids[1] != ids[2]
