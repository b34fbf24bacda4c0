import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import orjson

from bridge.dev.kafka import create_topics
from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from tests.cluster import STANDARD_TOPICS
from tests.faults.ingress.keys import Keys
from tests.faults.ingress.ledger import Ledger
from tests.faults.ingress.load import Load
from tests.faults.ingress.oracle import Logged, Verdict, judge_effects, judge_log
from tests.faults.ingress.proxy import proxies
from tests.faults.ingress.readers import reading
from tests.faults.ingress.results import Result
from tests.faults.ingress.scene import RSS_MAX_MIB, Scene, Stage, Tier
from tests.faults.ingress.traffic import Prescriptions
from tests.integration.ingress_process import IngressProcess

PARTITIONS = STANDARD_TOPICS[UNRECOGNIZED_TOPIC]

# Broken promises shown in a failure; a run may have a hundred thousand.
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the fault matrix."""

    name: str
    title: str
    play: Callable[[Scene], Awaitable[None]]  # does it, under load; afterwards everything is healed by the harness
    detour: bool = False  # whether there are proxies in front of the brokers
    effects: bool = True  # whether a read model runs too
    settings: Mapping[str, str] = field(default_factory=dict)  # of the ingress, without their prefix
    replicas: int = 1  # number of ingress processes
    short: bool = True  # whether it also runs in the short tier
    once: bool = False  # whether only events unsettled at a crash may be repeated in the log (docs/guarantees.md)
    command: Sequence[str] = ()  # what to run instead of `serve`


@dataclass(frozen=True, slots=True)
class Outcome:
    result: Result
    verdict: Verdict
    leaks: Sequence[str]

    @property
    def broken(self) -> list[str]:
        kinds = {
            "lost": self.verdict.lost,
            "foreign": self.verdict.foreign,
            "misordered": self.verdict.misordered,
            "wrong answers": self.verdict.answers,
            "wrong states": self.verdict.states,
            "repeated in the log": self.verdict.unexplained,
            "repeated effects": ["…"] * self.verdict.repeated_effects,
            "health information in clear": self.leaks,
            "too large": [] if self.result.rss_peak_mib <= RSS_MAX_MIB else [f"{self.result.rss_peak_mib:.0f} MiB"],
        }
        return [f"{len(cases)} {kind}: {', '.join(cases[:SHOWN])}" for kind, cases in kinds.items() if cases]


async def play(row: Row, stage: Stage, *, seed: int, tier: Tier) -> Outcome:
    async with _scene_of(row, stage, seed=f"{seed}-{row.name}", tier=tier) as scene:
        await scene.warm_up()
        try:
            await row.play(scene)
            await scene.heal()
        except BaseException:
            await asyncio.to_thread(stage.brokers.heal)  # the next row has the same ones
            raise
        await scene.calm_down()
        verdict, leaks = await _judge(scene, row)
        return Outcome(_result(row, scene, verdict), verdict, leaks)


@asynccontextmanager
async def _scene_of(row: Row, stage: Stage, *, seed: str, tier: Tier) -> AsyncIterator[Scene]:
    """Set a scene on an empty topic: ingress and read model as processes, which end with it."""
    # The same seed has the same prescriptions in the same partitions; topic and directory are nobody else's.
    run, word = uuid4().hex[:10], sha256(seed.encode()).hexdigest()[:10]
    topic = f"faults.{run}"
    brokers, directory = stage.brokers, stage.directory / run
    await asyncio.to_thread(create_topics, brokers.bootstrap_servers, {topic: PARTITIONS, **STANDARD_TOPICS})
    rng, chance = (random.Random(f"{seed}-{part}") for part in ("load", "faults"))  # noqa: S311 - no keys
    ledger = Ledger()
    async with AsyncExitStack() as stack:
        between = await stack.enter_async_context(proxies(brokers.detours)) if row.detour else {}
        ingress = stack.enter_context(
            IngressProcess(
                directory / "ingress",
                brokers.detour_servers if row.detour else brokers.bootstrap_servers,
                command=row.command,
                KAFKA__ROUTES=orjson.dumps({"*": topic}).decode(),
                **row.settings,
            )
        )
        reader = None
        if row.effects:
            where = (brokers.bootstrap_servers, stage.postgres, directory / "reader")
            reader = stack.enter_context(reading(*where, topic=topic))
        keys = Keys(ingress.secrets_dir)
        load = Load(ingress.webhook_url, keys, ledger, Prescriptions(word, rng=rng, at_once=tier.at_once), rng=rng)
        await asyncio.to_thread(ingress.ready)
        if reader is not None:
            await asyncio.to_thread(reader.process.ready)
        scene = Scene(stage, directory, topic, ingress, keys, ledger, load, chance, tier, between, reader)
        watching = asyncio.create_task(scene.watch())
        try:
            yield scene
        finally:
            watching.cancel()
        if reader is not None:
            assert reader.process.alive, "the read model has ended"


async def _judge(scene: Scene, row: Row) -> tuple[Verdict, list[str]]:
    log = [*scene.log_before, *await scene.log()]
    attempts = scene.ledger.attempts
    verdict = judge_log(attempts, log, replicas=row.replicas, may_repeat=scene.unsettled if row.once else None)
    if scene.reader is not None:
        await asyncio.to_thread(scene.reader.wait_settled, log)
        judge_effects(verdict, attempts, log, await asyncio.to_thread(scene.reader.effects))
    verdict.lost = [each for each in verdict.lost if each not in scene.excused]
    verdict.misordered = [each for each in verdict.misordered if each not in scene.late]
    leaks = await asyncio.to_thread(_leaks, scene, log)
    return verdict, [*scene.ledger.leaks, *scene.leaks, *leaks]


def _leaks(scene: Scene, log: Sequence[Logged]) -> list[str]:
    mark = scene.load.prescriptions.mark.encode()
    places = {"metrics": scene.ingress.asked("/metrics")[1], **contents(scene.directory)}
    headers = [each for each in log if scene.shown_in(each.clear) or mark in each.key.encode()]
    return [
        *(place for place, content in places.items() if scene.shown_in(content)),
        *(f"headers of {each.event_id}" for each in headers),
    ]


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory; a segment may be drained, and so removed, meanwhile."""
    found = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            with suppress(FileNotFoundError):
                found[str(path.relative_to(directory))] = path.read_bytes()
    return found


def _result(row: Row, scene: Scene, verdict: Verdict) -> Result:
    attempts = scene.ledger.attempts
    return Result(
        row=row.name,
        title=row.title,
        requests=len(attempts),
        promised=scene.ledger.promised,
        unavailable=sum(each.status == 503 for each in attempts),
        unanswered=sum(each.status == 0 for each in attempts),
        lost=len(verdict.lost),
        foreign=len(verdict.foreign),
        repeated=verdict.repeated,
        repeated_effects=verdict.repeated_effects,
        misordered=len(verdict.misordered),
        worst_answer_s=round(scene.ledger.worst_answer_s, 3),
        recovery_s=round(scene.recovery_s, 1),
        rss_peak_mib=round(scene.rss_mib, 1),
        p99_calm_s=round(scene.p99_calm_s, 3),
        p99_s=round(scene.p99_s, 3),
        sender_late_s=round(scene.sender_late_s, 3),
    )
