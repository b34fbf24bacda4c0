"""A `drx-bridge serve` of its own for a test, configured by environment and seen from outside."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen
from uuid import uuid4

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from bridge.dev.ports import free_port
from bridge.kafka.connection import Connection
from bridge.kafka.reader import open_reader
from bridge.kafka.transport import ConsumedRecord
from tests.builders import SECRET, signed_headers
from tests.cluster import STANDARD_TOPICS

T = TypeVar("T")

# The one bound of everything that must happen here; generous, since the machine may be busy.
HANG_S = 120.0
PROBE_S = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> dict[str, Any]:
        """The body as a JSON object."""
        document = orjson.loads(self.body)
        assert isinstance(document, dict)
        return document


class IngressProcess:
    """One run, or several of the same: `start` begins another life after `kill` or `ended`. Ends with the context.

    The topics of the contract are shared by all tests of a session, so each run has a source name of its own, by
    which `records` tells its records from all others.
    """

    def __init__(
        self, directory: Path, bootstrap_servers: str, *, command: Sequence[str] = (), source: str = "", **settings: str
    ) -> None:
        """Start it and do not wait; `settings` are environment variables without their prefix.

        With `source` it is a replica of another run, and has its records for its own as well.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.bootstrap_servers = bootstrap_servers
        self.source = source or f"s{uuid4().hex}"
        self.instance = f"i{uuid4().hex}"
        self.url, self.management_url = (f"http://127.0.0.1:{port}" for port in _two_ports())
        self._outputs = [directory / "stdout", directory / "stderr"]
        self.secrets_dir = _secrets_dir(directory)
        self.env = self._environment(self.secrets_dir, settings)
        self._command = list(command or serve_command())
        self._process = self._spawn()

    def _environment(self, secrets_dir: Path, settings: Mapping[str, str]) -> dict[str, str]:
        source = f"BRIDGE_SOURCES__{self.source}__"
        return clean_environment() | {
            "BRIDGE_INSTANCE": self.instance,
            "BRIDGE_HEARTBEAT__ENABLED": "false",  # most tests count everything that is posted
            "BRIDGE_SPOOL__DIR": str(secrets_dir.parent / "spool"),
            "BRIDGE_HTTP__HOST": "127.0.0.1",
            "BRIDGE_HTTP__PORT": self.url.rpartition(":")[2],
            "BRIDGE_MANAGEMENT__HOST": "127.0.0.1",
            "BRIDGE_MANAGEMENT__PORT": self.management_url.rpartition(":")[2],
            "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers,
            f"{source}PROFILE": "drx_standard",
            f"{source}ENVIRONMENT": "sandbox",
            f"{source}SECRETS_DIR": str(secrets_dir),
            **{f"BRIDGE_{name}": value for name, value in settings.items()},
        }

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
        self._process = self._spawn(**env)
        return self

    def kill(self) -> None:
        """End it as a crash would; returns when it is gone."""
        self._process.kill()
        self._process.wait(HANG_S)

    @property
    def webhook_url(self) -> str:
        """Where its one source delivers."""
        return f"{self.url}/webhooks/{self.source}"

    def output(self) -> str:
        """All that it has written to stdout and stderr."""
        return "".join(path.read_text() for path in self._outputs)

    def live(self) -> Self:
        """Wait until both ports answer, whatever they say."""
        until(lambda: self._asked(f"{self.management_url}/livez") and self._asked(self.url), what="a live process")
        return self

    def ready(self) -> Self:
        """Wait until it can make events durable."""
        until(lambda: self._asked(f"{self.management_url}/readyz") == 200, what="readiness")
        return self

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def ended(self) -> int:
        """Wait for its end; return the exit code."""
        return self._process.wait(HANG_S)

    async def end(self, number: signal.Signals) -> int:
        """Send it a signal and wait for its end."""
        self.send_signal(number)
        return await asyncio.to_thread(self.ended)

    async def records(self) -> list[ConsumedRecord]:
        """Every record of this run, each partition in order."""
        source = ("ce_source", self.source.encode())
        async with open_reader(Connection(self.bootstrap_servers), list(STANDARD_TOPICS), from_beginning=True) as found:
            return [record async for record in found.until_end() if source in record.headers]

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of that name with these labels, whatever the others are."""
        with urlopen(Request(f"{self.management_url}/metrics"), timeout=PROBE_S) as answer:  # noqa: S310 - as below
            families = text_string_to_metric_families(answer.read().decode())
            samples = [each for family in families for each in family.samples if each.name == name]
            return sum(each.value for each in samples if labels.items() <= each.labels.items())

    def _spawn(self, **env: str) -> subprocess.Popen[bytes]:
        with self._outputs[0].open("ab") as out, self._outputs[1].open("ab") as err:
            return subprocess.Popen(self._command, env=self.env | env, stdout=out, stderr=err)  # noqa: S603 - our own

    def _asked(self, url: str) -> int:
        assert self._process.poll() is None, self.output()
        try:
            with urlopen(Request(url), timeout=PROBE_S) as answer:  # noqa: S310 - http to ourselves
                return int(answer.status)
        except HTTPError as exc:
            exc.close()
            return exc.code
        except (URLError, ConnectionError, TimeoutError):
            return 0


def serve_command() -> list[str]:
    """Command line of `serve`."""
    return [sys.executable, "-m", "bridge", "serve"]


def clean_environment() -> dict[str, str]:
    """Ours, without settings of the bridge."""
    return {name: value for name, value in os.environ.items() if not name.upper().startswith("BRIDGE_")}


def until(found: Callable[[], T], *, what: str) -> T:
    """Ask again and again until the answer is true; another process gives us no event to wait for."""
    deadline = time.monotonic() + HANG_S
    while not (answer := found()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.05)
    return answer


async def ask(session: aiohttp.ClientSession, url: str, **options: Any) -> Reply:
    """Make one request of any method (GET unless `method` says otherwise)."""
    async with session.request(options.pop("method", "GET"), url, **options) as answer:
        return Reply(answer.status, await answer.read(), dict(answer.headers))


async def deliver(
    session: aiohttp.ClientSession, ingress: IngressProcess, body: bytes, *, webhook_id: str, **headers: str
) -> Reply:
    """Make one genuine delivery, but for the `headers` that are given (`_` for `-`)."""
    changes = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = signed_headers(body, webhook_id=webhook_id) | changes
    return await ask(session, ingress.webhook_url, method="POST", data=body, headers=sent)


def header(record: ConsumedRecord, name: str) -> str:
    """Value of the one header of that name."""
    (value,) = (value for each, value in record.headers if each == name)
    return value.decode()


def _two_ports() -> tuple[int, int]:
    first = free_port()
    return first, free_port([first])


def _secrets_dir(directory: Path) -> Path:
    secrets = directory / "secrets"
    secrets.mkdir()
    (secrets / "current").write_text(SECRET)
    return secrets
