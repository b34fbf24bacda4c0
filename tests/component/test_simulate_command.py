"""`drx-bridge simulate` as an operator types it, against a small real server."""

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click import BadParameter, UsageError

from bridge.dev.simulate import simulate
from bridge.dev.simulator import webhook_url
from bridge.errors import ConfigError
from tests.receiver import Receiver, answers, receiving

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


async def test_a_sample_goes_out_byte_for_byte_under_the_id_in_its_body_or_one_of_its_own(secret_file: Path) -> None:
    async with receiving(ACCEPTED) as receiver:
        base = receiver.url.removesuffix("webhooks/drx")
        for url, sample in ((base, TRUNCATED), (receiver.url, SENT)):
            assert await run("--url", url, "--secret-file", secret_file, "--sample", sample) == 0

    broken, whole = sent(receiver)
    assert broken[1] == TRUNCATED_BODY
    assert broken[0].startswith("msg_")
    assert whole == ("evt_01K52Q3V7KJ4M9X20000003XF6", SENT_BODY)


async def test_one_seed_is_one_run(secret_file: Path) -> None:
    arguments = ("--secret-file", secret_file, "--count", "30", "--seed", "7", "--duplicates", "0.3", "--shuffle")
    async with receiving(ACCEPTED) as receiver:
        await run("--url", receiver.url, *arguments)
        first = sent(receiver)
        receiver.seen.clear()
        await run("--url", receiver.url, *arguments)

    assert first == sent(receiver)
    assert len(first) > 30


async def test_a_duplicate_has_the_same_id_and_body(secret_file: Path) -> None:
    arguments = ("--secret-file", secret_file, "--count", "25", "--duplicates", "1", "--rate", "900")
    async with receiving(ACCEPTED) as receiver:
        await run("--url", receiver.url, *arguments)

    assert set(Counter(sent(receiver)).values()) == {2}
    assert len(set(sent(receiver))) == 25


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


@pytest.mark.parametrize(
    "url", ["", "localhost:8080", "ftp://h/x", "http://", "http://h:99999/", "http://[::1", "kafka"]
)
def test_an_address_that_is_none_is_said(url: str) -> None:
    with pytest.raises(ConfigError, match="--url"):
        webhook_url(url)


@pytest.mark.parametrize("content", ["", "whsec_short", "whpk_" + "A" * 43 + "=", "\x00\xff", "hunter2"])
def test_a_bad_secret_is_said_without_being_shown(content: str, tmp_path: Path) -> None:
    path = tmp_path / "slot"
    path.write_text(content)

    with pytest.raises(ConfigError, match="--secret-file") as caught:
        simulate.main(["--url", "http://h", "--secret-file", str(path)], standalone_mode=False)

    assert content == "" or content not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("--url", "http://h", "--secret-file", "absent"), ConfigError, "absent"),
        (("--print", "--sample", "absent"), ConfigError, "absent"),
        (("--print", "--scenario", "absent"), ConfigError, "absent"),
        (("--print", "--sample", str(SENT), "--count", "3"), ConfigError, "exclude"),
        (("--print", "--type", "system.ping", "--source", "photon"), ConfigError, "--type"),
        (("--rate", "nan"), BadParameter, "not finite"),
        (("--url", "http://h"), UsageError, "--secret-file"),
        (("--secret-file", "absent"), UsageError, "--url"),
    ],
)
def test_a_mistake_is_named(arguments: tuple[str, ...], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        simulate.main(list(arguments), standalone_mode=False)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[dict[str, Any]]:
    """Return what `--print` writes: it needs neither an address nor a secret."""
    assert simulate.main(["--print", *map(str, arguments)], standalone_mode=False) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_one_delivery_of_a_type_is_made_and_more_where_they_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    sent = ("--type", "prescription.sent", "--seed", "3")

    assert [body["type"] for body in printed(capsys, *sent)] == ["prescription.sent"]
    assert [body["type"] for body in printed(capsys, *sent, "--count", "3")] == ["prescription.sent"] * 3


async def test_what_is_printed_is_a_scenario_that_can_be_sent(
    secret_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bodies = printed(capsys, "--seed", "7", "--count", "3")
    file = tmp_path / "three.ndjson"
    file.write_text("\n".join(map(json.dumps, bodies)))

    async with receiving(ACCEPTED) as receiver:
        await run("--url", receiver.url, "--secret-file", secret_file, "--scenario", file)

    assert [seen.id for seen in receiver.seen] == [body["id"] for body in bodies]
