"""A broker that asks who its clients are and what they may: TLS, passwords, tokens or certificates, and ACLs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bridge.dev.ports import free_port
from bridge.kafka.connection import Connection
from tests.certificates import self_signed
from tests.cluster import EmbeddedCluster


class SecuredCluster(EmbeddedCluster):
    """One broker with a second listener, by `SASL_SSL`, and Kafka's own authorizer.

    Who comes by its first listener is `ANONYMOUS` and may do all, as an administrator would.
    """

    def __init__(self, directory: Path, *, passwords: Mapping[str, str]) -> None:
        """Know users by their passwords; certificates are made below `directory`."""
        super().__init__(directory, brokers=1)
        self._port = free_port()
        self._passwords = passwords
        self._files = directory
        _, self.authority = self_signed(directory)

    def _prepare(self) -> None:
        super()._prepare()
        path = self._home(1) / "server.properties"
        lines = dict(line.split("=", 1) for line in path.read_text().splitlines())
        secure = f"SECURE://127.0.0.1:{self._port}"
        users = " ".join(f'user_{name}="{password}"' for name, password in self._passwords.items())
        lines["listeners"] += f",{secure}"
        lines["advertised.listeners"] += f",{secure}"
        lines["listener.security.protocol.map"] += ",SECURE:SASL_SSL"
        plain = f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        lines |= {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "listener.name.secure.sasl.enabled.mechanisms": "PLAIN,OAUTHBEARER",
            # Takes tokens that nobody signed, whose `sub` is the user.
            "listener.name.secure.oauthbearer.sasl.jaas.config": (
                "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
                ' unsecuredLoginStringClaim_sub="broker";'
            ),
            "listener.name.secure.plain.sasl.jaas.config": plain,
            "listener.name.secure.ssl.keystore.type": "PEM",
            "listener.name.secure.ssl.keystore.location": str(self._files / "chain.pem"),
        }
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    @property
    def secure_address(self) -> str:
        """Where clients prove who they are."""
        return f"127.0.0.1:{self._port}"

    def connection(self, user: str, *, password: str | None = None) -> Connection:
        """How `user` connects; the files are rewritten by each call."""
        name, secret = self._files / f"{user}.name", self._files / f"{user}.password"
        name.write_text(user)
        secret.write_text(self._passwords[user] if password is None else password)
        return Connection(
            self.secure_address,
            security_protocol="SASL_SSL",
            sasl_mechanism="PLAIN",
            sasl_username_file=name,
            sasl_password_file=secret,
            ssl_cafile=self.authority,
        )
