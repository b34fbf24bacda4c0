"""One row of the fault matrix from the empty topic to its result."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.ingress.oracle import Verdict, judge_effects, judge_log
from tests.faults.ingress.results import Result
from tests.faults.ingress.scene import RSS_MAX_MIB, Scene, Stage, Tier
from tests.faults.ingress.staging import scene_of
from tests.faults.ingress.subject import Logged

# Broken promises that a failure names; the ledger of a run may have a hundred thousand.
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Row:
    """What is done to a bridge.

    Attributes:
        play: Does it, under load; afterwards everything is healed by the harness.
        detour: Whether there are proxies before the brokers.
        settings: Of the ingress, without their prefix.
        replicas: How many processes take deliveries.
        short: Whether it is played in the short tier too.
        command: What to run instead of `serve`.
        once: Whether only what was unsettled at a death may be repeated in the log, as docs/guarantees.md has it.
    """

    name: str
    title: str
    play: Callable[[Scene], Awaitable[None]]
    detour: bool = False
    effects: bool = True
    settings: Mapping[str, str] = field(default_factory=dict)
    replicas: int = 1
    short: bool = True
    once: bool = False
    command: Sequence[str] = ()


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


async def play(row: Row, stage: Stage, *, seed: int, tier: Tier, command: Sequence[str] = ()) -> Outcome:
    async with scene_of(
        stage,
        seed=f"{seed}-{row.name}",
        tier=tier,
        detour=row.detour,
        effects=row.effects,
        command=command or row.command,
        **row.settings,
    ) as scene:
        await scene.warm_up()
        try:
            await row.play(scene)
            await scene.heal()
        except BaseException:
            await asyncio.to_thread(stage.brokers.heal)  # the next row has the same ones
            raise
        await scene.calm_down()
        verdict, leaks = await _judge(scene, row)
        return Outcome(_result(row, scene, verdict, leaks, seed=seed), verdict, leaks)


async def _judge(scene: Scene, row: Row) -> tuple[Verdict, list[str]]:
    log = [*scene.log_before, *await scene.subject.log()]
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
    marks = [scene.load.prescriptions.mark.encode(), scene.load.prescriptions.key_mark.encode()]
    places = {"metrics": scene.ingress.asked("/metrics")[1], **contents(scene.directory)}
    headers = [each for each in log if any(mark in each.clear for mark in marks) or marks[0] in each.key.encode()]
    return [
        *(place for place, content in places.items() if any(mark in content for mark in marks)),
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


def _result(row: Row, scene: Scene, verdict: Verdict, leaks: Sequence[str], *, seed: int) -> Result:
    attempts = scene.ledger.attempts
    return Result(
        row=row.name,
        title=row.title,
        seed=seed,
        scale=scene.tier.factor,
        requests=len(attempts),
        promised=scene.ledger.promised,
        unavailable=sum(each.status == 503 for each in attempts),
        unanswered=sum(each.status == 0 for each in attempts),
        lost=len(verdict.lost),
        foreign=len(verdict.foreign),
        repeated=verdict.repeated,
        unsettled=len(scene.unsettled),
        repeated_effects=verdict.repeated_effects,
        misordered=len(verdict.misordered),
        wrong_answers=len(verdict.answers),
        wrong_states=len(verdict.states),
        leaks=len(leaks),
        worst_answer_s=round(scene.ledger.worst_answer_s, 3),
        recovery_s=round(scene.recovery_s, 1),
        rss_peak_mib=round(scene.rss_mib, 1),
        p99_calm_s=round(scene.p99_calm_s, 3),
        p99_s=round(scene.p99_s, 3),
        sender_late_s=round(scene.sender_late_s, 3),
    )
