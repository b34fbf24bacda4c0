"""Rows in which clients without a secret attack, while genuine deliveries must not be refused."""

import asyncio
import subprocess
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bridge.dev.files import write_text
from tests.component.test_ingress import request_bytes
from tests.component.test_raw_http import played
from tests.faults.ingress.attackers import attacking, slow_attacks
from tests.faults.ingress.ledger import HOSTILE, Attempt
from tests.faults.ingress.load import PATIENCE_S, STALE_S, Load
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import LOOK_S, READY_S, Scene
from tests.integration.service_process import until
from tests.patched import patched
from tests.raw_http import raw_cases, statuses

Attack = Callable[[Scene], AbstractAsyncContextManager[None]]

# Shorter than an attack in the short tier lasts.
SHORT_READS = patched("bridge", "serve", READ_TIMEOUT_S=2)
CALM_S, ATTACK_S = 2.0, 8.0
# 503 codes for a slow Kafka or disk, as on an overloaded machine. They are counted.
SLOW_KAFKA = {"deadline", "kafka_unavailable", "outcome_unknown", "spool_unavailable"}
ENDED = "drxbridge_http_connections_ended_total"
# Captured deliveries, and the altered copies of each.
CAPTURED = 20


def beside(attack: Attack, *ended: str, attack_s: float = ATTACK_S) -> Callable[[Scene], Awaitable[None]]:
    """Run genuine traffic alone, then during an attack until connections were ended for the reasons `ended`.

    One that is over when it has begun needs no `attack_s`.
    """

    async def play(scene: Scene) -> None:
        first = len(scene.ledger.attempts)
        with scene.load.going_to(scene.ingress.url):
            async with scene.load.poisson(scene.tier.rate):
                await scene.lasting(CALM_S)
                attacked = len(scene.ledger.attempts)
                async with attack(scene):
                    await scene.lasting(attack_s)
                    for reason in ended:
                        await _met(scene, reason)
        calm, beside_it = scene.ledger.attempts[first:attacked], scene.ledger.attempts[attacked:]
        scene.p99_calm_s, scene.p99_s = _p99(calm), _p99(beside_it)
        refused = [each for each in [*calm, *beside_it] if each.kind not in HOSTILE and not each.promised]
        by_the_port = [each for each in refused if each.reason not in SLOW_KAFKA]
        assert not by_the_port, [(each.kind, each.status, each.reason, each.sent_at) for each in by_the_port]

    return play


async def _met(scene: Scene, reason: str) -> None:
    async with asyncio.timeout(READY_S):
        while await asyncio.to_thread(scene.ingress.metric, ENDED, reason=reason) == 0:  # noqa: ASYNC110 - another process
            await asyncio.sleep(LOOK_S)


def by(**kinds: int) -> Attack:
    """Open `count` connections of each kind at once, enough to reach the limit, and more in a longer tier."""

    @asynccontextmanager
    async def attack(scene: Scene) -> AsyncIterator[None]:
        with ExitStack() as stack:
            for kind, count in kinds.items():
                stack.enter_context(
                    attacking(kind, scene.ingress.webhook_url, round(count * min(max(scene.tier.factor, 1), 4)))
                )
            yield

    return attack


@asynccontextmanager
async def with_a_public_key(scene: Scene) -> AsyncIterator[None]:
    key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    before = scene.reloads()
    write_text(scene.ingress.secrets_dir / "public", f"whpk_{b64encode(key).decode()}\n")
    await asyncio.to_thread(until, lambda: scene.reloads() > before, what="a public key taken over")
    async with by(asking=400)(scene):
        yield


@asynccontextmanager
async def captured(scene: Scene) -> AsyncIterator[None]:
    delivery = scene.load.prescriptions.new().deliveries[0]
    headers = scene.keys.sign(delivery.id, scene.load.now, delivery.body)
    assert (await scene.load.attempt(delivery, "genuine", headers)).promised
    whole = request_bytes(delivery.body, headers.items(), urlsplit(scene.ingress.webhook_url).path)
    newcomer = Load(scene.ingress.webhook_url, scene.keys, scene.ledger, scene.load.prescriptions, rng=scene.rng)
    with attacking("hogging", scene.ingress.webhook_url, 520, captured=whole):
        yield
        for _ in range(scene.tier.times(CAPTURED)):
            async with newcomer.open():
                await newcomer.probe()


@asynccontextmanager
async def slowly(scene: Scene) -> AsyncIterator[None]:
    connections = round(100 * min(scene.tier.factor, 10))
    commands = slow_attacks(scene.ingress.webhook_url, connections=connections, seconds=int(PATIENCE_S))
    with ExitStack() as stack:
        for command in commands:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603, ASYNC220 - a fixed program
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


@asynccontextmanager
async def rawly(scene: Scene) -> AsyncIterator[None]:
    yield
    url = urlsplit(scene.ingress.webhook_url)
    target = cast("Any", SimpleNamespace(port=url.port))
    for _ in range(scene.tier.times(1)):
        for case in raw_cases():
            pieces = [
                each.replace(b"/webhooks/drx", url.path.encode()).replace(b"v1,", b"v0,") for each in case.pieces()
            ]
            received = await played(target, cast("Any", SimpleNamespace(pieces=partial(list, pieces))))
            # With another path a body is longer than its case says; a malformed request has no method.
            head = case.parts[0].startswith("HEAD") and b"malformed_http" not in received
            for code, _ in statuses(received, head=head):
                assert code < HTTPStatus.INTERNAL_SERVER_ERROR, (case.name, code)


@asynccontextmanager
async def replaying(scene: Scene) -> AsyncIterator[None]:
    yield
    url = scene.ingress.webhook_url
    async with aiohttp.ClientSession() as session:

        async def sent(method: str, to: str, body: bytes, headers: Mapping[str, str]) -> int:
            async with session.request(method, to, data=body, headers=headers) as answer:
                return answer.status

        for _ in range(scene.tier.times(CAPTURED)):
            delivery, other = (scene.load.prescriptions.new().deliveries[0] for _ in range(2))
            at = scene.load.now
            headers = scene.keys.sign(delivery.id, at, delivery.body)
            assert (await scene.load.attempt(delivery, "genuine", headers)).promised
            assert (await scene.load.attempt(delivery, "replayed", headers)).promised
            # A sender with such ids, and how a captured delivery of its could be read otherwise.
            shifted = scene.keys.sign(f"{other.id}.{at}", at + 1, other.body)
            altered = {**shifted, "webhook-id": other.id, "webhook-timestamp": str(at)}
            assert [
                await sent("POST", url, b"%d.%b" % (at + 1, other.body), altered),
                await sent("POST", url, other.body, shifted),
                await sent("POST", url, other.body, headers),
                await sent("POST", f"{url}x", delivery.body, headers),
                await sent("POST", f"{url}/x", delivery.body, headers),
                await sent("PUT", url, delivery.body, headers),
                await sent("POST", url, delivery.body, {**headers, "webhook-timestamp": str(at + 1)}),
                await sent("POST", url, delivery.body, {**headers, "webhook-id": other.id}),
                await sent("POST", url, delivery.body, scene.keys.sign(delivery.id, at - STALE_S, delivery.body)),
            ] == [401, 401, 401, 404, 404, 405, 401, 401, 401]


def _p99(attempts: list[Attempt]) -> float:
    waits = sorted(each.answered_at - each.sent_at for each in attempts if each.status)
    return waits[int(len(waits) * 0.99)] if waits else 0.0


ROWS = (
    Row("H1", "heads, bodies and reading slowed by slowhttptest", beside(slowly, "slow_request"), command=SHORT_READS),
    Row(
        "H2",
        "idle connections beyond the bound, and connections without end",
        beside(by(silent=1_250, connecting=50), "too_many"),
        settings={"HTTP__CONNECTIONS_MAX": "1000"},
        short=False,
    ),
    Row(
        "H3",
        "bodies of 256 KiB declared and not sent, or sent but for a byte",
        beside(by(declaring=300, partial=200), "bodies_full"),
        command=SHORT_READS,
    ),
    Row("H6", "every case of raw HTTP", beside(rawly, attack_s=0.0)),
    Row(
        "H8",
        "requests sent without end and no answer read, and connections that send nothing",
        # Not more: all are answered in turn, and the kernel takes some 600 answers of each before it is full.
        beside(by(deaf=2, silent=200), "unread_answer", "silent"),
        command=SHORT_READS,
    ),
    Row("H9", "bodies in chunks of one byte", beside(by(crumbling=50))),
    Row(
        "H10",
        "unsigned requests of 700 connections at one moment, where 512 deliveries may be in flight",
        beside(by(bursting=700)),
        settings={"HTTP__INFLIGHT_MAX": "512"},
    ),
    Row("H11", "400 requests at one moment, each with two signatures of ed25519", beside(with_a_public_key)),
    Row(
        "H12",
        "a captured delivery on each of more connections than there may be, then half a head",
        beside(captured, "too_many"),
        settings={"HTTP__CONNECTIONS_MAX": "500"},
    ),
    Row("A1", "unsigned requests without end", beside(by(flooding=16)), short=False),
    Row("A3", "captured deliveries sent again: altered, elsewhere, otherwise, late", beside(replaying, attack_s=0.0)),
)
