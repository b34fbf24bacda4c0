"""How the consumer fhir gets the token for its server."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from prometheus_client import CollectorRegistry

from bridge.errors import ConfigError, TransientError
from consumers.fhir.options import NAME, FhirOptions
from consumers.fhir.sink import FhirMetrics, open_server
from consumers.fhir.token import SigningKey, SmartToken, read_key
from consumers.http import open_http
from consumers.options import read_options
from tests.endpoint import an_endpoint
from tests.fhir.fake import a_fake

KEYS: list[SigningKey] = [rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())]


@dataclass
class Issuer:
    """A token endpoint that gives `t1`, `t2`, … to a client that proves its key."""

    key: SigningKey
    url: str = ""
    expires_in: Any = 300
    answer: web.Response | None = None
    now: Callable[[], float] = time.time
    given: list[dict[str, str]] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        form = dict(await request.post())
        if self.answer is not None:
            return self.answer
        claims = self._verified(str(form["client_assertion"]))
        assert (claims["iss"], claims["sub"], claims["aud"]) == ("drx", "drx", self.url)
        assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
        assert claims["exp"] - self.now() <= 300
        self.given.append({name: str(value) for name, value in form.items()} | {"jti": claims["jti"]})
        body = {"access_token": f"t{len(self.given)}", "token_type": "bearer", "expires_in": self.expires_in}
        return web.json_response(body)

    def _verified(self, assertion: str) -> dict[str, Any]:
        algorithm = "RS384" if isinstance(self.key, rsa.RSAPrivateKey) else "ES384"
        assert jwt.get_unverified_header(assertion) == {"alg": algorithm, "typ": "JWT", "kid": "k1"}
        return jwt.decode(  # without the times, which are those of the test's clock
            assertion,
            self.key.public_key(),
            [algorithm],
            audience=self.url,
            options={"verify_iat": False, "verify_exp": False},
        )


@asynccontextmanager
async def an_issuer(key: SigningKey = KEYS[0]) -> AsyncIterator[Issuer]:
    issuer = Issuer(key)

    async with an_endpoint(issuer.handle) as url:
        issuer.url = url
        yield issuer


@asynccontextmanager
async def a_token(issuer: Issuer, now: Callable[[], float] = time.time) -> AsyncIterator[SmartToken]:
    options = FhirOptions.model_construct(
        base_url="", smart_token_url=issuer.url, smart_client_id="drx", smart_key_id="k1"
    )
    async with open_http(issuer.url, allow_http=True) as http:
        yield SmartToken(http, options, key=issuer.key, now=now)


@pytest.mark.parametrize("key", KEYS, ids=["RS384", "ES384"])
async def test_a_client_proves_itself_with_its_key(key: SigningKey) -> None:
    async with an_issuer(key) as issuer, a_token(issuer) as token:
        assert await token.headers() == {"authorization": "Bearer t1"}
        assert await token.headers() == {"authorization": "Bearer t1"}

    (given,) = issuer.given
    assert given["grant_type"] == "client_credentials"
    assert given["scope"] == "system/*.read system/*.write"


def test_a_key_that_is_encrypted_or_of_another_curve_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    p256, p521 = (ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP521R1()))
    for key, password in ((p256, b""), (p521, b""), (KEYS[1], b"hunter2")):
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        with pytest.raises(ConfigError, match=r"^fhir\.smart_key_file: "):
            read_key(file)


@pytest.mark.parametrize("life_s", [5, 60, 3600])
async def test_a_token_is_renewed_after_four_fifths_of_its_life_and_no_assertion_comes_twice(life_s: int) -> None:
    clock = [time.time()]
    async with an_issuer() as issuer, a_token(issuer, lambda: clock[0]) as token:
        issuer.now, issuer.expires_in = lambda: clock[0], life_s
        await token.headers()
        clock[0] += 0.79 * life_s
        assert await token.headers() == {"authorization": "Bearer t1"}
        clock[0] += 0.02 * life_s
        assert await token.headers() == {"authorization": "Bearer t2"}

    assert len({each["jti"] for each in issuer.given}) == 2


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": "invalid_client", "hunter2": 1}),
        (500, {}),
        (200, {"token_type": "bearer"}),
        (200, ["t"]),
        (200, {"access_token": 7}),
        (200, {"access_token": "t", "expires_in": "soon"}),
        (200, {"access_token": "two words", "expires_in": 300}),
    ],
)
async def test_no_record_is_at_fault_for_a_token_that_is_not_given(status: int, body: Any) -> None:
    async with an_issuer() as issuer, a_token(issuer) as token:
        issuer.answer = web.json_response(body, status=status)
        with pytest.raises(TransientError) as caught:
            await token.headers()

    assert (caught.value.code, caught.value.systemic) == ("no_token" if "two" in str(body) else "token_refused", True)


async def test_a_token_that_is_taken_no_more_is_renewed_once(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_bytes(KEYS[0].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    smart = {"smart_token_url": "", "smart_client_id": "drx", "smart_key_file": str(file), "smart_key_id": "k1"}
    async with an_issuer() as issuer, a_fake() as fake:
        smart["smart_token_url"] = issuer.url
        options = read_options(FhirOptions, NAME, {"base_url": fake.url, "allow_http": "true", **smart})
        async with open_server(options, FhirMetrics(CollectorRegistry(), service=NAME)) as server:
            fake.token = "t1"
            await server.ping()
            fake.token = "t2"
            await server.ping()
            fake.token = "never"
            with pytest.raises(TransientError) as caught:
                await server.ping()

    assert (caught.value.code, caught.value.systemic) == ("http_401", True)
    assert len(issuer.given) == 3
