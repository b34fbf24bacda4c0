"""A `drx-consumer run` of its own for a test, configured by environment and seen from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

import orjson
from prometheus_client.parser import text_string_to_metric_families

from bridge.dev.ports import free_port
from tests.installed import install
from tests.integration.ingress_process import HANG_S, PROBE_S, until

# A group notices a member that was killed after its session, which brokers let nobody make shorter than 6 s.
SESSION_S = "10"


class ConsumerProcess:
    """One run, or several of the same: `start` begins another life after `kill` or `ended`. Ends with the context."""

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        bootstrap_servers: str,
        dsn: str,
        env: Mapping[str, str] | None = None,
        **settings: str,
    ) -> None:
        """Start it and do not wait.

        Args:
            directory: Where its output is kept, beside that of others.
            name: Entry point of the consumer.
            bootstrap_servers: Kafka.
            dsn: PostgreSQL.
            env: Further variables: what `install_code` returns, or a fail point.
            settings: Variables without their prefix, such as `READ_MODEL__SCHEMA`.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        port = free_port()
        self.management_url = f"http://127.0.0.1:{port}"
        self._outputs = [directory / f"{name}-{port}.stdout", directory / f"{name}-{port}.stderr"]
        self.env = consumer_environment(bootstrap_servers=bootstrap_servers, dsn=dsn, env=env, **settings)
        self.env |= {"CONSUMER_MANAGEMENT__HOST": "127.0.0.1", "CONSUMER_MANAGEMENT__PORT": str(port)}
        self._process = self._spawn()

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it without waiting for an orderly stop."""
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Of this life."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """False once it has ended."""
        return self._process.poll() is None

    def start(self, **env: str) -> Self:
        """Begin another life with the same settings, and `env` besides; do not wait."""
        assert not self.alive
        self.env |= env
        self._process = self._spawn()
        return self

    def output(self) -> str:
        """All that it has written to stdout and stderr, in all its lives."""
        return "".join(path.read_text() for path in self._outputs)

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """Its log, or those lines of it that are about `event`."""
        found = [orjson.loads(line) for line in self._outputs[0].read_text().splitlines() if line.startswith("{")]
        return [line for line in found if event in {"", line["event"]}]

    def live(self) -> Self:
        """Wait until the management port answers, whatever it says."""
        until(lambda: self._asked("/livez")[0], what="a live process")
        return self

    def ready(self) -> Self:
        """Wait until it is a member of its group and can settle."""
        until(lambda: self._asked("/readyz")[0] == 200, what="readiness")
        return self

    def checks(self) -> dict[str, str]:
        """What readiness says, entry by entry; empty while the port is closed."""
        status, body = self._asked("/readyz")
        return dict(orjson.loads(body)["checks"]) if status else {}

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of that name whose labels are, or include, the given ones."""
        _, body = self._asked("/metrics")
        samples = [sample for family in text_string_to_metric_families(body.decode()) for sample in family.samples]
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash would; returns when it is gone."""
        self._process.kill()
        self._process.wait(HANG_S)

    def freeze(self) -> None:
        """SIGSTOP: its connections stay open and say nothing."""
        self.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        self.send_signal(signal.SIGCONT)

    def ended(self) -> int:
        """Wait for its end; return the exit code, which is negative after a signal that it did not handle."""
        return self._process.wait(HANG_S)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end."""
        self.send_signal(number)
        return await asyncio.to_thread(self.ended)

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "consumers", "run", self.name]
        with self._outputs[0].open("ab") as out, self._outputs[1].open("ab") as err:
            return subprocess.Popen(command, env=self.env, stdout=out, stderr=err)  # noqa: S603 - our own

    def _asked(self, path: str) -> tuple[int, bytes]:
        assert self.alive, self.output()
        try:
            with urlopen(f"{self.management_url}{path}", timeout=PROBE_S) as answer:  # noqa: S310 - http to ourselves
                return int(answer.status), answer.read()
        except HTTPError as exc:
            with exc:
                return exc.code, exc.read()
        except (URLError, ConnectionError, TimeoutError):
            return 0, b""


def consumer_environment(
    *, bootstrap_servers: str, dsn: str, env: Mapping[str, str] | None = None, **settings: str
) -> dict[str, str]:
    """Our environment with only these settings; a group without offsets begins with the first record."""
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith(("BRIDGE_", "CONSUMER_"))}
    return (
        clean
        | {
            "CONSUMER_KAFKA__BOOTSTRAP_SERVERS": bootstrap_servers,
            "CONSUMER_KAFKA__OFFSET_RESET": "earliest",
            "CONSUMER_KAFKA__SESSION_S": SESSION_S,
            "CONSUMER_POSTGRES__DSN": dsn,
        }
        | dict(env or {})
        | {f"CONSUMER_{name}": value for name, value in settings.items()}
    )


async def drx_consumer(env: Mapping[str, str], *arguments: str) -> tuple[int, str, str]:
    """Run one command to its end; return exit code, stdout and stderr."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "consumers", *arguments),
        env=dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(HANG_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def install_code(directory: Path, name: str, code: str) -> dict[str, str]:
    """Make a package whose module defines `consumer`, found by that name; return what finds it in an environment."""
    module = f"{name.replace('-', '_')}_consumer"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{module}.py").write_text(dedent(code))
    return install(directory, {name: f"{module}:consumer"})
