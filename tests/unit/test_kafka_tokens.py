"""Tokens for OAUTHBEARER are stored and renewed in time; a site may supply a token provider."""

from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from aiokafka.abc import AbstractTokenProvider  # noqa: TID251 - what a provider must be

from bridge.kafka.connection import KafkaConnection, refusal
from bridge.kafka.tokens import Grant, TokenError, Tokens, ask_endpoint
from bridge.runtime.access_token import AccessToken
from tests.endpoint import an_endpoint

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

    async def ask() -> tuple[str, float]:
        asked.append(clock[0])
        if not answers:
            raise TokenError
        return answers.pop()

    provider = AccessToken(ask, now=lambda: clock[0])
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
        await ask_endpoint(GRANT)

    assert "canary" not in f"{caught.value!r}{caught.value}"
    assert caught.value.__cause__ is None


async def test_the_secret_goes_to_nobody_to_whom_an_endpoint_redirects() -> None:
    asked: list[str] = []

    async def steal(_: web.BaseRequest) -> web.StreamResponse:
        asked.append("elsewhere")
        return web.json_response({"access_token": "stolen"})

    async with an_endpoint(steal) as elsewhere:

        async def send_on(_: web.BaseRequest) -> web.StreamResponse:
            asked.append("endpoint")
            return web.Response(status=302, headers={"location": elsewhere})

        async with an_endpoint(send_on) as url:
            with pytest.raises(TokenError):
                await ask_endpoint(replace(GRANT, url=url))

    assert asked == ["endpoint"]


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
