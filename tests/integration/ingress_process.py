"""A `drx-bridge serve` process for a test, configured by environment and observed from outside."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import aiohttp
import orjson

from bridge.dev.ports import free_port
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.reader import open_reader
from tests.builders import SECRET, codec, signed_headers
from tests.cluster import STANDARD_TOPICS
from tests.integration.service_process import NO_AUTHORITIES, ServiceProcess, until


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> dict[str, Any]:
        document = orjson.loads(self.body)
        assert isinstance(document, dict)
        return document


class IngressProcess(ServiceProcess):
    """An ingress.

    The topics of the contract are shared by all tests of a session, so each run has a unique source name, by which
    `records` selects its records.
    """

    def __init__(
        self, directory: Path, bootstrap_servers: str, *, command: Sequence[str] = (), source: str = "", **settings: str
    ) -> None:
        """Start it and do not wait; `settings` are environment variables without their prefix.

        With `source` it is a replica of another run, and `records` includes those of both.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self.bootstrap_servers = bootstrap_servers
        self.source = source or f"s{uuid4().hex}"
        self.instance = f"i{uuid4().hex}"
        self.secrets_dir = _secrets_dir(directory)
        port = free_port()
        self.url, management_port = f"http://127.0.0.1:{port}", free_port()
        super().__init__(
            command or serve_command(),
            self._environment(port, management_port, settings),
            outputs=(directory / "stdout", directory / "stderr"),
            management_url=f"http://127.0.0.1:{management_port}",
        )

    def _environment(self, port: int, management_port: int, settings: Mapping[str, str]) -> dict[str, str]:
        source = f"BRIDGE_SOURCES__{self.source}__"
        inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("BRIDGE_")}
        return {
            **inherited,
            **NO_AUTHORITIES,
            "BRIDGE_INSTANCE": self.instance,
            "BRIDGE_HEARTBEAT__ENABLED": "false",  # most tests count everything that is posted
            "BRIDGE_SPOOL__DIR": str(self.secrets_dir.parent / "spool"),
            "BRIDGE_HTTP__HOST": "127.0.0.1",
            "BRIDGE_HTTP__PORT": str(port),
            "BRIDGE_MANAGEMENT__HOST": "127.0.0.1",
            "BRIDGE_MANAGEMENT__PORT": str(management_port),
            "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": self.bootstrap_servers,
            f"{source}PROFILE": "drx_standard",
            f"{source}ENVIRONMENT": "sandbox",
            f"{source}SECRETS_DIR": str(self.secrets_dir),
            **{f"BRIDGE_{name}": value for name, value in settings.items()},
        }

    @property
    def webhook_url(self) -> str:
        return f"{self.url}/webhooks/{self.source}"

    def live(self) -> Self:
        """Wait until both ports respond with any status."""
        until(lambda: self.asked("/livez")[0] and self.asked("", url=self.url)[0], what="a live process")
        return self

    async def records(self) -> list[ConsumedRecord]:
        connection = KafkaConnection(self.bootstrap_servers)
        async with open_reader(connection, list(STANDARD_TOPICS), from_beginning=True) as found:
            return [record async for record in found.until_end() if record.header("ce_source") == self.source]


def serve_command() -> list[str]:
    return [sys.executable, "-m", "bridge", "serve"]


async def ask(session: aiohttp.ClientSession, url: str, **options: Any) -> Reply:
    """Make one request of any method (GET unless `method` says otherwise)."""
    async with session.request(options.pop("method", "GET"), url, **options) as answer:
        return Reply(answer.status, await answer.read(), dict(answer.headers))


async def deliver(
    session: aiohttp.ClientSession, ingress: IngressProcess, body: bytes, *, webhook_id: str, **headers: str
) -> Reply:
    """Make one genuine delivery, except for the given `headers` (`_` for `-`)."""
    changes = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = signed_headers(body, webhook_id=webhook_id) | changes
    return await ask(session, ingress.webhook_url, method="POST", data=body, headers=sent)


def header(record: ConsumedRecord, name: str) -> str:
    (value,) = (value for each, value in record.headers if each == name)
    return value.decode()


def value_of(record: ConsumedRecord) -> dict[str, Any]:
    assert record.value is not None
    return codec().decode(record.value, record.headers).value


def _secrets_dir(directory: Path) -> Path:
    secrets = directory / "secrets"
    secrets.mkdir()
    (secrets / "current").write_text(SECRET)
    return secrets
