"""Smuggling through HAProxy and nginx: a request that a proxy forwards is one request for the ingress."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest

from bridge.runtime.http_server import Request
from tests.builders import signed_headers
from tests.component.test_ingress import Ingress, request_bytes, running
from tests.component.test_raw_http import played
from tests.integration.proxies import POOLING, proxying
from tests.raw_http import RawCase, a_delivery, raw_cases, statuses

# What comes after a case, each on a connection of its own: anything left behind on a connection between proxy and
# ingress would be answered to one of them.
VICTIMS = 3
# Of a proxy whose connection the ingress has just closed; its client may try again.
BAD_GATEWAY = 502
ATTEMPTS = 3


class Counted:
    """An ingress behind a proxy that counts the requests that it reads."""

    def __init__(self, ingress: Ingress, port: int, patch: pytest.MonkeyPatch) -> None:
        self.ingress = ingress
        self.public = replace(ingress, port=port)
        self.read = 0
        begin = Request.__init__

        def counting(request: Request, *given: Any) -> None:  # also for what is malformed
            self.read += 1
            begin(request, *given)

        patch.setattr(Request, "__init__", counting)

    async def answers(self, case: RawCase) -> list[tuple[int, str]]:
        received = await played(self.public, case)
        if not received.startswith(b"HTTP/1"):  # HAProxy goes on in HTTP/2
            return []
        found = statuses(received, head=case.parts[0].startswith("HEAD"))
        return [(code, _id(body)) for code, body in found if code >= 200]

    async def deliver(self, name: str) -> list[tuple[int, str]]:
        webhook_id, body = a_delivery(name)
        headers = [("Connection", "close"), *signed_headers(body, webhook_id=webhook_id).items()]
        text = request_bytes(body, headers).decode("latin-1")
        for _ in range(ATTEMPTS):
            answers = await self.answers(RawCase(name, (text,), (), ()))
            if [code for code, _ in answers] != [BAD_GATEWAY]:
                break
        return answers


@pytest.fixture
def directory() -> Iterator[Path]:
    """Of a short name: it holds a proxy's files."""
    with TemporaryDirectory(prefix="drx-proxy-") as path:
        yield Path(path)


@pytest.mark.parametrize("proxy", POOLING)
async def test_no_request_is_read_that_the_proxy_did_not_send(
    proxy: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[str] = []
    async with running() as ingress:
        with proxying(proxy, ingress.port, directory) as port:
            counted = Counted(ingress, port, monkeypatch)
            for case in raw_cases("smuggling"):
                faults += [f"{case.name}: {fault}" for fault in await faults_of(counted, case)]

    assert faults == []


async def faults_of(counted: Counted, case: RawCase) -> Iterator[str]:
    before, kept = counted.read, len(counted.ingress.publisher.published)
    answers = await counted.answers(case)
    victims = [f"victim_{number}_{case.name}" for number in range(VICTIMS)]
    served = [await counted.deliver(name) for name in victims]
    read = counted.read - before - VICTIMS
    taken = [delivery.id for delivery, _ in counted.ingress.publisher.published[kept:]]
    own, hidden = a_delivery(case.name)[0], a_delivery(f"smuggled_{case.name}")[0]
    expected = [a_delivery(name)[0] for name in victims]
    promised = [webhook_id for code, webhook_id in answers if 200 <= code < 300]

    def faults() -> Iterator[str]:
        if served != [[(200, webhook_id)] for webhook_id in expected]:
            yield f"victims got {served}"
        if read > max(len(answers), 1):  # whose sender breaks off is not answered
            yield f"{read} requests read, {len(answers)} answered: {answers}"
        if taken != promised + expected:
            yield f"taken {taken}, promised {promised}"
        if promised not in ([], [own], [hidden], [own, hidden]):
            yield f"promised {promised}"

    return faults()


def _id(body: bytes) -> str:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:  # the proxy's own
        return ""
    return str(answer.get("id", ""))
