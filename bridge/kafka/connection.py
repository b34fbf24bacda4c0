"""Connection and credentials of every Kafka client."""

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from bridge.errors import ConfigError
from bridge.runtime.hosts import is_host

PORT_MAX = 65_535
# Seconds; a running host responds to a SYN in milliseconds, also across regions.
PROBE_S = 2.0
# Raised while brokers are unavailable or refuse. aiokafka's errors are `RuntimeError`s; uvloop also raises one for a
# write to a connection whose reset aiokafka has not noticed yet.
CLIENT_FAILURES = (OSError, RuntimeError)
# Why a broker may not start a session, as advice for the operator.
_NO_SESSION = "frozen, overloaded, another protocol (TLS, SASL) or an ACL; if it worked before, check the brokers first"
# `RuntimeError`s that are bugs of the caller.
BUGS = (NotImplementedError, RecursionError)


class Refusal(NamedTuple):
    """Why a connection got no session: a constant code, and advice for the operator."""

    code: str
    doubt: str


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """Brokers and credentials; secrets stay in their files until a client is built."""

    bootstrap_servers: str  # `host:port`, separated by commas
    security_protocol: str = "PLAINTEXT"  # `PLAINTEXT`, `SSL`, `SASL_PLAINTEXT` or `SASL_SSL`
    sasl_mechanism: str | None = None  # `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` or `OAUTHBEARER`
    # With OAUTHBEARER this file holds the client id, and `sasl_password_file` its secret.
    sasl_username_file: Path | None = None
    sasl_password_file: Path | None = None
    sasl_token_url: str | None = None  # token endpoint for OAUTHBEARER
    sasl_token_scope: str = ""
    sasl_token_provider: str | None = None  # `module:function` that returns a token provider instead
    ssl_cafile: Path | None = None  # CA certificates to trust; the system's when None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None

    @property
    def servers(self) -> list[tuple[str, int]]:
        """Hosts and ports; `ConfigError` if it is not a list of `host:port`."""
        parts = [part.strip() for part in self.bootstrap_servers.split(",")]
        return [_host_and_port(part) for part in parts if part] or [_host_and_port("")]

    def options(self) -> dict[str, Any]:
        """Return keyword arguments of a client; files are read again. `ConfigError` names the setting of a bad file."""
        options: dict[str, Any] = {
            "bootstrap_servers": [_joined(host, port) for host, port in self.servers],
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.endswith("SSL"):
            options["ssl_context"] = self._ssl_context()
        if self.security_protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.sasl_mechanism
            options |= self._login()
        return options

    async def reach(self) -> dict[str, Any]:
        """Return `options` with only the `bootstrap_servers` that accept TCP connections; empty if none does."""
        options = await asyncio.to_thread(self.options)
        options["bootstrap_servers"] = await reachable(self.servers)
        return options

    def producer(self, **options: Any) -> Any:
        """Return an aiokafka producer that is not started."""
        from aiokafka import AIOKafkaProducer  # noqa: PLC0415, TID251 - not for commands without Kafka; the wrapper

        return AIOKafkaProducer(**options)

    def consumer(self, **options: Any) -> Any:
        """Return an aiokafka consumer that is not started."""
        from aiokafka import AIOKafkaConsumer  # noqa: PLC0415, TID251 - as above

        return AIOKafkaConsumer(**options)

    def credentials(self) -> bytes:
        """Return a digest of the credential files, to detect changes."""
        login = (self.sasl_username_file, self.sasl_password_file)
        digest = sha256()
        for path in (*login, self.ssl_cafile, self.ssl_certfile, self.ssl_keyfile):
            with contextlib.suppress(OSError):  # it is being replaced
                digest.update(b"" if path is None else sha256(path.read_bytes()).digest())
        return digest.digest()

    def _login(self) -> dict[str, Any]:
        if self.sasl_mechanism == "OAUTHBEARER":
            return {"sasl_oauth_token_provider": self._tokens()}
        name = _read("sasl_username_file", self.sasl_username_file)
        secret = _read("sasl_password_file", self.sasl_password_file)
        return {"sasl_plain_username": name, "sasl_plain_password": secret}

    def _tokens(self) -> Any:
        # Imported late: with aiokafka it takes 0.05 s of every command.
        from bridge.kafka.tokens import Grant, Tokens, by_client_credentials, load_provider  # noqa: PLC0415

        if self.sasl_token_provider is not None:
            return Tokens(load_provider(self.sasl_token_provider))
        name = _read("sasl_username_file", self.sasl_username_file)
        secret = _read("sasl_password_file", self.sasl_password_file)
        return by_client_credentials(Grant(self.sasl_token_url or "", name, secret, self.sasl_token_scope))

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ssl_cafile)
        except OSError:  # an SSLError is one
            message = f"kafka.ssl_cafile: cannot use {self.ssl_cafile}: not a readable file of PEM certificates"
            raise ConfigError(message) from None
        if self.ssl_certfile is not None:
            try:
                context.load_cert_chain(self.ssl_certfile, self.ssl_keyfile)
            except OSError:
                message = f"kafka.ssl_certfile, kafka.ssl_keyfile: cannot use {self.ssl_certfile} with its key"
                raise ConfigError(message) from None
        return context


def refusal(options: Mapping[str, Any]) -> Refusal:
    """Return why a broker accepted a client's TCP connection but did not start a session."""
    tokens = options.get("sasl_oauth_token_provider")
    if tokens is not None and tokens.failed:
        return Refusal("no_token", "token endpoint, client id or its secret?")
    return Refusal("handshake_failed", _NO_SESSION)


async def reachable(servers: list[tuple[str, int]]) -> list[str]:
    """Return the servers that accept a TCP connection; others would delay the client."""
    answers = await asyncio.gather(*[_answers(host, port) for host, port in servers])
    return [_joined(*server) for server, answered in zip(servers, answers, strict=True) if answered]


async def _answers(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.transport.abort()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _host_and_port(server: str) -> tuple[str, int]:
    host, colon, port = server.rpartition(":")
    if server and (not colon or server.endswith("]")):
        raise ConfigError(f"kafka.bootstrap_servers: {server!r} has no port, as in {server}:9092")
    if not is_host(host.strip("[]")) or not (port.isascii() and port.isdigit() and 0 < int(port) <= PORT_MAX):
        raise ConfigError(f"kafka.bootstrap_servers: {server!r} is not host:port")
    return host.strip("[]"), int(port)


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _read(setting: str, path: Path | None) -> str:
    try:
        text = path.read_text().strip() if path is not None else ""
    except (OSError, UnicodeDecodeError):
        text = ""
    if not text:
        raise ConfigError(f"kafka.{setting}: cannot read {path}, or it is empty")
    return text
