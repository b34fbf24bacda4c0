"""The receiver of `dev` and `demo`: it must not take what is not signed, or the demo would show nothing."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
from aiohttp import web

from bridge.dev.files import DataDirectory
from bridge.dev.receiver import receiver_app
from bridge.dev.signing import standard_headers
from bridge.dev.sources import SOURCES

DRX = SOURCES["drx"]
BODY = b'{"data":{}}'


@asynccontextmanager
async def a_receiver(path: Path) -> AsyncIterator[tuple[str, Path]]:
    """Serve on a free port; gives the URL and the file of the secret."""
    directory = DataDirectory(path).secret_dir("forward", make=DRX.new_secret)
    runner = web.AppRunner(receiver_app(directory))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", directory / "current"
    finally:
        await runner.cleanup()


async def test_it_takes_what_is_signed_and_shows_it(tmp_path: Path) -> None:
    async with a_receiver(tmp_path) as (url, secret), aiohttp.ClientSession() as session:
        sign = DRX.signer(secret)
        async with session.post(url, data=BODY, headers=sign("evt_1", int(time.time()), BODY)) as answer:
            assert answer.status == 204
        async with session.get(f"{url}/received") as answer:
            (received,) = await answer.json()

    assert (received["refused"], received["body"]) == ("", BODY.decode())
    assert received["headers"]["webhook-id"] == "evt_1"


async def test_it_refuses_another_secret_another_body_and_no_signature_and_says_so(tmp_path: Path) -> None:
    async with a_receiver(tmp_path) as (url, secret), aiohttp.ClientSession() as session:
        now = int(time.time())
        forged = standard_headers("evt_1", now, BODY, key=bytes(32))
        altered = DRX.signer(secret)("evt_2", now, b"{}")
        for headers in (forged, altered, {}):
            async with session.post(url, data=BODY, headers=headers) as answer:
                assert answer.status == 401
        async with session.get(f"{url}/received") as answer:
            received = await answer.json()

    assert [each["refused"] for each in received] == ["signature_mismatch", "signature_mismatch", "signature_missing"]
    assert [each["body"] for each in received] == ["", "", ""]


async def test_it_takes_a_new_secret_without_a_restart(tmp_path: Path) -> None:
    async with a_receiver(tmp_path) as (url, secret), aiohttp.ClientSession() as session:
        (secret.parent / "next").write_text(DRX.new_secret())
        headers = DRX.signer(secret.parent / "next")("evt_1", int(time.time()), BODY)
        async with session.post(url, data=BODY, headers=headers) as answer:
            assert answer.status == 204
