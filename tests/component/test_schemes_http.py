"""Every scheme over a real socket."""

import asyncio
import itertools
import time
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from bridge.proof.scheme import FixedSecrets
from bridge.proof.schemes.presets import configure
from bridge.proof.secrets import slots_of
from bridge.runtime.secret_files import SlotDirectory
from bridge.sender.signing import read_signer
from tests.builders import a_body
from tests.component.test_ingress import Ingress, a_source, running
from tests.schemes import Vector, vectors


async def sent(ingress: Ingress, vector: Vector, *, body: bytes, query: bytes) -> bytes:
    """Send the delivery of a vector with another body or query; return the body of the answer."""
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in vector.raw.headers.items())
    target = b"/webhooks/drx" + (b"?" + query if query else b"")
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    return (await ingress.raw(head % (target, len(body), lines) + body)).partition(b"\r\n\r\n")[2]


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
            await sent(ingress, vector, body=vector.raw.body, query=query)

    out, err = capfd.readouterr()
    assert vector.given["slots"][0]["line"][:10] not in out + err


# Schemes that a sender can be played for, with what else they need to know.
SENDERS: dict[str, dict[str, str]] = {
    **{name: {} for name in ("standard_webhooks", "github", "shopify", "stripe", "dosespot", "secret_header", "basic")},
    "photon": {"template": "{timestamp}.{body}"},
}
# What an editor, a full disk or a template without its value leaves behind.
BAD_FILES = {"empty": "", "garbage": "not\x00", "half": "half: " * 2000}


def a_secret(scheme: str, number: int) -> str:
    """Return the first secret of a sender or another one."""
    text = sha256(f"{scheme} {number}".encode()).hexdigest()
    forms = {"standard_webhooks": f"whsec_{b64encode(bytes.fromhex(text)).decode()}", "basic": f"drx:{text}"}
    return forms.get(scheme, text)


@pytest.mark.parametrize("scheme", SENDERS)
async def test_secrets_are_rotated_and_spoilt_under_load(scheme: str, tmp_path: Path) -> None:
    """No delivery with a secret that counts is refused, and none that was taken back is accepted."""
    built = configure(scheme, SENDERS[scheme], tolerance_s=300)
    outcomes: list[str] = []
    texts = [a_secret(scheme, number) for number in (0, 1)]
    signers = []
    for text in texts:
        (tmp_path / "current").write_text(text)
        signers.append(read_signer(built, tmp_path / "current"))
    (tmp_path / "current").write_text(texts[0])
    watched = SlotDirectory(tmp_path, slots_of(built), source="drx", observe=outcomes.append)
    async with running(sources=[a_source(scheme=built, secrets=watched)]) as ingress:

        async def push(number: int, times: int = 5) -> set[int]:
            """Push new deliveries at once with one of the two secrets; return the statuses."""

            async def one() -> int:
                delivery_id = f"evt_{next(count)}"
                body = a_body(id=delivery_id)
                proof = signers[number](delivery_id, int(time.time()), body)
                return (await ingress.post(body, headers={"content-type": "application/json", **proof}))[0]

            return set(await asyncio.gather(*(one() for _ in range(times))))

        def settled() -> None:
            watched.poll()
            watched.poll()

        count = itertools.count()
        assert await push(0) == {200}
        assert await push(1) == {401}
        (tmp_path / "previous").write_text(texts[0])
        (tmp_path / "current").write_text(texts[1])
        watched.poll()
        assert await push(0) == {200}
        watched.poll()
        assert await push(0) | await push(1) == {200}
        for bad in BAD_FILES.values():
            (tmp_path / "next").write_text(bad)
            settled()
            assert await push(0) | await push(1) == {200}, bad
        (tmp_path / "next").unlink()
        (tmp_path / "previous").unlink()
        settled()
        assert await push(1) == {200}
        assert await push(0) == {401}

    assert outcomes.count("reloaded") == 2
    assert outcomes.count("failed") >= len(BAD_FILES)
