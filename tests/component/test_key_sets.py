"""The keys of an issuer, read from a real server that may be down, wrong or send too much."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from bridge.errors import ConfigError
from bridge.proof import key_sets
from bridge.proof.key_sets import FILE, KeySetReader
from bridge.proof.scheme import Scheme
from bridge.proof.schemes.presets import configure
from bridge.proof.secrets import load, slots_of
from bridge.runtime.lifecycle import run_workers
from bridge.runtime.secret_files import CONTENT_MAX_BYTES, SlotDirectory
from bridge.settings import Settings
from bridge.start_checks import check_sources
from tests.logs import capture_logs
from tests.unit.test_token import AUDIENCE, ISSUER, JWKS, KEYS, PRIVATE
from tests.waiting import until


class Issuer:
    def __init__(self) -> None:
        self.content, self.status, self.asked, self.url = JWKS, 200, 0, ""

    async def answer(self, request: web.Request) -> web.Response:
        if request.path == "/elsewhere":
            return web.Response(text=JWKS)
        self.asked += 1
        headers = {"Location": "/elsewhere"} if self.status == 302 else None
        return web.Response(text=self.content, status=self.status, headers=headers)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    one, app = Issuer(), web.Application()
    app.router.add_get("/keys", one.answer)
    app.router.add_get("/elsewhere", one.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    yield one
    await runner.cleanup()


def a_scheme(url: str) -> Scheme:
    return configure("jwt", {"issuer": ISSUER, "audience": AUDIENCE, "jwks_url": url}, tolerance_s=300)


def a_reader(directory: Path, url: str, outcomes: list[str]) -> KeySetReader:
    return KeySetReader(directory, a_scheme(url), source="acme", observe=outcomes.append)


async def test_a_set_becomes_a_slot_file_and_stays_when_the_issuer_is_away(issuer: Issuer, tmp_path: Path) -> None:
    directory, outcomes = tmp_path / "keys" / "acme", list[str]()
    reader = a_reader(directory, issuer.url, outcomes)
    await reader.start()
    first = (directory / FILE).stat().st_ino
    await reader.start()
    same = (directory / FILE).stat().st_ino

    issuer.status = 500
    with capture_logs() as lines:
        await reader.start()

    (slot,) = load(directory, a_scheme(issuer.url))
    assert slot.name == FILE
    assert first == same  # an equal set is not written again
    assert outcomes == ["failed"]
    assert [(line["event"], line["code"]) for line in lines] == [("worker.secrets_kept", "key_set_unreadable")]


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (JWKS, 302),
        (JWKS, 404),
        ("", 200),
        ("<html>CANARY</html>", 200),
        ('{"keys": []}', 200),
        ('{"CANARY": 1', 200),
        (json.dumps({"keys": KEYS, "CANARY": "x" * CONTENT_MAX_BYTES}), 200),
        (PRIVATE, 200),
    ],
)
async def test_what_is_no_set_is_not_kept(issuer: Issuer, tmp_path: Path, content: str, status: int) -> None:
    issuer.content, issuer.status = content, status

    with pytest.raises(ConfigError) as caught:
        await a_reader(tmp_path, issuer.url, []).start()

    assert str(caught.value).startswith("source acme: ")
    assert issuer.url in str(caught.value)
    assert "CANARY" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / FILE).exists()


async def test_a_start_needs_an_issuer_once_only(issuer: Issuer, tmp_path: Path) -> None:
    away = "http://127.0.0.1:9/keys"
    with pytest.raises(ConfigError, match=r"^source acme: no key set can be read at .*, and none was read before$"):
        await a_reader(tmp_path, away, []).start()

    await a_reader(tmp_path, issuer.url, []).start()

    await a_reader(tmp_path, away, []).start()


async def test_a_directory_that_cannot_be_written_is_named(issuer: Issuer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="cannot be written"):
        await a_reader(tmp_path / "file", issuer.url, []).start()


async def test_a_new_key_is_taken_over_while_the_ingress_runs(
    issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_sets, "PERIOD_S", 0.01)
    reader = a_reader(tmp_path, issuer.url, [])
    await reader.start()
    slots = SlotDirectory(tmp_path, slots_of(a_scheme(issuer.url)), source="acme", observe=lambda _: None)
    stop = asyncio.Event()
    running = asyncio.create_task(run_workers([reader], stop=stop, drain_timeout_s=5))
    issuer.content = json.dumps({"keys": KEYS[:2]})

    def is_taken() -> bool:
        slots.poll()
        return len(getattr(slots.keys[0].key, "keys", ())) == 1

    await until(is_taken)
    (tmp_path / FILE).unlink()
    issuer.status, asked = 500, issuer.asked
    await until(lambda: issuer.asked > asked + 2)
    assert not running.done()  # what was read last still counts
    stop.set()
    await running


def test_a_start_does_not_ask_for_a_file_that_it_will_read(tmp_path: Path) -> None:
    source = {
        "profile": "drx_standard",
        "environment": "sandbox",
        "secrets_dir": str(tmp_path / "none"),
        "scheme": "jwt",
        "scheme_issuer": ISSUER,
        "scheme_audience": AUDIENCE,
        "scheme_jwks_url": "https://issuer.example/keys",
    }
    settings = Settings.model_validate({"sources": {"acme": source}})

    found = {each.check: each for each in check_sources(settings) if each.check == "secrets acme"}

    assert found["secrets acme"].verdict == "ok"
    assert "https://issuer.example/keys" in found["secrets acme"].text
