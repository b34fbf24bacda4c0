"""Every scheme through a real socket."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path

import pytest

from bridge.ingress.profiles.lookup import load_profile
from bridge.ingress.proof import FixedSecrets
from bridge.ingress.routes import Source
from bridge.ingress.schemes.presets import configure
from bridge.ingress.secrets import slots_of
from bridge.runtime.slots import SlotDirectory
from tests.builders import a_body
from tests.component.test_ingress import Ingress, running
from tests.rotation import BAD_FILES, SENDERS, Sender
from tests.schemes import VERIFIED, Vector, vectors

# Over a socket the clock is the real one, so only what has no time, and the peer is this machine.
TIMELESS = [
    vector
    for vector in vectors("body_hmac", "ed25519", "secret_header", "basic", "url_token", "presets")
    if not vector.scheme.dated
    and vector.given["name"] != "rfc4231_case_3"  # its body is no ASCII
    and not any("accept_until" in slot or "not_before" in slot for slot in vector.given["slots"])
]


def a_source(vector: Vector, name: str = "drx") -> Source:
    return Source(name, "sandbox", load_profile("drx_standard"), vector.scheme, FixedSecrets(vector.slots))


async def sent(ingress: Ingress, vector: Vector, *, name: str = "drx", wrong: bool = False) -> tuple[int, bytes]:
    """Send the delivery of a vector; return status and body of the answer."""
    heads = dict(vector.raw.heads)
    query = vector.raw.query
    if wrong:
        table = bytes.maketrans(b"0123456789stuv", b"1234567890tuvs")
        heads = {each: value[:8] + value[8:].translate(table) for each, value in heads.items()}
        query = query[:8] + query[8:].translate(table)
    lines = b"".join(each + b": " + value + b"\r\n" for each, value in heads.items())
    target = b"/webhooks/" + name.encode() + (b"?" + query if query else b"")
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
    answer = await ingress.raw(head % (target, len(vector.raw.body), lines) + vector.raw.body)
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("vector", TIMELESS, ids=lambda vector: vector.name)
async def test_each_vector_is_answered_as_it_says(vector: Vector) -> None:
    async with running(sources=[a_source(vector)]) as ingress:
        status, answer = await sent(ingress, vector)

    said = json.loads(answer)
    if vector.code == VERIFIED:
        assert status in {200, 202}  # most bodies are no events: kept, and never refused
    else:
        assert (status, said) == (401, {"outcome": "refused", "code": vector.code})


async def test_an_unknown_name_is_told_as_what_it_is() -> None:
    """Names are no secrets, and a sender with a typo in its URL should not look for it in its secret."""
    vector = next(each for each in TIMELESS if each.code == VERIFIED)
    async with running(sources=[a_source(vector)]) as ingress:
        status, answer = await sent(ingress, vector, name="nobody")

    assert (status, json.loads(answer)) == (404, {"outcome": "refused", "code": "unknown_source"})
    assert ingress.publisher.published == []


async def test_a_delivery_without_an_id_gets_that_of_its_body() -> None:
    vector = vectors("secret_header")[0]
    body = a_body()
    async with running(sources=[a_source(vector)]) as ingress:
        answers = [await sent(ingress, vector._replace(raw=vector.raw._replace(body=body))) for _ in range(2)]

    said = [json.loads(answer) for _, answer in answers]
    assert [each["outcome"] for each in said] == ["accepted", "duplicate"]
    assert said[0]["id"] == said[1]["id"]
    assert said[0]["id"].startswith("dlv_")
    assert len(said[0]["id"]) == 36


async def test_a_source_may_be_proved_by_its_network() -> None:
    scheme = configure("cidr", {"networks": "127.0.0.0/8"}, tolerance_s=None)
    source = Source("drx", "sandbox", load_profile("drx_standard"), scheme, FixedSecrets(()))
    other = configure("cidr", {"networks": "192.0.2.0/24"}, tolerance_s=None)
    away = Source("away", "sandbox", source.profile, other, FixedSecrets(()))
    async with running(sources=[source, away]) as ingress:
        near = await ingress.post(headers={"content-type": "application/json"})
        far = await ingress.post(headers={"content-type": "application/json"}, path="/webhooks/away")

    assert (near[0], near[1]["outcome"]) == (200, "accepted")
    assert far == (401, {"outcome": "refused", "code": "signature_mismatch"})


async def test_a_credential_in_the_url_is_in_no_line_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    vector = vectors("url_token")[0]
    async with running(sources=[a_source(vector)]) as ingress:
        await sent(ingress, vector)
        await sent(ingress, vector, wrong=True)

    out, err = capfd.readouterr()
    assert vector.given["slots"][0]["line"][:10] not in out + err


@pytest.mark.parametrize("sender", SENDERS.values(), ids=SENDERS)
async def test_secrets_are_rotated_and_spoilt_under_load(sender: Sender, tmp_path: Path) -> None:
    """No delivery with a secret that counts is refused, and none that was taken back is accepted."""
    built = configure(sender.scheme, sender.parameters, tolerance_s=300)
    outcomes: list[str] = []
    (tmp_path / "current").write_text(sender.slot(0))
    watched = SlotDirectory(tmp_path, slots_of(built), source="drx", observe=outcomes.append)
    source = Source("drx", "sandbox", load_profile("drx_standard"), built, watched)

    async with running(sources=[source]) as ingress:

        async def push(number: int, times: int = 5) -> set[int]:
            """Push new deliveries at once with one of the two secrets; return the statuses."""

            async def one() -> int:
                delivery_id = f"evt_{next(count)}"
                body = a_body(id=delivery_id)
                path, headers = f"/webhooks/drx{sender.query(number)}", sender.headers(number, body, delivery_id)
                return (await ingress.post(body, path=path, headers=headers))[0]

            return set(await asyncio.gather(*(one() for _ in range(times))))

        def settled() -> None:
            watched.poll()
            watched.poll()

        count = itertools.count()
        assert await push(0) == {200}
        assert await push(1) == {401}
        (tmp_path / "previous").write_text(sender.slot(0))
        (tmp_path / "current").write_text(sender.slot(1))
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
