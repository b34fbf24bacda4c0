"""`drx-consumer` before anything is asked of Kafka or PostgreSQL: what is wrong is said in one line."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from bridge.event import Event
from consumers.api import Consumer, Context
from consumers.cli import main
from consumers.commands.doctor import _sink, phi_findings
from tests.integration.consumer_process import install_code

Said = Callable[..., tuple[int | str | None, str]]

NO_HANDLER = "from consumers.api import Consumer\nconsumer = Consumer(name='desk', topics=['t'])"


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings under which nothing answers."""
    for name in os.environ:
        if name.startswith("CONSUMER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CONSUMER_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("CONSUMER_POSTGRES__DSN", "postgresql://u:s3cret@127.0.0.1:1/d")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Run `drx-consumer`; give its exit code and complaint."""

    def run(*arguments: str) -> tuple[int | str | None, str]:
        monkeypatch.setattr(sys, "argv", ["drx-consumer", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert out == ""
        return ended.value.code, err

    return run


def test_a_consumer_that_is_not_installed_is_named(said: Said) -> None:
    known = "archive, fhir, forward, hl7v2, read_model, workflow"
    assert said("run", "nobody") == (
        2,
        f"drx-consumer: no consumer named 'nobody' ({known}); the entry-point group is drx_bridge.consumers\n",
    )


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        (NO_HANDLER, "consumer 'desk' has no handler: decorate one function with @consumer.handler"),
        ("raise KeyError('Marisol')", "consumer 'desk' cannot be loaded from desk_consumer:consumer: KeyError"),
        (
            "desk = 7",
            (
                "consumer 'desk' cannot be loaded from desk_consumer:consumer: AttributeError"
                "; after a change of pyproject.toml install the package again"
            ),
        ),
        (
            "def consumer(setup): return setup.nothing",
            "consumer 'desk' cannot be loaded from desk_consumer:consumer: AttributeError",
        ),
        (
            "consumer = lambda setup: 7",
            "consumer 'desk': desk_consumer:consumer is neither a Consumer nor a function that returns one",
        ),
    ],
    ids=["no handler", "an import that fails", "an old entry point", "a function that fails", "no consumer"],
)
def test_a_package_that_is_no_consumer_is_named(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, complaint: str
) -> None:
    install_code(tmp_path, "desk", code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "desk_consumer", raising=False)

    assert said("run", "desk") == (2, f"drx-consumer: {complaint}\n")


def test_a_consumer_that_has_no_schema_of_its_own_is_not_taken_for_another(
    said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the live one would be set where a second one was to begin."""
    install_code(tmp_path, "desk", NO_HANDLER + "\n@consumer.handler\nasync def handle(event, context): ...")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "desk_consumer", raising=False)

    code, complaint = said("init", "desk", "--schema", "next", "--from", "earliest")

    assert (code, "'desk' has no setting for its schema" in complaint) == (2, True)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"KAFAK__X": "1"}, "CONSUMER_KAFAK__X: unknown section 'kafak'"),
        ({"POSTGRES__DSN": ""}, "no database is configured; set CONSUMER_POSTGRES__DSN or CONSUMER_POSTGRES__DSN_FILE"),
        ({"POSTGRES__DSN_FILE": "/s3cret"}, "CONSUMER_POSTGRES: postgres.dsn and postgres.dsn_file are both set"),
        ({"KAFKA__BOOTSTRAP_SERVERS": "a:b:c"}, "kafka.bootstrap_servers: 'a:b:c' is not host:port"),
        ({"KAFKA__SECURITY_PROTOCOL": "SSL", "KAFKA__SSL_CAFILE": "/nowhere"}, "kafka.ssl_cafile: cannot use /nowhere"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_at_fault_is_named_without_its_secret(
    said: Said, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], complaint: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"CONSUMER_{name}", value)

    code, said_so = said("run", "read_model")

    assert code == 2
    assert said_so.startswith(f"drx-consumer: {complaint}")
    assert said_so.count("\n") == 1
    assert "s3cret" not in said_so


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["init", "read_model", "--from", "noon"], "earliest, latest, an instant with its zone"),
        (["init", "read_model", "--from", "2026-09-14T15:00:00"], "earliest, latest, an instant with its zone"),
        (["init", "read_model", "--from", "latest", "--force"], "--force needs --reason"),
        (
            ["init", "read_model", "--from", "latest", "--force", "--reason", "r", "--unless-placed"],
            "--unless-placed leaves a group where it stands, and --force moves it",
        ),
        (["parked", "skip", "read_model", "rx_1", "--offset", "1"], "--reason is needed"),
        (["parked", "drop-key", "read_model", "rx_1"], "--reason is needed"),
        (["parked", "park", "read_model", "rx_1"], "--reason is needed"),
        (["parked", "retry", "read_model"], "name keys, or --all"),
        (["parked", "retry", "read_model", "rx_1", "--all"], "name keys, or --all"),
        (["parked", "list", "read_model", "--where", "shoe=43"], "the filters are class=…"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_one_line(said: Said, arguments: list[str], complaint: str) -> None:
    code, said_so = said(*arguments)

    assert (code, complaint in said_so, said_so.count("\n")) == (2, True, 1), said_so


@pytest.mark.parametrize("age", ["nan", "inf", "-inf", "1e30", "-1", "soon", ""])
@pytest.mark.parametrize("verb", [("list",), ("retry", "--all")], ids=["list", "retry"])
def test_an_age_that_is_none_is_refused(said: Said, verb: tuple[str, ...], age: str) -> None:
    code, complaint = said("parked", *verb, "read_model", "--where", f"older={age}")

    assert code == 2
    assert "--where older=… takes seconds, from 0 to 3155760000" in complaint


@pytest.mark.parametrize("rate", ["nan", "inf", "0", "-1", "1e-300"])
def test_a_rate_that_is_none_is_refused(said: Said, rate: str) -> None:
    code, complaint = said("parked", "retry", "--all", "read_model", "--rate", rate)

    assert code == 2
    assert "keys per second, from 0.001 to 10000" in complaint


def test_an_offset_beyond_any_log_is_refused(said: Said) -> None:
    code, complaint = said("parked", "skip", "read_model", "rx_1", "--offset", str(2**63), "--reason", "void")

    assert code == 2
    assert "--offset" in complaint


def test_doctor_says_where_health_information_goes_though_nothing_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "current").write_text(f"whsec_{base64.b64encode(bytes(32)).decode()}")
    monkeypatch.setenv("CONSUMER_FORWARD__URL", "https://me:hunter2@127.0.0.1:1/desk?token=hunter2")
    monkeypatch.setenv("CONSUMER_FORWARD__SECRETS_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["drx-consumer", "doctor", "forward", "--json"])

    with pytest.raises(SystemExit) as ended:
        main()

    out, err = capsys.readouterr()
    assert (ended.value.code, err) == (1, "")
    checks = [(each["check"], each["verdict"], each["says"]) for each in json.loads(out)["checks"]]
    assert checks[1][:2] == ("log", "warning")
    assert checks[:1] + checks[2:4] == [
        ("config", "ok", "every setting can be used; the group is forward"),
        ("phi", "ok", "parked events, whole, and keys: PostgreSQL at 127.0.0.1:1/d"),
        ("phi", "ok", "whole events, types *: posted to https://127.0.0.1:1"),
    ]
    assert [each[:2] for each in checks[4:]] == [("postgres", "failed"), ("kafka", "failed"), ("sink", "failed")]
    assert checks[-1][2] == "does not answer as it should: unreachable"
    assert "hunter2" not in out
    assert "s3cret" not in out


def test_doctor_warns_of_a_consumer_that_does_not_say_where_events_go() -> None:
    async def handle(event: Event, context: Context) -> None: ...

    *_, last = phi_findings(Consumer("desk", ["t"], handle=handle), "postgresql:///d")

    assert (last.verdict, last.check) == ("warning", "phi")


@pytest.mark.parametrize(
    ("dsn", "place"),
    [
        ("postgresql://u:s3cret@h1:5432,[::1]:5433/d?sslmode=require", "h1:5432,[::1]:5433/d"),
        ("postgres:///d", "the local socket/d"),
        ("postgresql:///d?host=h&password=s3cret", "the configured server"),
        ("postgresql://u:s3/cret@h/d", "the configured server"),
        ("postgresql://u:s3#cret@h/d", "the configured server"),
        ("postgresql://u:s3?cret@h/d", "the configured server"),
        ("postgresql://u:s3[cret@h/d", "the configured server"),
        ("postgresql://u:s3cret", "the configured server"),
        ("host=h password=s3cret dbname=d", "the configured server"),
    ],
)
def test_doctor_names_the_database_only_where_that_can_be_no_part_of_a_password(dsn: str, place: str) -> None:
    first, *_ = phi_findings(Consumer("desk", ["t"], discloses=[]), dsn)

    assert first.says == f"parked events, whole, and keys: PostgreSQL at {place}"


def test_doctor_says_what_becomes_of_what_is_published() -> None:
    _, outbox, own = phi_findings(
        Consumer("desk", ["t"], publishes=["desk.orders.v1"], discloses=["names: a desk"]), "postgresql://h/d"
    )

    assert outbox.says == "what it publishes, in clear: PostgreSQL at h/d until it is written to desk.orders.v1"
    assert own.says == "names: a desk"


def test_doctor_finds_out_that_the_key_for_ids_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("CONSUMER_LOG__ID_KEY_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["drx-consumer", "doctor", "read_model", "--json"])

    with pytest.raises(SystemExit):
        main()

    (found,) = (each for each in json.loads(capsys.readouterr().out)["checks"] if each["check"] == "log")
    assert found["verdict"] == "failed"
    assert "CONSUMER_LOG__ID_KEY_DIR" in found["advice"]


async def test_doctor_waits_no_longer_for_a_sink_to_open_than_a_handler_may_take() -> None:
    @contextlib.asynccontextmanager
    async def around() -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    finding = await _sink(Consumer("desk", ["t"], around=around, handler_timeout_s=0.01))

    assert (finding.verdict, finding.says) == ("failed", "does not answer as it should: TimeoutError")


def test_doctor_ends_with_2_if_a_setting_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["drx-consumer", "doctor", "forward"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 2
    assert "set CONSUMER_FORWARD__URL" in capsys.readouterr().out
