"""With the ACLs of docs/security.md, on a broker with an authorizer, a process can work and do no more."""

import asyncio
import base64
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
from click.testing import CliRunner
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # as tests.kafka  # type: ignore[attr-defined]  # as tests.kafka
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from bridge.commands.topics import topics as topics_command
from bridge.dev.ports import free_port
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.reader import ReadError, open_reader
from bridge.kafka.record import Record
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC, RoutingTable
from bridge.settings import Brokers
from tests.builders import a_body, identity_in
from tests.certificates import Authority, self_signed
from tests.cluster import EmbeddedCluster
from tests.groups import forget_members, members
from tests.http_server import served
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer, install_code
from tests.integration.ingress_process import IngressProcess, deliver
from tests.integration.service_process import until
from tests.kafka import HANG_S, ready_producer
from tests.postgres import execute
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka


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


GROUP = "desk"
CODE = f"""
from consumers.api import Consumer
consumer = Consumer(name="desk", group="{GROUP}", topics=["{PRESCRIPTIONS_TOPIC}"])
@consumer.handler
async def handle(event, context): ...
"""
# No test writes what another one has written.
RECORDS = Lives(40).records()


PASSWORDS = {"ingress": "i-secret", "desk": "d-secret"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredCluster]:
    found = SecuredCluster(tmp_path_factory.mktemp("secured"), passwords=PASSWORDS)
    start(found)
    yield found
    found.stop()


@pytest.fixture
def secured(shared: SecuredCluster) -> Iterator[SecuredCluster]:
    """Give one whose group has no members, also if a test has killed one before."""
    yield shared
    forget_members(shared.bootstrap_servers, GROUP)


@pytest.fixture
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredCluster]:
    """Its logins last two seconds; without TLS, since a client that cannot log in tries ten times a second."""
    directory = tmp_path_factory.mktemp("brief")
    found = SecuredCluster(directory, passwords=PASSWORDS, session=timedelta(seconds=2), tls=False)
    start(found)
    yield found
    found.stop()


def start(found: SecuredCluster) -> None:
    found.start()
    environment = {"BRIDGE_KAFKA__BOOTSTRAP_SERVERS": found.bootstrap_servers}
    result = CliRunner().invoke(topics_command, ["create"], env=environment, standalone_mode=False)
    assert result.return_value == 0, result.output
    topic, group = ResourceType.TOPIC, ResourceType.GROUP
    reads = (AclOperation.DESCRIBE, AclOperation.READ)
    writes = (*reads, AclOperation.WRITE, AclOperation.DESCRIBE_CONFIGS)
    routing = RoutingTable()
    permitted = [
        *((topic, name, "ingress", each) for name in routing.topics for each in writes),
        *((topic, name, "desk", each) for name in routing.topics[:-1] for each in reads),
        *((group, GROUP, "desk", each) for each in reads),
    ]
    admin, literal = AdminClient({"bootstrap.servers": found.bootstrap_servers}), ResourcePatternType.LITERAL
    bindings = [
        AclBinding(kind, name, literal, f"User:{user}", "*", operation, AclPermissionType.ALLOW)
        for kind, name, user, operation in permitted
    ]
    for created in admin.create_acls(bindings).values():
        created.result()
    # The controller has them; the broker applies them a moment later.
    *_, last = permitted
    until(lambda: admin.describe_acls(allowed(*last)).result(), what="permissions")


def settings(connection: KafkaConnection) -> dict[str, str]:
    given = {name: getattr(connection, name) for name in Brokers.model_fields}
    return {f"KAFKA__{name.upper()}": str(value) for name, value in given.items() if value}


def allowed(kind: ResourceType, name: str, user: str, operation: AclOperation) -> AclBindingFilter:
    any_host: Any = None  # the stub does not know it
    literal, allow = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
    return AclBindingFilter(kind, name, literal, f"User:{user}", any_host, operation, allow)


async def test_an_ingress_works_with_its_acls_and_spools_without_them(secured: SecuredCluster, tmp_path: Path) -> None:
    """An ACL that is taken away has a name in the checks, costs no event, and is given back without a restart."""
    writes = allowed(ResourceType.TOPIC, PRESCRIPTIONS_TOPIC, "ingress", AclOperation.WRITE)
    admin = AdminClient({"bootstrap.servers": secured.bootstrap_servers})
    with IngressProcess(tmp_path, secured.bootstrap_servers, **settings(secured.connection("ingress"))) as ingress:
        await asyncio.to_thread(ingress.ready)
        async with aiohttp.ClientSession() as session:

            async def status(number: int) -> int:
                body = a_body(id=f"evt_{ingress.source}_{number}")
                return (await deliver(session, ingress, body, webhook_id=f"evt_{ingress.source}_{number}")).status

            # What was permitted a moment ago may not have reached the broker yet.
            await asyncio.to_thread(
                until, lambda: ingress.metric("drxbridge_producer_state", state="ready") == 1, what="a producer"
            )
            assert await status(1) == 200
            (deleted,) = admin.delete_acls([writes]).values()
            (taken,) = await asyncio.to_thread(deleted.result)
            assert await status(2) == 202
            assert b'outcome="not_authorized"' in (await asyncio.to_thread(ingress.asked, "/metrics"))[1]
            await asyncio.to_thread(admin.create_acls([taken])[taken].result)
            async with asyncio.timeout(HANG_S):
                while len(await ingress.records()) < 2:  # noqa: ASYNC110 - another process gives us no event
                    await asyncio.sleep(0.1)
            assert await status(3) == 200
        assert {record.header("ce_id") for record in await ingress.records()} == {
            f"evt_{ingress.source}_{number}" for number in (1, 2, 3)
        }


class Tokens(BaseHTTPRequestHandler):
    """A token endpoint with the users, which counts requests."""

    asked: ClassVar[list[bytes]] = []
    refuses: ClassVar[int | None] = None  # error status of every response, if set
    lifetime_s: ClassVar[int] = 3600  # of a token

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["content-length"]))
        login = base64.b64decode(self.headers["authorization"].removeprefix("Basic ")).decode()
        self.asked.append(form)
        user, _, password = login.partition(":")
        claims = {"sub": user, "iat": time.time(), "exp": time.time() + self.lifetime_s}
        token = ".".join([*(unsigned(each) for each in ({"alg": "none"}, claims)), ""])
        status = self.refuses or (200 if PASSWORDS.get(user) == password else 401)
        self.send_response(status)
        self.end_headers()
        given = {"access_token": token, "expires_in": self.lifetime_s} if status == HTTPStatus.OK else {}
        self.wfile.write(json.dumps(given).encode())


def unsigned(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.fixture
def token_url() -> Iterator[str]:
    Tokens.asked.clear()
    Tokens.refuses, Tokens.lifetime_s = None, 3600
    with served(Tokens) as url:
        yield f"{url}/token"


@pytest.mark.parametrize("how", ["scram", "token", "certificate"])
async def test_an_ingress_whose_login_fails_spools_until_it_is_renewed(
    secured: SecuredCluster, token_url: str, tmp_path: Path, how: str
) -> None:
    """A password was changed, or a certificate has ended: the files are replaced, and nothing is restarted."""
    if how == "certificate":
        given = settings(secured.by_certificate("ingress", ends=timedelta(days=-1)))
    else:
        mechanism = "SCRAM-SHA-512" if how == "scram" else "PLAIN"
        given = settings(secured.connection("ingress", password="the one before", mechanism=mechanism))
    if how == "token":
        given |= {
            "KAFKA__SASL_MECHANISM": "OAUTHBEARER",
            "KAFKA__SASL_TOKEN_URL": token_url,
            "KAFKA__SASL_TOKEN_SCOPE": "kafka",
        }
    with IngressProcess(tmp_path, secured.bootstrap_servers, **given) as ingress:
        await asyncio.to_thread(ingress.ready)
        async with aiohttp.ClientSession() as session:
            body = a_body(id=f"evt_{ingress.source}")
            assert (await deliver(session, ingress, body, webhook_id=f"evt_{ingress.source}")).status == 202
            assert (await asyncio.to_thread(ingress.checks))["kafka"] == "degraded"
            secured.by_certificate("ingress")
            secured.connection("ingress")
            async with asyncio.timeout(HANG_S):
                while not await ingress.records():  # noqa: ASYNC110 - another process gives us no event
                    await asyncio.sleep(0.1)
        assert "i-secret" not in ingress.output()
        if how == "token":
            assert [line["code"] for line in ingress.lines("worker.producer_unavailable")] == ["no_token"]
    assert set(Tokens.asked) == ({b"grant_type=client_credentials&scope=kafka"} if how == "token" else set())


async def test_a_consumer_works_with_its_acls_and_reads_nothing_else(
    secured: SecuredCluster, postgres: str, tmp_path: Path
) -> None:
    connection = secured.connection("desk")
    package = install_code(tmp_path, "desk", CODE)
    env = consumer_environment(bootstrap_servers=secured.secure_address, dsn=postgres, env=package) | {
        f"CONSUMER_{name}": value for name, value in settings(connection).items()
    }

    code, _, err = await drx_consumer(env, "init", "desk", "--from", "earliest")
    assert code == 0, err
    code, _, err = await drx_consumer(env, "lag", "desk")
    assert code == 0, err
    async with ready_producer(secured.bootstrap_servers, PRESCRIPTIONS_TOPIC, partitions=12) as producer:
        await producer.write(PRESCRIPTIONS_TOPIC, 0, [Record(PRESCRIPTIONS_TOPIC, 0, b"rx_1", b"v", [], 1)])
    async with open_reader(connection, [PRESCRIPTIONS_TOPIC], from_beginning=True) as found:
        assert b"v" in [record.value async for record in found.until_end()]
    with pytest.raises(ReadError):
        async with open_reader(connection, [UNRECOGNIZED_TOPIC], from_beginning=True) as found:
            assert [record async for record in found.until_end()] == []


class Desk(ConsumerProcess):
    def __init__(self, directory: Path, connection: KafkaConnection, dsn: str) -> None:
        self.dsn = dsn
        super().__init__(
            directory,
            "desk",
            bootstrap_servers=connection.bootstrap_servers,
            dsn=dsn,
            env=install_code(directory / "package", "desk", CODE),
            **settings(connection) | {"KAFKA__SESSION_S": "6"},
        )

    def applied(self, records: list[Record]) -> bool:
        return self.has({identity_in(each).id for each in records})

    def has(self, event_ids: set[str]) -> bool:
        if not self.lines("worker.assigned"):
            return False
        return event_ids <= {
            event_id for (event_id,) in execute(self.dsn, "select event_id from drx_consumer.inbox")[0]
        }


def written(secured: SecuredCluster) -> list[Record]:
    records = list(islice(RECORDS, 10))
    fill(secured.bootstrap_servers, records)
    return records


@pytest.mark.parametrize(("kind", "name"), [(ResourceType.TOPIC, PRESCRIPTIONS_TOPIC), (ResourceType.GROUP, GROUP)])
def test_a_consumer_goes_on_by_itself_once_it_has_its_acl_again(
    secured: SecuredCluster, postgres: str, tmp_path: Path, kind: ResourceType, name: str
) -> None:
    """It says what it lacks; it may have lost its place in the group meanwhile, with nothing left to commit."""
    admin = AdminClient({"bootstrap.servers": secured.bootstrap_servers})

    def committed() -> int:
        found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(GROUP)])[GROUP].result()
        return sum(each.offset for each in found.topic_partitions)

    def end() -> int:
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        found = admin.list_offsets({TopicPartition(PRESCRIPTIONS_TOPIC, each): latest for each in range(12)})
        return sum(each.result().offset for each in found.values())

    with Desk(tmp_path, secured.connection("desk", mechanism="SCRAM-SHA-512"), postgres) as desk:
        before = written(secured)
        until(lambda: desk.applied(before), what="the first records")
        until(lambda: committed() == end(), what="the commit of the last one")
        (deleted,) = admin.delete_acls([allowed(kind, name, "desk", AclOperation.READ)]).values()
        (taken,) = deleted.result()
        until(lambda: desk.checks()["group"] == "refused", what="the word for it")
        if kind == ResourceType.GROUP:
            forget_members(secured.bootstrap_servers, GROUP)
        after = written(secured)
        admin.create_acls([taken])[taken].result()

        until(lambda: desk.applied(after), what="the others")
        until(lambda: desk.checks()["group"] == "ok", what="that all is well")
        assert len(members(secured.bootstrap_servers, GROUP)) == 1


async def test_a_token_endpoint_that_refuses_for_a_while_costs_no_event(
    brief: SecuredCluster, postgres: str, token_url: str, tmp_path: Path
) -> None:
    """A login ends while no token is to be had: deliveries are spooled, and consumers wait; a new one says why."""
    Tokens.lifetime_s = 2

    def by_token(user: str) -> KafkaConnection:
        return replace(brief.connection(user, mechanism="OAUTHBEARER"), sasl_token_url=token_url)

    with (
        IngressProcess(tmp_path, brief.bootstrap_servers, **settings(by_token("ingress"))) as ingress,
        Desk(tmp_path / "desk", by_token("desk"), postgres) as desk,
    ):
        await asyncio.to_thread(ingress.ready)
        await asyncio.to_thread(desk.ready)
        sent: list[str] = []
        async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:

            async def status() -> int:
                sent.append(f"evt_{ingress.source}_{len(sent)}")
                return (await deliver(session, ingress, a_body(id=sent[-1]), webhook_id=sent[-1])).status

            assert await status() == 200
            for refusal in (401, 500):
                Tokens.refuses = refusal
                while await status() != 202:  # noqa: ASYNC110 - another process gives us no event
                    await asyncio.sleep(0.2)
                asked = len(Tokens.asked)
                await asyncio.to_thread(until, lambda: len(Tokens.asked) > asked + 2, what="more attempts")  # noqa: B023 - asked at once
            with Desk(tmp_path / "late", by_token("desk"), postgres) as late:
                (waits, *_) = await asyncio.to_thread(until, lambda: late.lines("worker.start_waits"), what="its word")
                assert waits["code"] == "no_token"

            Tokens.refuses = None
            while await status() != 200:  # noqa: ASYNC110 - another process gives us no event
                await asyncio.sleep(0.2)
            while len(await ingress.records()) < len(sent):  # noqa: ASYNC110 - another process gives us no event
                await asyncio.sleep(0.2)
        written = [record.header("ce_id") for record in await ingress.records()]
        assert list(dict.fromkeys(written)) == sent
        await asyncio.to_thread(until, lambda: desk.has(set(sent)), what="that all are handled")
        await asyncio.to_thread(until, lambda: desk.checks()["group"] == "ok", what="that all is well")
        assert not [secret for secret in PASSWORDS.values() if secret in ingress.output() + desk.output()]
