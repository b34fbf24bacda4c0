import asyncio
import base64
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import aiohttp
import orjson
import pytest
from aiohttp import web

from bridge.contract.events import EVENT_MODELS
from bridge.contract.native import native_json
from bridge.dev.ports import free_port
from consumers.forward.consumer import open_forward
from consumers.runtime.circuit import OPEN_AFTER
from consumers.testing import Parked, an_event, running
from tests.endpoint import an_endpoint
from tests.incomplete import sample_events
from tests.integration.forward.node_receiver import FILES, NodeReceiver
from tests.kafka import until
from tests.node import node_packages
from tests.ports import listens

ROOT = Path(__file__).parents[3]
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()

Act = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    directory = tmp_path / "secrets"
    directory.mkdir()
    (directory / "current").write_text(SECRET)
    return directory


def options(url: str, secrets: Path, **more: str) -> dict[str, str]:
    return {"url": url, "allow_http": "true", "secrets_dir": str(secrets), **more}


def answers(status: int, body: bytes = b"") -> Act:
    async def act(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=status, body=body, headers={"Location": "/elsewhere"} if status < 400 else {})

    return act


async def resets(request: web.BaseRequest) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def says_nothing(_: web.BaseRequest) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def never_ends(request: web.BaseRequest) -> web.StreamResponse:
    """Answer 200 with a gigabyte, as far as the client reads."""
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(1024):
        try:
            await response.write(b"x" * 1024 * 1024)
        except ConnectionError:
            break
    return response


@dataclass
class Script:
    """Follows a script, a step for each POST, then accepts requests. A GET gets the next POST's response."""

    acts: list[Act]
    posts: list[tuple[str, bytes, dict[str, str]]] = field(default_factory=list)

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        act = self.acts[0] if self.acts else answers(204)
        if request.method == "POST":
            self.posts.append((request.path, body, {name.lower(): text for name, text in request.headers.items()}))
            del self.acts[:1]
        return await act(request)


def attempts(script: Script) -> list[str]:
    return [headers["webhook-id"] for _, _, headers in script.posts]


async def test_the_official_package_verifies_every_sample(secrets: Path) -> None:
    events = list(sample_events())
    assert {event.type for event in events} == set(EVENT_MODELS)
    with NodeReceiver(SECRET) as receiver:
        async with running(open_forward, options=options(receiver.url, secrets, types="*,system.ping")) as forward:
            await forward.feed(*events)
            assert await forward.parked() == []

    assert {each["headers"]["webhook-id"]: each["body"].encode() for each in receiver.taken} == {
        event.id: native_json(event.value) for event in events
    }
    assert len(receiver.requests) == len(events)
    one = receiver.requests[0]
    assert one["path"] == "/desk?tenant=7"
    assert one["headers"]["idempotency-key"] == one["headers"]["webhook-id"]
    assert one["headers"]["content-type"] == "application/json"
    assert one["headers"]["traceparent"].startswith("00-")
    assert one["headers"]["drx-topic"] in {"drx.prescriptions.v1", "drx.accounts.v1"}
    assert {"drx-partition", "drx-offset", "drx-ordinal", "webhook-timestamp"} <= one["headers"].keys()


async def test_the_receiver_of_the_page_verifies_and_prints_each_event(secrets: Path) -> None:
    node, home = node_packages(FILES, "forward")
    script = shutil.copy(ROOT / "docs/examples/forward/receiver.js", home)
    port = free_port()
    receiver = await asyncio.create_subprocess_exec(
        node, script, str(port), str(secrets / "current"), stdout=asyncio.subprocess.PIPE
    )
    url = f"http://127.0.0.1:{port}"
    events = [an_event("prescription.sent", key="rx_1", id=f"sample_{number}") for number in range(3)]
    try:
        await until(lambda: listens(port))
        async with running(open_forward, options=options(url, secrets)) as forward:
            await forward.feed(*events)
            assert await forward.parked() == []
        async with aiohttp.ClientSession() as session, session.post(url, data=native_json(events[0].value)) as answer:
            assert answer.status == 401
    finally:
        receiver.terminate()
        said, _ = await receiver.communicate()
    assert said.decode().splitlines() == [f"{event.id} prescription.sent rx_1" for event in events]


async def test_a_new_secret_signs_without_a_restart(secrets: Path) -> None:
    """The receiver has changed over already; what it refused until then is neither parked nor lost."""
    first, second = an_event("prescription.sent"), an_event("prescription.processed")
    with NodeReceiver(OTHER) as receiver:
        async with running(open_forward, options=options(receiver.url, secrets)) as forward:
            forward.offer(first, second)
            await until(lambda: receiver.requests)
            (secrets / "next").write_text(OTHER)
            await forward.settled()

            assert await forward.parked() == []

    assert {each["status"] for each in receiver.requests} == {204, 401}
    assert list(dict.fromkeys(each["headers"]["webhook-id"] for each in receiver.taken)) == [first.id, second.id]


@pytest.mark.parametrize("act", [answers(302), answers(503), resets, says_nothing])
async def test_an_endpoint_that_is_away_is_waited_for_and_gets_the_same_bytes_again(act: Act, secrets: Path) -> None:
    events = [an_event("prescription.sent"), an_event("prescription.processed")]
    script = Script([act, act])
    async with (
        an_endpoint(script) as url,
        running(open_forward, options=options(url, secrets, timeout_s="0.3")) as forward,
    ):
        await forward.feed(*events)

        assert await forward.parked() == []
        assert forward.count("applied") == 2

    *firsts, last = attempts(script)
    # After an answer that only a signed request can tell from another, a ping repeats the last one.
    assert (set(firsts), last) == ({events[0].id}, events[1].id)
    assert len(firsts) >= 3
    assert len({body for _, body, _ in script.posts[:-1]}) == 1
    assert {path for path, _, _ in script.posts} == {"/desk"}


@pytest.mark.parametrize(("status", "path"), [(500, ""), (404, "/{id}")])
async def test_what_may_work_later_is_tried_five_times_while_others_pass_and_parked(
    status: int, path: str, secrets: Path
) -> None:
    first, second = an_event("prescription.sent"), an_event("prescription.processed")
    others = (an_event("prescription.sent", key=f"rx_other_{number}") for number in count())
    posts: list[str] = []

    async def desk(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        posts.append(request.headers.get("webhook-id", ""))
        return web.Response(status=status if posts[-1] == first.id else 204)

    async with an_endpoint(desk) as url, running(open_forward, options=options(url, secrets, path=path)) as forward:
        forward.offer(first, second)
        async with asyncio.timeout(60):
            while not await forward.parked():
                forward.offer(next(others))
                await asyncio.sleep(0.01)
        await forward.settled()

        assert await forward.parked() == [
            Parked("rx_1", first.id, f"http_{status}"),
            Parked("rx_1", second.id, "key_parked"),
        ]
        assert (posts.count(first.id) >= 5, posts.count(second.id)) == (True, 0)


async def test_what_is_refused_for_good_is_parked_and_others_go_on(secrets: Path) -> None:
    refused, other = an_event("prescription.sent"), an_event("prescription.sent", key="rx_2")
    script = Script([answers(400, b"patient Ann Berry")])
    async with an_endpoint(script) as url, running(open_forward, options=options(url, secrets, lanes="1")) as forward:
        await forward.feed(refused)
        await forward.feed(other)

        assert await forward.parked() == [Parked("rx_1", refused.id, "http_400")]
        assert attempts(script) == [refused.id, other.id]
        assert "Berry" not in repr(await forward.fetch("select * from drx_consumer.parked_key"))


async def test_an_endless_answer_is_taken_for_what_its_status_says(secrets: Path) -> None:
    script = Script([never_ends])
    async with an_endpoint(script) as url, running(open_forward, options=options(url, secrets)) as forward:
        await forward.feed(an_event("prescription.sent"))

        assert forward.count("applied") == 1


async def test_a_receiver_that_refuses_to_be_asked_is_there(secrets: Path) -> None:
    """Gateways answer 403 to GET; a circuit that waited for another answer would never close again."""
    asked = 0

    async def gateway(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        await request.read()
        asked += 1
        if asked <= 2 * OPEN_AFTER:
            return web.Response(status=503)
        return web.Response(status=403 if request.method == "GET" else 204)

    events = [an_event("prescription.sent", key=f"rx_{number}") for number in range(8)]
    async with an_endpoint(gateway) as url, running(open_forward, options=options(url, secrets)) as forward:
        await forward.feed(*events)

        assert await forward.parked() == []
        assert forward.count("applied") == len(events)


async def test_an_event_that_alone_is_refused_waits_and_holds_up_no_other(secrets: Path) -> None:
    """As by a receiver that cannot verify some text: an operator may park it."""
    refused = an_event("prescription.sent", key="rx_refused")
    others = [an_event("prescription.sent", key=f"rx_{number}") for number in range(20)]
    mended = False

    async def desk(request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        refuses = request.headers.get("webhook-id") in {None, refused.id} and not mended
        return web.Response(status=401 if refuses else 204)

    async with an_endpoint(desk) as url, running(open_forward, options=options(url, secrets)) as forward:
        forward.offer(refused)
        await until(lambda: len(forward.calls) > 30)
        forward.offer(*others)
        await until(lambda: forward.count("applied") == len(others))
        mended = True
        await forward.settled()

        assert await forward.parked() == []


async def test_without_a_secret_that_counts_all_waits(secrets: Path) -> None:
    (secrets / "current").write_text(f"{SECRET}\naccept_until = 2026-01-01T00:00:00Z\n")
    event = an_event("prescription.sent")
    script = Script([])
    async with an_endpoint(script) as url, running(open_forward, options=options(url, secrets)) as forward:
        forward.offer(event)
        await until(lambda: len(forward.calls) > 1)
        assert script.posts == []
        (secrets / "current").write_text(SECRET)
        await forward.settled()

        assert await forward.parked() == []
    assert attempts(script) == [event.id]


async def test_filters_settle_what_they_keep_back(secrets: Path) -> None:
    sent, other = an_event("renewal.requested"), an_event("renewal.requested", account_id="acct_2")
    script = Script([])
    given = {"types": "renewal.*", "accounts": "acct_1", "when": "data.matched", "payload": "ids"}
    async with an_endpoint(script) as url, running(open_forward, options=options(url, secrets, **given)) as forward:
        unmatched = an_event("renewal.requested", matched=False)
        await forward.feed(an_event("prescription.sent"), other, unmatched, sent, sent)

        assert (forward.count("applied"), forward.count("duplicate")) == (3, 1)
        assert forward.count("parked") == 0

    ((_, body, _),) = script.posts
    assert body == native_json(sent.value, phi=False)


async def test_a_receiver_of_another_shape_gets_its_own_and_the_same_again(secrets: Path) -> None:
    puts: list[tuple[str, bytes, str]] = []

    async def orders(request: web.BaseRequest) -> web.StreamResponse:
        if request.method != "PUT":
            return web.Response(status=404)
        puts.append((request.raw_path, await request.read(), request.headers["idempotency-key"]))
        return web.Response(status=500 if len(puts) == 1 else 204)

    event = an_event("fill.status_changed", key="rx_1", note="m/ä ?")
    given = {
        "types": "fill.*",
        "method": "PUT",
        "path": "/orders/{data.prescription_id}/messages/{data.note}?by=drx",
        "body": "{status: data.fill_status, at: timestamp}",
    }
    async with an_endpoint(orders) as url, running(open_forward, options=options(url, secrets, **given)) as forward:
        await forward.feed(event, an_event("prescription.sent"))

        assert await forward.parked() == []
    said = {"at": orjson.loads(native_json(event.value))["timestamp"], "status": event.value["fill_status"]}
    put = ("/desk/orders/rx_1/messages/m%2F%C3%A4%20%3F?by=drx", orjson.dumps(said), event.id)
    assert puts == [put, put]
