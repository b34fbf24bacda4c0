"""A broker that asks who its clients are and what they may: TLS, passwords, tokens or certificates, and ACLs."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from confluent_kafka.admin import AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion  # type: ignore[attr-defined]  # as tests.kafka

from bridge.dev.ports import free_port
from bridge.kafka.connection import KafkaConnection
from tests.certificates import Authority, self_signed
from tests.cluster import EmbeddedCluster


class SecuredCluster(EmbeddedCluster):
    """One broker with Kafka's own authorizer, a listener by `SASL_SSL`, and one by `SSL` that wants a certificate.

    A user has the same password by PLAIN, where it never changes, and by SCRAM, where `set_password` changes it. Who
    comes by its first listener is `ANONYMOUS` and may do all, as an administrator would.
    """

    def __init__(
        self, directory: Path, *, passwords: Mapping[str, str], session: timedelta = timedelta(0), tls: bool = True
    ) -> None:
        """Know users by their passwords; certificates are made below `directory`.

        A login by SCRAM or a token ends after `session`, if that is set, and its connection with the next request.
        Without `tls`, the listener for passwords and tokens is one by `SASL_PLAINTEXT`.
        """
        super().__init__(directory, brokers=1)
        self._port, self._mutual_port = free_port(), free_port()
        self._passwords = passwords
        self._session_ms = round(session.total_seconds() * 1000)
        self._protocol = "SASL_SSL" if tls else "SASL_PLAINTEXT"
        self._files = directory
        _, self.authority = self_signed(directory)
        self.clients = Authority(directory / "clients.pem")

    def _prepare(self) -> None:
        super()._prepare()
        path = self._home(1) / "server.properties"
        lines = dict(line.split("=", 1) for line in path.read_text().splitlines())
        secure = f"SECURE://127.0.0.1:{self._port},MUTUAL://127.0.0.1:{self._mutual_port}"
        users = " ".join(f'user_{name}="{password}"' for name, password in self._passwords.items())
        lines["listeners"] += f",{secure}"
        lines["advertised.listeners"] += f",{secure}"
        lines["listener.security.protocol.map"] += f",SECURE:{self._protocol},MUTUAL:SSL"
        plain = f"org.apache.kafka.common.security.plain.PlainLoginModule required {users};"
        lines |= {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "listener.name.secure.sasl.enabled.mechanisms": "PLAIN,OAUTHBEARER,SCRAM-SHA-512",
            # Takes tokens that nobody signed, whose `sub` is the user.
            "listener.name.secure.oauthbearer.sasl.jaas.config": (
                "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
                ' unsecuredLoginStringClaim_sub="broker";'
            ),
            "listener.name.secure.plain.sasl.jaas.config": plain,
            "listener.name.secure.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            "listener.name.secure.scram-sha-512.connections.max.reauth.ms": str(self._session_ms),
            "listener.name.secure.oauthbearer.connections.max.reauth.ms": str(self._session_ms),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self._files / "chain.pem"),
            "listener.name.mutual.ssl.truststore.type": "PEM",
            "listener.name.mutual.ssl.truststore.location": str(self.clients.certificate),
            "listener.name.mutual.ssl.client.auth": "required",
            # `User:ingress`, as one who logs in by password.
            "listener.name.mutual.ssl.principal.mapping.rules": "RULE:^CN=(.*)$/$1/",
        }
        path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    def start(self) -> None:
        super().start()
        for user, password in self._passwords.items():
            self.set_password(user, password)

    def set_password(self, user: str, password: str) -> None:
        """Give `user` another password by SCRAM; who is logged in stays so until the connection ends."""
        scram = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        change = UserScramCredentialUpsertion(user, scram, password.encode())
        admin = AdminClient({"bootstrap.servers": self.bootstrap_servers})
        admin.alter_user_scram_credentials([change])[user].result()

    @property
    def secure_address(self) -> str:
        return f"127.0.0.1:{self._port}"

    def connection(self, user: str, *, password: str | None = None, mechanism: str = "PLAIN") -> KafkaConnection:
        """How `user` connects; the files are rewritten by each call."""
        name, secret = self._files / f"{user}.name", self._files / f"{user}.password"
        name.write_text(user)
        secret.write_text(self._passwords[user] if password is None else password)
        return KafkaConnection(
            self.secure_address,
            security_protocol=self._protocol,
            sasl_mechanism=mechanism,
            sasl_username_file=name,
            sasl_password_file=secret,
            ssl_cafile=self.authority,
        )

    def by_certificate(self, user: str, *, ends: timedelta = timedelta(days=1)) -> KafkaConnection:
        """How `user` connects with a certificate, which is issued anew by each call."""
        certificate, key = self.clients.issue(user, ends=ends)
        return KafkaConnection(
            f"127.0.0.1:{self._mutual_port}",
            security_protocol="SSL",
            ssl_cafile=self.authority,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
