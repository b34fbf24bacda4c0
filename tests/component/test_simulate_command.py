"""`drx-bridge simulate` as an operator types it, against a small real server."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from bridge.dev.simulate import simulate
from tests.receiver import Receiver, answers, receiving

SECRET = "whsec_ZHJ4LWJyaWRnZS10ZXN0LWtleS1ub3Qtc2VjcmV0ISE="
SCENARIO = Path("tests/data/samples/scenarios/s1_happy_path.ndjson")
LINES = SCENARIO.read_bytes().splitlines()


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "current"
    path.write_text(f"{SECRET}\nnot_before = 2026-01-01T00:00:00Z\n")
    return path


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


ACCEPTED = answers(200, {"outcome": "accepted"})
REFUSED = answers(401, {"outcome": "refused", "code": "signature_mismatch"})


def sent(receiver: Receiver) -> list[tuple[str, bytes]]:
    return [(seen.id, seen.body) for seen in receiver.seen]


async def test_a_scenario_is_played_in_order(secret_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with receiving(ACCEPTED) as receiver:
        code = await run("--url", receiver.url, "--secret-file", secret_file, "--scenario", SCENARIO, "--json")

    assert code == 0
    assert sent(receiver) == [(json.loads(body)["id"], body) for body in LINES]
    report = document(capsys)
    assert report["answers"] == [{"status": 200, "outcome": "accepted", "reason": None, "count": len(LINES)}]
    assert report["failed"] == report["retries"] == 0
    assert set(report["latency_ms"]) == {"p50", "p90", "p99", "max"}


async def test_one_seed_is_one_run(secret_file: Path) -> None:
    arguments = ("--secret-file", secret_file, "--count", "30", "--seed", "7", "--duplicates", "0.3", "--shuffle")
    async with receiving(ACCEPTED) as receiver:
        await run("--url", receiver.url, *arguments)
        first = sent(receiver)
        receiver.seen.clear()
        await run("--url", receiver.url, *arguments)

    assert first == sent(receiver)
    assert len(first) > 30


async def test_what_is_taken_and_what_is_refused_is_counted_and_a_refusal_ends_in_exit_1(
    secret_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A sender may forget what is spooled: another attempt would not make the event more durable."""
    spooled, again = answers(202, {"outcome": "spooled"}), answers(200, {"outcome": "duplicate"})
    for last, code in ((again, 0), (REFUSED, 1)):
        async with receiving(spooled, answers(503), spooled, last) as receiver:
            arguments = ("--url", receiver.url, "--secret-file", secret_file, "--count", "4", "--attempts", "2")
            assert await run(*arguments, "--json") == code
            report = document(capsys)
            assert [(each["status"], each["count"]) for each in report["answers"]] == [
                *([(200, 2), (202, 2)] if code == 0 else [(202, 2), (401, 2)])
            ]
            assert (report["failed"], report["retried"]) == (2 * code, {"503": 1})
            assert await run(*arguments) == code

    shown = capsys.readouterr()
    assert shown.out == ""
    assert "401 refused signature_mismatch" in shown.err


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[dict[str, Any]]:
    """Return what `--print` writes: it needs neither an address nor a secret."""
    assert simulate.main(["--print", *map(str, arguments)], standalone_mode=False) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def test_what_is_printed_is_a_scenario_that_can_be_sent(
    secret_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bodies = printed(capsys, "--seed", "7", "--count", "3")
    file = tmp_path / "three.ndjson"
    file.write_text("\n".join(map(json.dumps, bodies)))

    async with receiving(ACCEPTED) as receiver:
        await run("--url", receiver.url, "--secret-file", secret_file, "--scenario", file)

    assert [seen.id for seen in receiver.seen] == [body["id"] for body in bodies]
