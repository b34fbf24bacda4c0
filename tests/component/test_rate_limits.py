"""429 before verification, with `Retry-After`; verified deliveries are not refused."""

import pytest

from bridge.ingress.call import Source
from bridge.ingress.delivery_limits import AddressLimit, RateLimit
from bridge.proof.schemes.network import networks
from tests.builders import a_body, signed_headers
from tests.component.test_ingress import Ingress, a_source, request_bytes, running
from tests.waiting import until

REFUSED = {"outcome": "refused", "code": "rate_limited"}
# Slow enough that none of a test's deliveries comes back in time by itself.
SLOW = 1 / 1000


def limited(burst: int | None) -> Source:
    return a_source(limit=RateLimit(per_s=SLOW, burst=burst) if burst else None)


def refused_for_rate(ingress: Ingress) -> float | None:
    labels = {"route": "/webhooks/{source}", "method": "POST", "outcome": "refused", "code": "rate_limited"}
    return ingress.metrics.registry.get_sample_value("drxbridge_http_requests_total", labels)


async def statuses(ingress: Ingress, count: int, **sent: str) -> list[int]:
    body = a_body()
    heads = signed_headers(body) | {"x-forwarded-for": sent.get("forwarded", "")}
    path = f"/webhooks/{sent.get('name', 'drx')}"
    return [(await ingress.post(body, path=path, headers=heads))[0] for _ in range(count)]


async def test_a_source_that_sends_too_much_is_told_when_to_come_back() -> None:
    async with running(sources=[limited(2), a_source("other")]) as ingress:
        assert await statuses(ingress, 2) == [200, 200]
        async with ingress.session.post(f"{ingress.url}/webhooks/drx", data=b"{}") as answer:
            assert answer.status == 429
            assert await answer.json() == REFUSED
            assert 990 <= int(answer.headers["Retry-After"]) <= 1000
        assert await statuses(ingress, 3, name="other") == [200, 200, 200]

        assert refused_for_rate(ingress) == 1


async def test_it_comes_before_the_proof_and_before_the_body() -> None:
    async with running(sources=[limited(1)]) as ingress:
        assert (await ingress.post(headers={"content-type": "application/json"}))[0] == 401
        head = b"POST /webhooks/drx HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        refused = ingress.feed(head)
        await until(lambda: refused_for_rate(ingress) == 1)
        refused.connection_lost(None)  # else a stop waits for the rest of what was refused


async def test_an_address_that_sends_too_much_is_refused_for_every_source() -> None:
    limit = AddressLimit(RateLimit(per_s=SLOW, burst=2))
    async with running(sources=[a_source(), a_source("other")], address_limit=limit) as ingress:
        assert await statuses(ingress, 1) == [200]
        assert await statuses(ingress, 1, name="nobody") == [404]
        assert await statuses(ingress, 1, name="other") == [429]
        assert await statuses(ingress, 1, name="nobody") == [429]


@pytest.mark.parametrize("source_burst", [None, 2])
async def test_what_its_head_alone_has_refused_counts(source_burst: int | None) -> None:
    """For the address in any case, for a source where one is named."""
    limit = None if source_burst else AddressLimit(RateLimit(per_s=SLOW, burst=2), proxies=networks("127.0.0.0/8"))
    path = "/webhooks/drx" if source_burst else "/nowhere"
    async with running(sources=[limited(source_burst)], address_limit=limit) as ingress:
        doubled = request_bytes(b"{}", [("webhook-id", "a"), ("webhook-id", "b"), ("connection", "close")])
        assert (await ingress.raw(doubled)).startswith(b"HTTP/1.1 401 ")
        assert (await ingress.raw(doubled.replace(b"/webhooks/drx", path.encode()))).startswith(
            b"HTTP/1.1 401 " if source_burst else b"HTTP/1.1 404 "
        )
        assert await statuses(ingress, 1) == [429]
