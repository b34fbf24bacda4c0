"""Tokens for OAUTHBEARER are kept, renewed in time, and given by others where a site says so."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from socketserver import StreamRequestHandler, TCPServer
from threading import Thread
from typing import Any

import pytest
from aiokafka.abc import AbstractTokenProvider  # noqa: TID251 - what a provider must be

from bridge.kafka.connection import KafkaConnection, refusal
from bridge.kafka.tokens import ClientCredentials, Grant, TokenError, Tokens

GRANT = Grant("http://127.0.0.1:1/token", "me", "canary", "kafka")


class Own(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka is untyped
    fault: Exception | None = None

    async def token(self) -> str:
        if self.fault is not None:
            raise self.fault
        return "own"

    def extensions(self) -> dict[str, str]:
        return {"logicalCluster": "lkc-1"}


async def test_a_token_is_used_until_it_ends_while_the_endpoint_gives_no_other() -> None:
    clock, answers = [0.0], [("first", 100.0)]
    asked = []

    def ask(_: Grant) -> tuple[str, float]:
        asked.append(clock[0])
        if not answers:
            raise TokenError
        return answers.pop()

    provider = ClientCredentials(GRANT, ask=ask, now=lambda: clock[0])
    for clock[0] in (0.0, 80.0, 85.0, 90.0, 99.0):
        assert await provider.token() == "first"
    assert asked == [0.0, 80.0, 90.0, 99.0]
    clock[0] = 100.0
    with pytest.raises(TokenError):
        await provider.token()

    answers.append(("second", 100.0))
    assert await provider.token() == "second"


@pytest.mark.parametrize("fault", [TokenError(), ValueError("canary"), RuntimeError("canary")])
async def test_whatever_a_provider_raises_is_a_connection_that_cannot_be_made(fault: Exception) -> None:
    """With an exception that it does not know, a task of aiokafka would end."""
    provider = Own()
    options = {"sasl_oauth_token_provider": (tokens := Tokens(provider))}
    assert await tokens.token() == "own"
    assert tokens.extensions() == {"logicalCluster": "lkc-1"}
    assert refusal(options).code == "handshake_failed"

    provider.fault = fault
    with pytest.raises(TokenError) as caught:
        await tokens.token()
    assert "canary" not in str(caught.value)
    assert refusal(options).code == "no_token"

    provider.fault = None
    await tokens.token()
    assert refusal(options).code == "handshake_failed"
    assert refusal({}).code == "handshake_failed"


async def test_an_endpoint_that_is_away_says_nothing_of_the_secret() -> None:
    with pytest.raises(TokenError) as caught:
        await ClientCredentials(GRANT).token()

    assert "canary" not in f"{caught.value!r}{caught.value}"
    assert caught.value.__cause__ is None


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Give an endpoint that has one answer for everybody, and what it was asked."""
    asked: list[bytes] = []

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            asked.append(self.request.recv(65_536))
            self.wfile.write(answer)

    with TCPServer(("127.0.0.1", 0), Handler) as server:
        serving = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/token", asked
        finally:
            server.shutdown()
            serving.join()


async def test_the_secret_goes_to_nobody_to_whom_an_endpoint_redirects() -> None:
    with (
        answering(b'HTTP/1.1 200 OK\r\n\r\n{"access_token": "stolen"}') as (elsewhere, stolen),
        answering(f"HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\n\r\n".encode()) as (url, asked),
        pytest.raises(TokenError),
    ):
        await ClientCredentials(replace(GRANT, url=url)).token()

    assert (len(asked), stolen) == (1, [])


async def test_tokens_come_from_a_provider_of_a_site() -> None:
    """For MSK IAM, say; the connection needs no files then."""
    connection = KafkaConnection(
        "kafka:9092",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="OAUTHBEARER",
        sasl_token_provider=f"{__name__}:Own",
    )
    options: dict[str, Any] = connection.options()

    assert await options["sasl_oauth_token_provider"].token() == "own"
    assert "sasl_plain_password" not in options
