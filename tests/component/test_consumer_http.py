"""Results of a handler's HTTP calls: a response, or the error that decides about its record."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from bridge.errors import BridgeError, ConfigError, PermanentError, TransientError
from consumers.http import RESPONSE_MAX_BYTES, HttpClient, RequestMetrics, judge, open_http
from tests.certificates import self_signed
from tests.endpoint import Handler, an_endpoint


@asynccontextmanager
async def a_session(handler: Handler, **options: object) -> AsyncIterator[HttpClient]:
    async with an_endpoint(handler) as url, open_http(url, allow_http=True, **options) as http:  # type: ignore[arg-type]  # as given
        yield http


def answering(status: int, body: bytes = b"") -> Handler:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        return web.Response(status=status, body=body, headers={"Location": "/elsewhere"} if status < 400 else {})

    return handler


async def test_a_request_goes_below_the_base_url_and_its_answer_comes_back() -> None:
    seen: list[tuple[str, str, str, str | None, bytes]] = []

    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        seen.append((request.method, request.path, request.content_type, request.headers.get("Idempotency-Key"), body))
        return web.Response(status=201, body=b"{}", headers={"ETag": "1"})

    async with a_session(handler) as http:
        answer = await http.post("/renewals", '{"a":1}', headers={"idempotency-key": "evt_1"})

    assert (answer.status, answer.headers["etag"], answer.body) == (201, "1", b"{}")
    assert seen == [("POST", "/desk/renewals", "application/json", "evt_1", b'{"a":1}')]


@pytest.mark.parametrize(
    ("statuses", "error", "systemic"),
    [
        ([301, 302, 307, 308, 401, 403, 404, 407, 408, 410, 425, 429, 502, 503, 504], TransientError, True),
        ([409, 412, 500, 501, 505, 507], TransientError, False),
        ([400, 402, 405, 406, 411, 413, 414, 415, 422, 451], PermanentError, False),
    ],
    ids=["the endpoint is away or refuses us", "may work later", "refused for good"],
)
def test_a_status_says_what_becomes_of_the_record(
    statuses: list[int], error: type[BridgeError], *, systemic: bool
) -> None:
    for status in statuses:
        with pytest.raises(error) as caught:
            judge(status)
        assert (caught.value.code, getattr(caught.value, "systemic", False)) == (f"http_{status}", systemic)


async def test_a_redirect_is_not_followed() -> None:
    async with a_session(answering(307)) as http:
        with pytest.raises(TransientError, match="http_307"):
            await http.post("", b"{}")


async def test_no_listener_is_systemic() -> None:
    async with an_endpoint(answering(200)) as url:
        pass
    async with open_http(url, allow_http=True) as http:
        with pytest.raises(TransientError, match="unreachable") as caught:
            await http.request("GET")

    assert caught.value.systemic


async def test_an_endpoint_that_says_nothing_is_systemic() -> None:
    release = asyncio.Event()

    async def handler(_: web.BaseRequest) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    async with a_session(handler, timeout_s=0.2) as http:
        with pytest.raises(TransientError, match="timeout") as caught:
            await http.request("GET")
        release.set()

    assert caught.value.systemic


async def test_an_endless_answer_is_cut_at_its_bound() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1000):
            try:
                await response.write(b"x" * RESPONSE_MAX_BYTES)
            except ConnectionError:
                break
        return response

    async with a_session(handler) as http:
        answer = await http.request("GET")

    assert len(answer.body) == RESPONSE_MAX_BYTES


async def test_a_certificate_that_is_not_trusted_is_no_outage_without_a_name(tmp_path: Path) -> None:
    tls, authority = self_signed(tmp_path)
    async with an_endpoint(answering(204), tls=tls) as url:
        async with open_http(url) as http:
            with pytest.raises(TransientError, match="tls"):
                await http.request("GET")
        async with open_http(url, ca_file=authority) as http:
            assert (await http.request("GET")).status == 204


@pytest.mark.parametrize(
    ("url", "options", "words"),
    [
        ("ftp://desk.test", {}, "https://"),
        ("https://", {}, "https://"),
        ("https://desk..test", {}, "https://"),
        (f"https://{'x' * 64}.test", {}, "https://"),
        ("https://[desk", {}, "https://"),
        ("https://desk.test:99999", {}, "https://"),
        ("http://desk.test", {}, "plain HTTP.*allow_http=True"),
        ("https://desk.test", {"ca_file": Path("missing.pem")}, "missing.pem"),
    ],
)
async def test_what_cannot_be_used_is_said_before_anything_is_sent(
    url: str, options: dict[str, Path], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        async with open_http(url, **options):  # type: ignore[arg-type]  # as given
            pass


@pytest.mark.parametrize(("status", "there"), [(200, True), (404, True), (405, True), (503, False), (401, False)])
async def test_a_ping_tells_whether_the_endpoint_answers(status: int, *, there: bool) -> None:
    async with a_session(answering(status)) as http:
        if there:
            await http.ping()
        else:
            with pytest.raises(TransientError):
                await http.ping()


async def test_every_request_is_counted_by_its_code() -> None:
    registry = CollectorRegistry()
    metrics = RequestMetrics(registry, name="desk", service="refill-desk")
    for status in (200, 503, 422):
        async with a_session(answering(status), metrics=metrics) as http:
            try:
                await http.post("", b"{}")
            except BridgeError:
                continue

    counted = {
        code: registry.get_sample_value("drxbridge_desk_requests_total", {"service": "refill-desk", "code": code})
        for code in ("ok", "http_503", "http_422")
    }
    assert counted == {"ok": 1, "http_503": 1, "http_422": 1}
    assert registry.get_sample_value("drxbridge_desk_request_duration_seconds_count", {"service": "refill-desk"}) == 3


async def test_a_status_that_is_asked_for_comes_back_with_its_body() -> None:
    async with a_session(answering(404, b"nothing here")) as http:
        answer = await http.request("GET", also=(404, 410))
        with pytest.raises(TransientError):
            await http.request("GET", also=(410,))

    assert (answer.status, answer.body) == (404, b"nothing here")
