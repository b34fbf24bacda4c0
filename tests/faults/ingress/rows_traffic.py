"""Rows in which nothing breaks, but senders are a nuisance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from bridge.settings import Http
from tests.builders import a_growing_body
from tests.faults.ingress.ledger import Delivery
from tests.faults.ingress.load import PATIENCE_S
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene

COPIES = 10
SENDERS = 16
BODY_MAX_BYTES: int = Http.model_fields["body_max_bytes"].default


async def tenfold(scene: Scene) -> None:
    """Make every delivery ten times, all of them shuffled."""
    told = [scene.load.prescriptions.new() for _ in range(scene.tier.times(25))]
    deliveries = [delivery for prescription in told for delivery in prescription.deliveries] * COPIES
    scene.rng.shuffle(deliveries)
    left = iter(deliveries)

    async def send() -> None:
        for delivery in left:
            await scene.load.deliver(delivery, stubborn=True)

    await _all_of(scene, send)


async def conflicting(scene: Scene) -> None:
    """Send another body under the id of one that was taken, and two bodies under one id at the same time."""
    told = [scene.load.prescriptions.new() for _ in range(scene.tier.times(25))]
    left = iter(told)

    async def send() -> None:
        for prescription in left:
            for delivery in prescription.deliveries:
                other = scene.load.prescriptions.another(delivery, id=delivery.id, account_id="acct_other")
                await _send_both(scene, delivery, other)

    await _all_of(scene, send)


async def growing(scene: Scene) -> None:
    """Beside others send bodies of the largest size that become records of four times as many bytes."""
    numbers = iter(range(scene.tier.times(25)))

    async def send() -> None:
        for number in numbers:
            event_id, key = f"evt_growing_{number}", f"{scene.load.prescriptions.key_mark}g{number}"
            body = a_growing_body(BODY_MAX_BYTES, id=event_id, key=key)
            await scene.load.deliver(Delivery(event_id, key, body), stubborn=True)

    async with scene.load.open(), scene.load.poisson(scene.tier.rate):
        await send()


async def _send_both(scene: Scene, delivery: Delivery, other: Delivery) -> None:
    if scene.rng.random() < 0.5:
        await scene.load.deliver(delivery, stubborn=True)
        await scene.load.deliver(other, stubborn=True, kind="conflict")
    else:
        await asyncio.gather(
            scene.load.deliver(delivery, stubborn=True), scene.load.deliver(other, stubborn=True, kind="rival")
        )


async def _all_of(scene: Scene, send: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.timeout(PATIENCE_S * scene.tier.factor), scene.load.open(), asyncio.TaskGroup() as group:
        for _ in range(SENDERS):
            group.create_task(send())


ROWS = (
    Row("K1", "every delivery ten times, shuffled", tenfold),
    Row("K2", "another body under the same id", conflicting),
    Row("K3", "the largest bodies, whose records are four times as large", growing),
)
