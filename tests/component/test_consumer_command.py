"""`drx-consumer` before it connects to Kafka or PostgreSQL: errors are reported in one line."""

import asyncio
import base64
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.kafka.consumed_record import TopicPartition
from consumers.api import Consumer
from consumers.cli import main
from consumers.commands.doctor import Kept, _sink, phi_findings, state_findings
from consumers.commands.parked import topic_of
from consumers.runtime.operator import Progress
from tests.integration.consumer_process import install_code

Said = Callable[..., tuple[int | str | None, str]]

NO_HANDLER = "from consumers.api import Consumer\nconsumer = Consumer(name='desk', topics=['t'])"


@pytest.fixture(autouse=True)
def _nowhere(clean: pytest.MonkeyPatch) -> None:
    """Settings with unreachable services."""
    clean.setenv("CONSUMER_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    clean.setenv("CONSUMER_POSTGRES__DSN", "postgresql://u:s3cret@127.0.0.1:1/d")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Said:
    """Run `drx-consumer`; give its exit code and complaint, or the findings of `doctor`."""

    def run(*arguments: str) -> tuple[int | str | None, str]:
        monkeypatch.setattr(sys, "argv", ["drx-consumer", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert (err if "doctor" in arguments else out) == ""
        return ended.value.code, out or err

    return run


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, str], None]:
    def install(name: str, code: str) -> None:
        install_code(tmp_path, name, code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, f"{name.replace('-', '_')}_consumer", raising=False)

    return install


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
        ("desk = 7", "consumer 'desk' cannot be loaded from desk_consumer:consumer: AttributeError"),
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
    said: Said, installed: Callable[[str, str], None], code: str, complaint: str
) -> None:
    installed("desk", code)

    assert said("run", "desk") == (2, f"drx-consumer: {complaint}\n")


HANDLER = NO_HANDLER + "\n@consumer.handler\nasync def handle(event, context): ..."
BUILT = HANDLER.replace("consumer =", "built =").replace("@consumer", "@built") + "\ndef consumer(): return built"


@pytest.mark.parametrize("code", [HANDLER, BUILT], ids=["a consumer", "a function without a Setup"])
def test_a_setting_of_a_consumer_that_takes_none_is_refused(
    said: Said, installed: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    installed("refill-desk", code)
    monkeypatch.setenv("CONSUMER_REFILL_DESK__URL", "hunter2")

    exit_code, complaint = said("run", "refill-desk")

    assert (exit_code, complaint.count("\n")) == (2, 1)
    assert complaint.startswith("drx-consumer: CONSUMER_REFILL_DESK__URL: unknown setting; consumer 'refill-desk'")
    assert "hunter2" not in complaint


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("archive", "a consumer named 'archive' is installed already"),
        ("read-model", "a consumer named 'read_model' is installed already"),
        ("json", "a consumer cannot be named 'json': the settings of the runtime use that name themselves"),
        ("kafka", "a consumer cannot be named 'kafka': the section CONSUMER_KAFKA__… of the runtime has that name"),
        ("logging", "a package cannot be named 'logging': Python has that name already"),
        ("pg-desk", "a schema name has at most 63 of a-z, 0-9 and _, and does not begin with a digit or pg_"),
    ],
)
def test_a_name_that_a_new_consumer_cannot_have_is_refused_for_the_true_reason(
    said: Said, tmp_path: Path, name: str, complaint: str
) -> None:
    code, said_so = said("new", name, "--dir", str(tmp_path))

    assert (code, said_so.count("\n")) == (2, 1)
    assert said_so.startswith(f"drx-consumer: {complaint}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"POSTGRES__DSN": ""}, "no database is configured; set CONSUMER_POSTGRES__DSN or CONSUMER_POSTGRES__DSN_FILE"),
        ({"POSTGRES__DSN_FILE": "/s3cret"}, "CONSUMER_POSTGRES: postgres.dsn and postgres.dsn_file are both set"),
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
            "--unless-placed leaves a group where it is, and --force moves it",
        ),
        (["parked", "skip", "read_model", "rx_1", "--offset", "1"], "--reason is required"),
        (["parked", "drop-key", "read_model", "rx_1"], "--reason is required"),
        (["parked", "park", "read_model", "rx_1", "--reason", " "], "--reason is required"),
        (["parked", "resume", "read_model", "--dry-run"], "--reason is required"),
        (["parked", "park", "read_model", "rx_1", "--reason", "caf\udce9"], "'--reason': must be UTF-8"),
        (["parked", "park", "read_model", "rx_1", "--reason", "r", "--actor", "\udce9"], "'--actor': must be UTF-8"),
        (["parked", "retry", "read_model"], "name keys, or --all"),
        (["parked", "retry", "read_model", "rx_1", "--all"], "name keys, or --all"),
        *(
            (["parked", "retry", "--all", "read_model", "--rate", rate], "Invalid value for '--rate'")
            for rate in ("nan", "inf", "0", "1e-300")
        ),
        (["parked", "skip", "read_model", "rx_1", "--offset", str(2**63), "--reason", "void"], "--offset"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_one_line(said: Said, arguments: list[str], complaint: str) -> None:
    code, said_so = said(*arguments)

    assert (code, complaint in said_so, said_so.count("\n")) == (2, True, 1), said_so


def test_doctor_says_where_health_information_goes_though_nothing_answers(
    said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "current").write_text(f"whsec_{base64.b64encode(bytes(32)).decode()}")
    monkeypatch.setenv("CONSUMER_FORWARD__URL", "https://me:hunter2@127.0.0.1:1/desk?token=hunter2")
    monkeypatch.setenv("CONSUMER_FORWARD__SECRETS_DIR", str(tmp_path))

    code, out = said("doctor", "forward", "--json")

    assert code == 1
    checks = [(each["check"], each["verdict"], each["message"]) for each in json.loads(out)["checks"]]
    assert checks[1][:2] == ("log", "warning")
    assert checks[:1] + checks[2:4] == [
        ("config", "ok", "every setting can be used; the group is forward"),
        ("phi", "ok", "parked events, whole, and keys: PostgreSQL at 127.0.0.1:1/d"),
        ("phi", "ok", "whole events, types *: sent to https://127.0.0.1:1"),
    ]
    assert [each[:2] for each in checks[4:]] == [("postgres", "failed"), ("kafka", "failed"), ("sink", "failed")]
    assert checks[-1][2] == "does not respond as expected: unreachable"
    assert "hunter2" not in out
    assert "s3cret" not in out


def test_doctor_names_the_root_certificate_that_a_dsn_lacks(
    said: Said, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CONSUMER_POSTGRES__DSN", "postgresql://u:s3cret@127.0.0.1:1/d?sslmode=verify-full")

    _, out = said("doctor", "read_model", "--json")

    checks = {each["check"]: (each["verdict"], each["message"]) for each in json.loads(out)["checks"]}
    verdict, message = checks["postgres"]
    assert verdict == "failed"
    assert "a root certificate" in message
    assert "sslrootcert=FILE" in message
    assert "init" not in checks
    assert "s3cret" not in out


def told(kept: Kept, *, begins_by_itself: bool = False) -> list[tuple[str, str, str]]:
    found = state_findings("desk", kept, begins_by_itself=begins_by_itself)
    return [(each.verdict, f"{each.check}: {each.text}", each.advice) for each in found]


def progress(
    next_offset: int | None, *, above: int = 0, keys: int = 0, events: int = 0
) -> dict[TopicPartition, Progress]:
    return {TopicPartition("t", 0): Progress(next_offset, None, 1, "c", datetime.now(UTC), above, keys, events)}


INIT = "drx-consumer init desk --from earliest|latest|TIME"


@pytest.mark.parametrize(
    ("kept", "findings"),
    [
        (Kept(missing=["drx_consumer 1", "drx_consumer 2"]), [("failed", "init: not initialised", INIT)]),
        (Kept(missing=["desk 1"]), [("failed", "init: not initialised", INIT)]),
        (Kept(), [("failed", "init: not initialised", INIT)]),
        (Kept(progress=progress(None)), [("failed", "init: not initialised", INIT)]),
        (Kept(progress=progress(7, above=500)), []),
        (
            Kept(progress=progress(7, above=9120)),
            [
                (
                    "warning",
                    "settling: t/0: offset 7 waits, and 9120 after it do not",
                    "see ConsumerStuck; at some 16384 the whole partition waits",
                )
            ],
        ),
        (
            Kept(missing=["drx_consumer 3"]),
            [("failed", "init: its tables lack drx_consumer 3", "drx-consumer init desk")],
        ),
        (
            Kept(progress=progress(7), refused="archive.root: /lake is empty"),
            [("failed", "sink: archive.root: /lake is empty", "it does not start either")],
        ),
        (Kept(progress=progress(7)), []),
        (
            Kept(progress=progress(7, keys=2, events=5), opened_at=datetime(2026, 9, 14, 15, tzinfo=UTC)),
            [
                (
                    "failed",
                    "parking: park limit open since 2026-09-14 15:00:00Z: nothing is handled until it is resumed",
                    "drx-consumer parked resume desk --reason …",
                ),
                ("warning", "parking: parked keys: 2, records: 5", "drx-consumer parked list desk"),
            ],
        ),
    ],
)
def test_doctor_says_what_a_start_would_refuse_and_what_is_parked(
    kept: Kept, findings: list[tuple[str, str, str]]
) -> None:
    assert told(kept) == findings
    begun = [each for each in findings if not each[1].startswith("init: ")]
    assert told(kept, begins_by_itself=True) == begun


def test_a_key_of_a_consumer_of_several_topics_needs_the_name_of_its_own() -> None:
    desk = Consumer(name="desk", topics=["a.v1", "b.v1"])

    assert topic_of(desk, "b.v1") == "b.v1"
    for given, message in (
        (None, "desk reads 2 topics, so give that of the key: --topic a.v1 or b.v1"),
        ("c.v1", "--topic: one of a.v1, b.v1"),
    ):
        with pytest.raises(ConfigError) as caught:
            topic_of(desk, given)
        assert str(caught.value) == message


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

    assert first.text == f"parked events, whole, and keys: PostgreSQL at {place}"


async def test_doctor_waits_no_longer_for_a_sink_to_open_than_a_handler_may_take() -> None:
    @contextlib.asynccontextmanager
    async def around() -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    stuck = Consumer("desk", ["t"], around=around, handler_timeout_s=0.01)
    (finding,) = await _sink(stuck, contextlib.nullcontext())

    assert (finding.verdict, finding.text) == ("failed", "does not respond as expected: TimeoutError")


def test_a_consumer_that_has_no_schema_of_its_own_is_not_taken_for_another(
    said: Said, installed: Callable[[str, str], None]
) -> None:
    """Or the live one would be set where a second one was to begin."""
    installed("desk", NO_HANDLER + "\n@consumer.handler\nasync def handle(event, context): ...")

    code, complaint = said("init", "desk", "--schema", "next", "--from", "earliest")

    assert (code, "'desk' has no setting for its schema" in complaint) == (2, True)


def test_two_consumers_of_one_name_are_refused_by_every_command(
    said: Said, installed: Callable[[str, str], None]
) -> None:
    """Which of them a command took would depend on the path."""
    installed("read-model", HANDLER)  # its settings would be those of `read_model`

    for command in (["run", "forward"], ["lag", "read_model"], ["new", "desk"]):
        code, complaint = said(*command)

        assert (code, complaint.count("\n")) == (2, 1), complaint
        assert "read_model_consumer:consumer of drx-test-consumers" in complaint
        assert "consumers.read_model.consumer:open_read_model of drx-bridge" in complaint
