"""Schemes that read more than headers and body, over a real socket."""

import pytest

from bridge.proof.scheme import FixedSecrets
from bridge.proof.schemes.presets import configure
from tests.component.test_ingress import a_source, request_bytes, running
from tests.schemes import vectors


async def test_a_source_may_be_proved_by_its_network() -> None:
    scheme = configure("cidr", {"networks": "127.0.0.0/8"}, tolerance_s=None)
    source = a_source(scheme=scheme, secrets=FixedSecrets(()))
    other = configure("cidr", {"networks": "192.0.2.0/24"}, tolerance_s=None)
    away = a_source("away", scheme=other, secrets=FixedSecrets(()))
    async with running(sources=[source, away]) as ingress:
        near = await ingress.post(headers={"content-type": "application/json"})
        far = await ingress.post(headers={"content-type": "application/json"}, path="/webhooks/away")

    assert (near[0], near[1]["outcome"]) == (200, "accepted")
    assert far == (401, {"outcome": "refused", "code": "signature_mismatch"})


async def test_a_credential_in_the_url_is_in_no_line_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    vector = vectors("url_token")[0]
    async with running(sources=[a_source(scheme=vector.scheme, secrets=FixedSecrets(vector.slots))]) as ingress:
        for query in (vector.raw.query, vector.raw.query[:-1]):
            sent = request_bytes(vector.raw.body, [("Content-Type", "application/json")])
            await ingress.raw(sent.replace(b"/webhooks/drx", b"/webhooks/drx?" + query))

    out, err = capfd.readouterr()
    assert vector.given["slots"][0]["line"][:10] not in out + err
