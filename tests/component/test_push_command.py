"""`drx-bridge push` against a small real server: the posted deliveries, and its end after errors."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from bridge.commands.push import push
from bridge.errors import BridgeError, ConfigError
from bridge.proof.origin import verify_origin
from bridge.proof.scheme import Raw
from bridge.proof.schemes.standard_webhooks import StandardWebhooks
from bridge.sender import posting
from bridge.sender.sender import AHEAD_BYTES, Post, RetryPolicy, play
from tests.builders import SECRET, a_body, a_slot
from tests.endpoint import an_endpoint

CANARY = "Quintero"


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Configure a source, with short waits for an unreachable ingress."""
    directory = tmp_path / "secrets"
    directory.mkdir()
    (directory / "current").write_text(SECRET)
    for name, value in {"PROFILE": "drx_standard", "ENVIRONMENT": "sandbox", "SECRETS_DIR": directory}.items():
        monkeypatch.setenv(f"BRIDGE_SOURCES__DRX__{name}", str(value))
    monkeypatch.setattr(posting, "POLICY", RetryPolicy(attempts=2, delay_first_s=0.01))
    return directory


@asynccontextmanager
async def a_bridge(
    status: Callable[[bytes], int] = lambda _: 200,
) -> AsyncIterator[tuple[str, list[tuple[str, bytes]]]]:
    """Serve `/webhooks/drx`; yield its address and the ids and bodies that have come, in their order."""
    posted: list[tuple[str, bytes]] = []

    async def act(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        posted.append((request.headers["webhook-id"], body))
        heads = {name.lower().encode(): value.encode() for name, value in request.headers.items()}
        verify_origin(StandardWebhooks(), Raw(heads, body), [a_slot()], time.time())
        code = status(body)
        words = {"outcome": "accepted"} if code == 200 else {"outcome": "refused", "code": "signature_mismatch"}
        return web.json_response(words, status=code)

    async with an_endpoint(act) as url:
        yield url.removesuffix("/desk"), posted


async def run(tmp_path: Path, url: str, *lines: bytes, source: str = "drx") -> int:
    file = tmp_path / "history.ndjson"
    file.write_bytes(b"\n".join(lines))
    # Without the end of history, a broker is asked for the first live event.
    arguments = [str(file), "--source", source, "--url", url, "--until", "2100-01-01T00:00:00Z"]
    code = await asyncio.to_thread(push.main, arguments, standalone_mode=False)
    assert isinstance(code, int)
    return code


async def test_lines_are_posted_under_their_ids_and_in_the_order_of_their_key(tmp_path: Path) -> None:
    lines = [a_body(id=f"evt_{number}", data_prescription_id=f"rx_{number % 3}") for number in range(60)]
    async with a_bridge() as (url, seen):
        assert await run(tmp_path, url, *lines) == 0

    assert sorted(seen) == sorted((json.loads(line)["id"], line) for line in lines)
    for key in range(3):
        assert [body for _, body in seen if body in lines[key::3]] == lines[key::3]


async def test_a_prescription_line_by_line_takes_one_lane(tmp_path: Path) -> None:
    """The server answers nothing before the delivery of another one has come, which stands behind it in the file."""
    lines = [a_body(id=f"evt_{number}", data_prescription_id="rx_1") for number in range(20)]
    lines.append(a_body(id="evt_other", data_prescription_id="rx_2"))
    came = asyncio.Event()

    async def act(request: web.BaseRequest) -> web.Response:
        if request.headers["webhook-id"] == "evt_other":
            came.set()
        await came.wait()
        return web.json_response({"outcome": "accepted"})

    async with an_endpoint(act) as url:
        assert await run(tmp_path, url, *lines) == 0


def test_a_receiver_that_asks_for_patience_gets_it() -> None:
    waits = [RetryPolicy().delay_s(1, retry_after_s=5.0, rng=random.Random(seed)) for seed in range(20)]  # noqa: S311 - no key

    assert min(waits) >= 5.0


async def test_what_is_read_ahead_is_bounded_by_its_bytes() -> None:
    gate, read = asyncio.Event(), list[int]()

    async def posts() -> AsyncIterator[Post]:
        for number in range(12):
            read.append(number)
            yield Post(str(number), bytes(AHEAD_BYTES // 4), ("one",))

    async def deliver(_: Post) -> None:
        await gate.wait()

    playing = asyncio.create_task(play(posts(), deliver, rate=None, concurrency=8))
    for _ in range(100):
        await asyncio.sleep(0)
    ahead = len(read)
    gate.set()
    await playing

    assert (ahead, len(read)) == (5, 12)


async def test_what_is_no_event_stays_here_and_is_reported_without_a_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [a_body(timestamp=CANARY), b'{"a":', b"\xff", a_body(data_note="x" * 300_000)]
    async with a_bridge() as (url, seen):
        code = await run(tmp_path, url, a_body(), *bad)

    printed = capsys.readouterr()
    reasons = [(each["line"], each["reason"], each["field"]) for each in map(json.loads, printed.out.splitlines())]
    assert (code, len(seen)) == (1, 1)
    assert reasons == [
        (2, "unusable", "/timestamp"),
        (3, "malformed_json", None),
        (4, "malformed_json", None),
        (5, "body_too_large", None),
    ]
    assert CANARY not in printed.out + printed.err


@pytest.mark.parametrize(("status", "says"), [(401, "401 refused signature_mismatch"), (503, "503"), (302, "302")])
async def test_an_ingress_that_takes_nothing_ends_it_in_one_line(tmp_path: Path, status: int, says: str) -> None:
    async with a_bridge(lambda _: status) as (url, _):
        with pytest.raises(BridgeError, match=says) as caught:
            await run(tmp_path, url, *[a_body(id=f"evt_{number}") for number in range(50)])

    assert "\n" not in str(caught.value)


async def test_an_ingress_that_goes_away_on_the_way_ends_it_and_what_was_posted_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [a_body(id=f"evt_{number}") for number in range(50)]
    async with a_bridge(lambda body: 503 if body == lines[30] else 200) as (url, _):
        assert await run(tmp_path, url, *lines) == 1

    assert "30 accepted; stopped: http" in capsys.readouterr().err


async def test_without_a_source_or_a_secret_nothing_begins(tmp_path: Path, secrets: Path) -> None:
    with pytest.raises(ConfigError, match="no source is named 'nobody'"):
        await run(tmp_path, "http://127.0.0.1:9", a_body(), source="nobody")
    (secrets / "current").write_text(f"{SECRET}\naccept_until = 2026-01-01T00:00:00Z\n")
    with pytest.raises(ConfigError, match="no secret to post with"):
        await run(tmp_path, "http://127.0.0.1:9", a_body())
    (secrets / "current").write_text(SECRET)
    with pytest.raises(ConfigError, match="not an http"):
        await run(tmp_path, "ingress:8080", a_body())
