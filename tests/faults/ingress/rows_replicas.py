"""Rows with several replicas behind a balancer."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.ingress.balancer import Balancer
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene
from tests.integration.ingress_process import IngressProcess

REPLICAS = 3
# In the longer tier 20,000 requests.
RATE, REQUESTS = 300.0, 4_000


async def rolling(scene: Scene) -> None:
    """Replace every replica, one after the other, again and again; no sender sees anything but 2xx."""
    with ExitStack() as stack:
        # A socket's path must be short.
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="drx-lb-")))
        replicas = [scene.ingress, *(stack.enter_context(_replica(scene, number)) for number in range(1, REPLICAS))]
        for each in replicas:
            await asyncio.to_thread(each.ready)
        balancer = Balancer(directory, replicas)
        stack.enter_context(balancer.running())
        before = len(scene.ledger.attempts)
        with scene.load.going_to(balancer.url):
            async with scene.load.poisson(RATE):
                for number in cycle(range(REPLICAS)):
                    await balancer.replace(number)
                    if len(scene.ledger.attempts) - before >= scene.tier.times(REQUESTS):
                        break
        failed = [
            each
            for each in scene.ledger.attempts[before:]
            if each.kind not in {"forged", "stale"} and not each.promised
        ]
        assert failed == []


def _replica(scene: Scene, number: int) -> IngressProcess:
    """Run one more of the same: other ports, another instance and spool, the same source, secrets and topic."""
    first = scene.ingress
    settings = {
        name.removeprefix("BRIDGE_"): value
        for name, value in first.env.items()
        if name.startswith(("BRIDGE_KAFKA__ROUTES", f"BRIDGE_SOURCES__{first.source}__SECRETS_DIR"))
    }
    return IngressProcess(
        scene.directory / f"replica-{number}", first.bootstrap_servers, source=first.source, **settings
    )


ROWS = (Row("P2", "three replicas behind a balancer, replaced one by one", rolling, replicas=REPLICAS),)
