"""`drx-consumer` before anything is asked of Kafka or PostgreSQL: what is wrong is said in one line."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integration.consumer_process import consumer_environment, install_code

NO_HANDLER = "from bridge.consumer import Consumer\nconsumer = Consumer(name='desk', topics=['t'])"


def nowhere(env: Mapping[str, str] | None = None, **settings: str) -> dict[str, str]:
    """Settings under which nothing answers, and `settings` over them."""
    dsn = "postgresql://u:s3cret@127.0.0.1:1/d"
    return consumer_environment(bootstrap_servers="127.0.0.1:1", dsn=dsn, env=env, **settings)


def said(*arguments: str, env: Mapping[str, str]) -> tuple[int, str]:
    """Run `drx-consumer`; return its exit code and complaint."""
    command = [sys.executable, "-m", "consumers", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(env))  # noqa: S603 - our own
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_a_consumer_that_is_not_installed_is_named() -> None:
    code, complaint = said("run", "nobody", env=nowhere())

    assert code == 2
    assert complaint == (
        "drx-consumer: no consumer named 'nobody' (read_model); the entry-point group is drx_bridge.consumers\n"
    )


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        (NO_HANDLER, "consumer 'desk' has no handler: decorate one function with @consumer.handler"),
        ("raise KeyError('Marisol')", "consumer 'desk' cannot be loaded from desk_consumer:consumer: KeyError"),
        (
            "consumer = lambda setup: 7",
            "consumer 'desk': desk_consumer:consumer is neither a Consumer nor a function that returns one",
        ),
    ],
    ids=["no handler", "an import that fails", "no consumer"],
)
def test_a_package_that_is_no_consumer_is_named(tmp_path: Path, code: str, complaint: str) -> None:
    env = nowhere(install_code(tmp_path, "desk", code))

    assert said("run", "desk", env=env) == (2, f"drx-consumer: {complaint}\n")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"KAFAK__X": "1"}, "CONSUMER_KAFAK__X: unknown section 'kafak'"),
        ({"POSTGRES__DSN": ""}, "no database is configured; set CONSUMER_POSTGRES__DSN or CONSUMER_POSTGRES__DSN_FILE"),
        ({"POSTGRES__DSN": "mysql://u:s3cret@h/d"}, "the DSN of the database is not usable"),
        ({"KAFKA__BOOTSTRAP_SERVERS": "a:b:c"}, "kafka.bootstrap_servers: 'a:b:c' is not host:port"),
        ({"KAFKA__SECURITY_PROTOCOL": "SSL", "KAFKA__SSL_CAFILE": "/nowhere"}, "kafka.ssl_cafile: cannot use /nowhere"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_setting_at_fault_is_named_without_its_secret(settings: dict[str, str], complaint: str) -> None:
    code, said_so = said("run", "read_model", env=nowhere(**settings))

    assert code == 2
    assert said_so.startswith(f"drx-consumer: {complaint}")
    assert said_so.count("\n") == 1
    assert "s3cret" not in said_so


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["init", "read_model", "--from", "noon"], "earliest, latest, or an instant with its zone"),
        (["init", "read_model", "--from", "2026-09-14T15:00:00"], "earliest, latest, or an instant with its zone"),
        (["init", "read_model", "--from", "latest", "--force"], "--force needs --reason"),
        (["parked", "skip", "read_model", "rx_1", "--offset", "1"], "--reason is needed"),
        (["parked", "drop-key", "read_model", "rx_1"], "--reason is needed"),
        (["parked", "retry", "read_model"], "name keys, or --all"),
        (["parked", "retry", "read_model", "rx_1", "--all"], "name keys, or --all"),
        (["parked", "list", "read_model", "--where", "shoe=43"], "the filters are class=…"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_command_line_is_one_line(arguments: list[str], complaint: str) -> None:
    code, said_so = said(*arguments, env=nowhere())

    assert (code, complaint in said_so, said_so.count("\n")) == (2, True, 1), said_so
