import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import cycle, pairwise
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.ingress.balancer import BY_SOURCE, Balancer
from tests.faults.ingress.ledger import HOSTILE, Attempt
from tests.faults.ingress.oracle import Logged
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
LOOK_S = 0.25


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
        lags = Lags([scene.ingress, *others])
        before = len(scene.ledger.attempts)
        async with lags.watching():
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
        found = _late_repeats(scene.ledger.attempts, await scene.log(), lag_s=lags.worst_s)
        assert found == [], f"written again although the follow was {lags.worst_s:.1f} s behind at most"


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


class Lags:
    """The reported lags of all replicas.

    Attributes:
        worst_s: The most so far.
    """

    def __init__(self, replicas: Sequence[IngressProcess]) -> None:
        self._replicas = replicas
        self.worst_s = 0.0

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _watch(self) -> None:
        while True:
            for each in self._replicas:
                with suppress(OSError, AssertionError):  # it may just be dead
                    lag_s = await asyncio.to_thread(each.metric, "drxbridge_dedupe_follow_lag_seconds")
                    self.worst_s = max(self.worst_s, 0.0 if isnan(lag_s) else lag_s)
            await asyncio.sleep(LOOK_S)


def _late_repeats(attempts: Sequence[Attempt], log: Sequence[Logged], *, lag_s: float) -> list[str]:
    """Find the events that are repeated although every attempt got a response, and the next came after any lag.

    Spooled events, and those without a response, may be written at any later time.
    """
    written = Counter((each.event_id, each.parked) for each in log)
    twice = {event_id for (event_id, _), times in written.items() if times > 1}
    of: defaultdict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        if attempt.delivery.id in twice and attempt.kind not in HOSTILE:
            of[attempt.delivery.id].append(attempt)
    return sorted(
        event_id
        for event_id, made in of.items()
        if all(each.promised and each.outcome != "spooled" for each in made)
        and all(later.sent_at - earlier.answered_at > lag_s + LOOK_S for earlier, later in pairwise(made))
    )


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
