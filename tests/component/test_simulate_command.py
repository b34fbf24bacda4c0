"""`drx-bridge simulate` as an operator types it, against a small real server."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from click import BadParameter, UsageError

from bridge.dev.simulate import simulate
from bridge.dev.simulator import webhook_url
from bridge.errors import ConfigError

SECRET = "whsec_ZHJ4LWJyaWRnZS10ZXN0LWtleS1ub3Qtc2VjcmV0ISE="
SCENARIO = Path("tests/data/samples/scenarios/s1_happy_path.ndjson")
TRUNCATED = Path("tests/data/samples/hostile/02_truncated.json")
SENT = Path("tests/data/samples/native/03_prescription_sent.json")
SENT_BODY = SENT.read_bytes()
TRUNCATED_BODY = TRUNCATED.read_bytes()
LINES = SCENARIO.read_bytes().splitlines()


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "current"
    path.write_text(f"{SECRET}\nnot_before = 2026-01-01T00:00:00Z\n")
    return path


@asynccontextmanager
async def a_bridge(
    status: Callable[[bytes], int] = lambda _: 200, *, outcomes: tuple[str, ...] = ("accepted",)
) -> AsyncIterator[tuple[str, list[tuple[str, bytes]]]]:
    """Serve `/webhooks/drx`; yield its base address and the list of (webhook id, body) it fills.

    What is taken has the first of `outcomes` at its first delivery, and the next one at its next.
    """
    seen: list[tuple[str, bytes]] = []

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        seen.append((request.headers["webhook-id"], body))
        answer = status(body)
        outcome = outcomes[min(seen.count(seen[-1]), len(outcomes)) - 1]
        words = {"outcome": outcome} if answer < 300 else {"outcome": "refused", "code": "signature_mismatch"}
        return web.json_response(words, status=answer)

    app = web.Application(client_max_size=2**20)
    app.router.add_post("/webhooks/drx", take)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", seen
    finally:
        await runner.cleanup()


async def run(*arguments: str | Path) -> int:
    """Run the command beside the server; it owns an event loop of its own."""
    code = await asyncio.to_thread(simulate.main, [str(each) for each in arguments], standalone_mode=False)
    assert isinstance(code, int)
    return code


def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Parse all of standard output as the one document that --json promises."""
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


async def test_a_scenario_is_played_in_order(secret_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with a_bridge() as (url, seen):
        code = await run("--url", url, "--secret-file", secret_file, "--scenario", SCENARIO, "--json")

    assert code == 0
    assert [body for _, body in seen] == LINES
    assert [webhook_id for webhook_id, _ in seen] == [json.loads(body)["id"] for _, body in seen]
    report = document(capsys)
    assert report["answers"] == [{"status": 200, "outcome": "accepted", "reason": None, "count": len(seen)}]
    assert report["failed"] == report["retries"] == 0
    assert set(report["latency_ms"]) == {"p50", "p90", "p99", "max"}


async def test_a_broken_sample_goes_out_byte_for_byte_under_an_id_of_its_own(secret_file: Path) -> None:
    async with a_bridge() as (url, seen):
        code = await run("--url", f"{url}/", "--secret-file", secret_file, "--sample", TRUNCATED)

    ((webhook_id, body),) = seen
    assert code == 0
    assert body == TRUNCATED_BODY
    assert webhook_id.startswith("msg_")


async def test_a_sample_goes_out_under_the_id_in_its_body(secret_file: Path) -> None:
    async with a_bridge() as (url, seen):
        await run("--url", f"{url}/webhooks/drx", "--secret-file", secret_file, "--sample", SENT)

    assert seen == [("evt_01K52Q3V7KJ4M9X20000003XF6", SENT_BODY)]


async def test_one_seed_is_one_run(secret_file: Path) -> None:
    arguments = ("--secret-file", secret_file, "--count", "30", "--seed", "7", "--duplicates", "0.3", "--shuffle")
    async with a_bridge() as (url, seen):
        await run("--url", url, *arguments)
        first = list(seen)
        seen.clear()
        await run("--url", url, *arguments)

    assert first == seen
    assert len(first) > 30


async def test_a_duplicate_has_the_same_id_and_body_and_comes_later(secret_file: Path) -> None:
    async with a_bridge() as (url, seen):
        await run(
            "--url",
            url,
            "--secret-file",
            secret_file,
            "--count",
            "25",
            "--seed",
            "1",
            "--duplicates",
            "1",
            "--rate",
            "900",
        )

    assert set(Counter(seen).values()) == {2}
    assert len(set(seen)) == 25


async def test_spooled_and_duplicate_are_taken_and_reported(
    secret_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sender may forget them: another attempt would not make the event more durable."""
    arguments = ("--secret-file", secret_file, "--count", "20", "--seed", "1", "--duplicates", "1")
    async with a_bridge(lambda _: 202, outcomes=("spooled", "duplicate")) as (url, seen):
        assert await run("--url", url, *arguments, "--json") == 0
        report = document(capsys)
        seen.clear()
        assert await run("--url", url, *arguments) == 0

    assert report["answers"] == [
        {"status": 202, "outcome": "duplicate", "reason": None, "count": 20},
        {"status": 202, "outcome": "spooled", "reason": None, "count": 20},
    ]
    assert (report["failed"], report["retries"]) == (0, 0)
    told = capsys.readouterr().err
    assert "spooled" in told
    assert "duplicate" in told


async def test_a_refusal_is_counted_and_ends_in_exit_1(secret_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with a_bridge(lambda body: 401 if body == LINES[-1] else 200) as (url, _):
        code = await run("--url", url, "--secret-file", secret_file, "--scenario", SCENARIO)

    output = capsys.readouterr()
    assert code == 1
    assert output.out == ""
    assert "401" in output.err
    assert "signature_mismatch" in output.err


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://h/x", "http://", "http://h:99999/", "http://[::1", "kafka"]
)
def test_an_address_that_is_none_is_said(url: str) -> None:
    with pytest.raises(ConfigError, match="--url"):
        webhook_url(url)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://h:1", "http://h:1/webhooks/drx"),
        ("https://h/", "https://h/webhooks/drx"),
        ("http://[::1]:8/webhooks/other", "http://[::1]:8/webhooks/other"),
    ],
)
def test_a_base_address_is_completed(given: str, meant: str) -> None:
    assert webhook_url(given) == meant


@pytest.mark.parametrize("content", ["", "whsec_short", "whpk_" + "A" * 43 + "=", "\x00\xff", "hunter2"])
def test_a_bad_secret_is_said_without_being_shown(content: str, tmp_path: Path) -> None:
    path = tmp_path / "slot"
    path.write_text(content)

    with pytest.raises(ConfigError, match="--secret-file") as caught:
        simulate.main(["--url", "http://h", "--secret-file", str(path)], standalone_mode=False)

    assert content == "" or content not in str(caught.value)


@pytest.mark.parametrize("option", ["--secret-file", "--sample", "--scenario"])
def test_a_missing_file_is_named(option: str, secret_file: Path, tmp_path: Path) -> None:
    files = {"--secret-file": secret_file, "--sample": SENT} | {option: tmp_path / "absent"}
    if option == "--scenario":
        del files["--sample"]
    arguments = [str(part) for pair in files.items() for part in pair]

    with pytest.raises(ConfigError, match="absent"):
        simulate.main(["--url", "http://h", *arguments], standalone_mode=False)


def test_what_excludes_each_other_is_said(secret_file: Path) -> None:
    arguments = ["--url", "http://h", "--secret-file", str(secret_file), "--sample", str(SENT), "--count", "3"]

    with pytest.raises(ConfigError, match="exclude"):
        simulate.main(arguments, standalone_mode=False)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[dict[str, Any]]:
    """Return what `--print` writes: it needs neither an address nor a secret."""
    assert simulate.main(["--print", *map(str, arguments)], standalone_mode=False) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_one_delivery_of_a_type_is_made_and_more_where_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    sent = ("--type", "prescription.sent", "--seed", "3")

    assert [body["type"] for body in printed(capsys, *sent)] == ["prescription.sent"]
    assert [body["type"] for body in printed(capsys, *sent, "--count", "3")] == ["prescription.sent"] * 3
    both = printed(capsys, *sent, "--type", "system.ping")
    assert {body["type"] for body in both} <= {"prescription.sent", "system.ping"}


async def test_what_is_printed_is_a_scenario_that_can_be_sent(
    secret_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bodies = printed(capsys, "--seed", "7", "--count", "3")
    file = tmp_path / "three.ndjson"
    file.write_text("\n".join(map(json.dumps, bodies)))

    async with a_bridge() as (url, seen):
        await run("--url", url, "--secret-file", secret_file, "--scenario", file)

    assert [webhook_id for webhook_id, _ in seen] == [body["id"] for body in bodies]


def test_headers_are_printed_where_there_is_a_secret(secret_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (bare,) = printed(capsys, "--sample", SENT, "--json")
    (signed,) = printed(capsys, "--sample", SENT, "--json", "--secret-file", secret_file)

    assert (bare["headers"], bare["body"].encode()) == ({}, SENT_BODY)
    assert signed["headers"]["webhook-id"] == json.loads(SENT_BODY)["id"]


def test_types_of_a_vendor_cannot_be_chosen() -> None:
    with pytest.raises(ConfigError, match="--type"):
        simulate.main(["--print", "--type", "system.ping", "--source", "photon"], standalone_mode=False)


@pytest.mark.parametrize("option", ["--rate", "--timeout"])
def test_a_rate_or_a_time_that_is_not_finite_is_refused(option: str) -> None:
    with pytest.raises(BadParameter, match="not finite"):
        simulate.main([option, "nan"], standalone_mode=False)


@pytest.mark.parametrize("missing", ["--url", "--secret-file"])
def test_without_print_there_is_somewhere_to_send_it(secret_file: Path, missing: str) -> None:
    given = {"--url": "http://127.0.0.1:9", "--secret-file": str(secret_file)}
    del given[missing]

    with pytest.raises(UsageError, match=missing):
        simulate.main([part for pair in given.items() for part in pair], standalone_mode=False)
