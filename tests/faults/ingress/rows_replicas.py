import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.ingress.balancer import BY_SOURCE, Balancer
from tests.faults.ingress.row import Row
from tests.faults.ingress.rows_paths import DEAF
from tests.faults.ingress.scene import Scene
from tests.integration.ingress_process import IngressProcess
from tests.integration.service_process import until

REPLICAS = 3
# In the longer tier 20,000 requests.
RATE, REQUESTS = 300.0, 4_000
# Two rounds of a kill, a cut and three replacements.
BY_SOURCE_RATE, BY_SOURCE_REQUESTS = 100.0, 2_000
# Longer than the wait for Kafka before spooling.
CUT_OFF_S = 4.0


async def rolling(scene: Scene) -> None:
    """Replace all replicas one by one, repeatedly; every sender must get a 2xx."""
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


async def by_source(scene: Scene) -> None:
    """Send all deliveries of a source to one replica; repeatedly kill it, cut it off from Kafka, replace all."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="drx-lb-")))
        # Only the first one reaches the brokers through the proxies.
        others = [
            stack.enter_context(_replica(scene, number, bootstrap_servers=scene.brokers.bootstrap_servers))
            for number in range(1, REPLICAS)
        ]
        for each in others:
            await asyncio.to_thread(each.ready)
        balancer = Balancer(directory, await _chosen_first(scene, directory, others), policy=BY_SOURCE)
        stack.enter_context(balancer.running())
        before = len(scene.ledger.attempts)
        with scene.load.going_to(balancer.url):
            async with scene.load.poisson(BY_SOURCE_RATE):
                while len(scene.ledger.attempts) - before < scene.tier.times(BY_SOURCE_REQUESTS):
                    await scene.cut_short()
                    await asyncio.to_thread(scene.ingress.ready)
                    await _cut_off(scene)
                    for number in range(REPLICAS):
                        await balancer.replace(number)
        for each in (scene.ingress, *others):
            await asyncio.to_thread(each.ready)
            await asyncio.to_thread(until, partial(_is_drained, each), what="an empty spool")


async def _chosen_first(scene: Scene, directory: Path, others: Sequence[IngressProcess]) -> list[IngressProcess]:
    """Return the replicas, starting with the one that the hash of the path selects."""
    replicas = [scene.ingress, *others]
    balancer = Balancer(directory, replicas, policy=BY_SOURCE)
    with balancer.running():
        async with scene.load.open():
            with scene.load.going_to(balancer.url):
                await scene.load.probe()
        taken = balancer.taken()
    chosen = taken.index(max(taken))
    replicas[0], replicas[chosen] = replicas[chosen], replicas[0]
    return replicas


async def _cut_off(scene: Scene) -> None:
    scene.make_trouble(to_broker=DEAF, to_client=DEAF)
    await scene.lasting(CUT_OFF_S)
    scene.make_trouble()


def _is_drained(replica: IngressProcess) -> bool:
    return replica.metric("drxbridge_spool_events") == 0


def _replica(scene: Scene, number: int, *, bootstrap_servers: str = "") -> IngressProcess:
    first = scene.ingress
    settings = {
        name.removeprefix("BRIDGE_"): value
        for name, value in first.env.items()
        if name.startswith(("BRIDGE_KAFKA__ROUTES", f"BRIDGE_SOURCES__{first.source}__SECRETS_DIR"))
    }
    return IngressProcess(
        scene.directory / f"replica-{number}",
        bootstrap_servers or first.bootstrap_servers,
        source=first.source,
        **settings,
    )


ROWS = (
    Row("P2", "three replicas behind a balancer, replaced one by one", rolling, replicas=REPLICAS),
    Row(
        "R3",
        "three replicas, each source on one of them: killed, replaced, cut off from Kafka",
        by_source,
        detour=True,
        replicas=REPLICAS,
    ),
)
