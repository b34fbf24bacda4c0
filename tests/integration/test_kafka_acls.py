"""With the ACLs of `topics create --acls`, on a broker with its authorizer on, a process can work and do no more."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import aiohttp
import pytest
from click.testing import CliRunner
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # as tests.kafka  # type: ignore[attr-defined]  # as above
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from bridge.commands.topics import topics as topics_command
from bridge.kafka.connection import Connection
from bridge.kafka.reader import ReadError, open_reader
from bridge.kafka.record import Record
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC
from bridge.settings import Brokers
from tests.builders import a_body
from tests.integration.consumer_process import consumer_environment, drx_consumer, install_code
from tests.integration.ingress_process import IngressProcess, deliver
from tests.kafka import HANG_S, ready_producer
from tests.secured import SecuredCluster

pytestmark = pytest.mark.kafka

GROUP = "desk"
CODE = f"""
from consumers.api import Consumer
consumer = Consumer(name="desk", group="{GROUP}", topics=["{PRESCRIPTIONS_TOPIC}"])
@consumer.handler
async def handle(event, context): ...
"""


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredCluster]:
    found = SecuredCluster(tmp_path_factory.mktemp("secured"), passwords={"ingress": "i-secret", "desk": "d-secret"})
    found.start()
    create = ["create", "--json", "--acls", "ingress=ingress", "--acls", f"{GROUP}=User:desk"]
    environment = {"BRIDGE_KAFKA__BOOTSTRAP_SERVERS": found.bootstrap_servers}
    result = CliRunner().invoke(topics_command, create, env=environment, standalone_mode=False)
    assert result.return_value == 0, result.output
    acls = [json.loads(line)["acl"] for line in result.stdout.splitlines() if "acl" in json.loads(line)]
    assert {each["principal"] for each in acls} == {"User:ingress", "User:desk"}
    yield found
    found.stop()


def settings(connection: Connection) -> dict[str, str]:
    """As environment variables without their prefix."""
    given = {name: getattr(connection, name) for name in Brokers.model_fields}
    return {f"KAFKA__{name.upper()}": str(value) for name, value in given.items() if value}


def an_ingress(secured: SecuredCluster, directory: Path) -> IngressProcess:
    return IngressProcess(directory, secured.bootstrap_servers, **settings(secured.connection("ingress")))


async def test_an_ingress_works_with_its_acls_and_spools_without_them(secured: SecuredCluster, tmp_path: Path) -> None:
    """An ACL that is taken away has a name in the checks, costs no event, and is given back without a restart."""
    writes = AclBindingFilter(
        ResourceType.TOPIC,
        PRESCRIPTIONS_TOPIC,
        ResourcePatternType.LITERAL,
        "User:ingress",
        None,  # type: ignore[arg-type]  # any host; its stub does not say so
        AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )
    admin = AdminClient({"bootstrap.servers": secured.bootstrap_servers})
    with an_ingress(secured, tmp_path) as ingress:
        await asyncio.to_thread(ingress.ready)
        async with aiohttp.ClientSession() as session:

            async def status(number: int) -> int:
                body = a_body(id=f"evt_{ingress.source}_{number}")
                return (await deliver(session, ingress, body, webhook_id=f"evt_{ingress.source}_{number}")).status

            assert await status(1) == 200
            (deleted,) = admin.delete_acls([writes]).values()
            (binding,) = await asyncio.to_thread(deleted.result)
            assert await status(2) == 202
            assert b'outcome="not_authorized"' in (await asyncio.to_thread(ingress.asked, "/metrics"))[1]
            await asyncio.to_thread(admin.create_acls([binding])[binding].result)
            async with asyncio.timeout(HANG_S):
                while len(await ingress.records()) < 2:  # noqa: ASYNC110 - another process gives us no event
                    await asyncio.sleep(0.1)
            assert await status(3) == 200
        assert {record.header("ce_id") for record in await ingress.records()} == {
            f"evt_{ingress.source}_{number}" for number in (1, 2, 3)
        }


class Tokens(BaseHTTPRequestHandler):
    """A token endpoint that knows one client and says how often it was asked."""

    asked: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        form = self.rfile.read(int(self.headers["content-length"]))
        login = base64.b64decode(self.headers["authorization"].removeprefix("Basic ")).decode()
        self.asked.append(form)
        claims = {"sub": "ingress", "iat": time.time(), "exp": time.time() + 3600}
        token = ".".join([*(unsigned(each) for each in ({"alg": "none"}, claims)), ""])
        known = login == "ingress:i-secret"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(json.dumps({"access_token": token, "expires_in": 3600} if known else {}).encode())

    def log_message(self, *_: object) -> None:
        pass


def unsigned(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


@pytest.fixture
def token_url() -> Iterator[str]:
    Tokens.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Tokens) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/token"
        server.shutdown()


@pytest.mark.parametrize("how", ["password", "token", "certificate"])
async def test_an_ingress_whose_login_fails_spools_until_it_is_renewed(
    secured: SecuredCluster, token_url: str, tmp_path: Path, how: str
) -> None:
    """A password was changed, or a certificate has ended: the files are replaced, and nothing is restarted."""
    if how == "certificate":
        given = settings(secured.by_certificate("ingress", ends=timedelta(days=-1)))
    else:
        given = settings(secured.connection("ingress", password="the one before"))
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
