import asyncio
import time
from functools import partial
from http import HTTPStatus

from bridge.settings import SourceSettings
from tests.faults.ingress.clock import SEEN_S, Clock
from tests.faults.ingress.ledger import Kind
from tests.faults.ingress.load import AGAIN, PATIENCE_S, RETRY_FIRST_S, SIGNED_S
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene
from tests.integration.service_process import until

# Of the ingress's clock; the tolerance of a source is half of it.
STEP_S = 600.0
DRIFT_S = 3_600
# Brokers refuse times more than an hour ahead (`message.timestamp.after.max.ms`).
FAR_S = 7_200.0
TOLERANCE_S: int = SourceSettings.model_fields["tolerance_s"].default
# Offset of the clock, and the code of the refusal; None if the delivery is accepted.
EDGES: tuple[tuple[int, str | None], ...] = (
    (-TOLERANCE_S, None),
    (TOLERANCE_S, None),
    (-TOLERANCE_S - 1, "timestamp_stale"),
    (TOLERANCE_S + 1, "timestamp_future"),
)
# The shortest dedupe window there is, and for how long a delivery counts that is signed as far ahead as may be.
WINDOW_S, COUNTS_S = 600, 598
CAPTURED = 10
# So long after it was captured, and after another restart, what a delivery is answered.
REPLAYS = (
    (COUNTS_S, HTTPStatus.OK, "duplicate"),
    (COUNTS_S + 1, HTTPStatus.UNAUTHORIZED, "refused"),
    (WINDOW_S + 1, HTTPStatus.UNAUTHORIZED, "refused"),
)


async def stepped(scene: Scene) -> None:
    """Step the clocks of ingress and senders together, with Kafka, then back and forth without it.

    Sometimes the clock is stopped, and each edge of the tolerance is tested to the second. At the end only the senders'
    clock is an hour off, and all their deliveries are refused.
    """
    clock = await give_clock(scene)
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(1)):
            await asyncio.to_thread(scene.ingress.ready)
            step(scene, clock, STEP_S)
            await asyncio.sleep(SIGNED_S + SEEN_S)
            await _edges(scene, clock, STEP_S)
            for ahead_s in (-STEP_S, STEP_S):
                scene.brokers.pause()
                await asyncio.sleep(0.5)
                step(scene, clock, ahead_s)
                await scene.lasting(1)
                await scene.heal()
                await _edges(scene, clock, ahead_s)
        step(scene, clock, 0.0)
    async with scene.load.open():
        await asyncio.sleep(SIGNED_S + SEEN_S)
        for drift_s, reason in ((DRIFT_S, "timestamp_future"), (-DRIFT_S, "timestamp_stale")):
            await _signed_at(scene, int(time.time()) + drift_s, reason)


async def far_ahead(scene: Scene) -> None:
    """Step the ingress's clock and the senders' two hours ahead and back: brokers refuse times of the next hour."""
    clock = await give_clock(scene)
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(1)):
            await asyncio.to_thread(scene.ingress.ready)
            step(scene, clock, FAR_S)
            await asyncio.sleep(SIGNED_S + SEEN_S)
            await asyncio.to_thread(until, lambda: scene.spooled() > 0, what="events with a time that is refused")
            await scene.lasting(3)
            step(scene, clock, 0.0)
            await asyncio.sleep(SIGNED_S + SEEN_S)
            await scene.heal()


async def replayed(scene: Scene) -> None:
    source = f"BRIDGE_SOURCES__{scene.ingress.source}__"
    clock = Clock(scene.directory / "clock")
    scene.ingress.env |= clock.environment
    scene.ingress.env |= {f"{source}TOLERANCE_S": str(COUNTS_S // 2), f"{source}DEDUPE_WINDOW_S": str(WINDOW_S)}
    async with scene.load.open():
        for _ in range(scene.tier.times(1)):
            at = int(time.time())
            await _start_at(scene, clock, at)
            told = [scene.load.prescriptions.new().deliveries[0] for _ in range(CAPTURED)]
            captured = [(each, scene.keys.sign(each.id, at + COUNTS_S // 2, each.body)) for each in told]
            for each, headers in captured:
                assert (await scene.load.attempt(each, "genuine", headers)).status == HTTPStatus.OK
            for later_s, status, said in REPLAYS:
                await _start_at(scene, clock, at + later_s)
                for each, headers in captured:
                    attempt = await scene.load.attempt(each, "replayed", headers)
                    assert (attempt.status, attempt.outcome) == (status, said), (later_s, attempt)
            await scene.kill()
            clock.step(0.0)
            scene.ingress.start()


async def _start_at(scene: Scene, clock: Clock, at: int) -> None:
    """Restart it with a stopped clock, which takes effect at once; wait until it has read its topics."""
    await scene.kill()
    clock.hold(at)
    scene.ingress.start()
    await asyncio.to_thread(scene.ingress.ready)
    read = partial(scene.ingress.metric, "drxbridge_dedupe_ready")
    await asyncio.to_thread(until, lambda: read() == 1, what="topics that were read")


async def give_clock(scene: Scene) -> Clock:
    clock = Clock(scene.directory / "clock")
    await asyncio.to_thread(scene.ingress.kill)
    scene.ingress.env |= clock.environment
    scene.ingress.start()
    return clock


def step(scene: Scene, clock: Clock, ahead_s: float) -> None:
    clock.step(ahead_s)
    scene.load.step(ahead_s)


async def _edges(scene: Scene, clock: Clock, ahead_s: float) -> None:
    held = scene.load.now
    clock.hold(held)
    await asyncio.sleep(SEEN_S)
    for off_s, reason in EDGES:
        await _signed_at(scene, held + off_s, reason)
    clock.step(ahead_s)


async def _signed_at(scene: Scene, at: int, reason: str | None) -> None:
    delivery = scene.load.prescriptions.new().deliveries[0]
    headers = scene.keys.sign(delivery.id, at, delivery.body)
    kind: Kind = "stale" if reason else "genuine"
    async with asyncio.timeout(PATIENCE_S):
        while (attempt := await scene.load.attempt(delivery, kind, headers)).status in AGAIN:  # noqa: ASYNC110 - another process
            await asyncio.sleep(RETRY_FIRST_S)
    if reason:
        assert (attempt.status, attempt.reason) == (HTTPStatus.UNAUTHORIZED, reason), attempt
    else:
        assert attempt.promised, attempt


ROWS = (
    Row("T1", "clocks stepped by ten minutes and held still, the provider's an hour off", stepped),
    Row("T2", "clocks two hours ahead, and right again", far_ahead),
    Row("T3", "captured deliveries sent again at the edges of the dedupe window, with a restart", replayed),
)
