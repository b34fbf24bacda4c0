"""Rows in which clients without a secret attack, while genuine deliveries must not be refused."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager

import aiohttp
import pytest

from tests.faults.ingress.ledger import HOSTILE, Attempt
from tests.faults.ingress.load import PATIENCE_S, STALE_S
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import LOOK_S, READY_S, Scene
from tests.patched import patched

Attack = Callable[[Scene], AbstractAsyncContextManager[None]]

# Shorter than an attack in the short tier lasts.
SHORT_READS = patched("bridge", "serve", READ_TIMEOUT_S=2)
CALM_S, ATTACK_S = 2.0, 8.0
# 503 codes for a slow Kafka or disk, as on an overloaded machine. They are counted.
SLOW_KAFKA = {"deadline", "kafka_unavailable", "outcome_unknown", "spool_unavailable"}
ENDED = "drxbridge_http_connections_ended_total"
# Captured deliveries.
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


def slow_attacks(url: str, *, connections: int, seconds: int) -> Iterator[list[str]]:
    program = shutil.which("slowhttptest", path=f"{os.environ['PATH']}:/usr/local/bin:/usr/bin")
    if program is None:
        pytest.skip("slowhttptest is not installed: `make fault-tools` as root on a Debian, or install it by hand")
    common = f"-c {connections} -r {connections} -l {seconds} -u {url} -t POST -p 30 -f application/json"
    for mode in ("-H -i 1", "-B -i 1 -s 8192", "-X -w 8 -y 16 -n 5 -z 8"):
        yield [program, *mode.split(), *common.split()]


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
    Row("A3", "captured deliveries sent again: altered, elsewhere, otherwise, late", beside(replaying, attack_s=0.0)),
)
