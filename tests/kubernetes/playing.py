"""Load through a Service while something happens to the cluster, and its comparison with the log."""

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from tests.faults.ingress.keys import Keys
from tests.faults.ingress.ledger import Ledger
from tests.faults.ingress.load import Load
from tests.faults.ingress.oracle import Verdict, judge_log
from tests.faults.ingress.results import keep
from tests.faults.ingress.traffic import Prescriptions
from tests.kubernetes.results import RESULTS, Result
from tests.kubernetes.site import INGRESS, Release

RATE, AT_ONCE = 60.0, 40
# Seconds of load before and after what happens.
BESIDE_S = 3.0
# The limit for a hang, not a promise: the machine may be busy.
SETTLED_S = 300.0
_LOOK_S = 0.3


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    title: str
    happens: Callable[[Release], None]
    replicas: int = 1


@contextmanager
def timed(row: str, title: str) -> Iterator[None]:
    """Keep how long a row without load took, if it does not fail."""
    began = time.monotonic()
    yield
    keep(Result(row, title, round(time.monotonic() - began, 1)), RESULTS)


class Play:
    """The senders of one row, and what they have sent to one source of a release."""

    def __init__(self, release: Release, *, source: str = "drx", service: str = INGRESS) -> None:
        rng = random.Random(uuid4().hex)  # noqa: S311 - no keys
        self.release, self.source, self.ledger = release, source, Ledger()
        prescriptions = Prescriptions(uuid4().hex[:10], rng=rng, at_once=AT_ONCE)
        self.load = Load(release.url(service, f"/webhooks/{source}"), Keys(Path()), self.ledger, prescriptions, rng=rng)
        self.began = time.monotonic()

    async def during(self, happens: Callable[[], object], *, rate: float = RATE) -> None:
        """Send while something happens, and a little before and after."""
        async with self.load.poisson(rate):
            await asyncio.sleep(BESIDE_S)
            await asyncio.to_thread(happens)
            await asyncio.sleep(BESIDE_S)

    async def settled(self) -> None:
        """Return when new deliveries are in Kafka at once, and the spools are empty."""
        async with asyncio.timeout(SETTLED_S), self.load.open():
            # Polled: there is no event from another machine.
            while (await self.load.probe()).status != 200 or await asyncio.to_thread(self.spooled) != 0:  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_S)

    def spooled(self) -> float:
        """Return how many events are in spools; -1 while a pod is being replaced."""
        with suppress(RuntimeError):
            return self.release.metric("drxbridge_spool_events")
        return -1

    async def judge(self, row: str, title: str, *, replicas: int) -> Verdict:
        """Compare what was promised with the log, and keep the figures."""
        attempts = self.ledger.attempts
        verdict = judge_log(attempts, await self.release.log(self.source), replicas=replicas)
        result = Result(
            row=row,
            title=title,
            seconds=round(time.monotonic() - self.began, 1),
            requests=len(attempts),
            promised=self.ledger.promised,
            lost=len(verdict.lost),
            foreign=len(verdict.foreign),
            misordered=len(verdict.misordered),
            repeated=verdict.repeated,
            worst_answer_s=round(self.ledger.worst_answer_s, 2),
        )
        keep(result, RESULTS)
        assert self.ledger.promised > 0
        return verdict


def broken(verdict: Verdict) -> dict[str, list[str]]:
    kinds = ("lost", "foreign", "misordered", "answers")
    return {kind: found for kind in kinds if (found := getattr(verdict, kind))}
