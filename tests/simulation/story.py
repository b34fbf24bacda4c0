"""Run a world, and show in a few numbered lines how it broke a promise."""

import asyncio
import gc
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bridge.runtime.logging import LEVELS, log
from tests.simulation.kafka import Kafka
from tests.simulation.operators import HOSTS, PHASE_S, PHASES, QUIET_S, TOPICS, Act, Operators, Plan, write_key
from tests.simulation.promises import Broken, Promises
from tests.simulation.replica import Host
from tests.simulation.senders import Senders
from tests.simulation.world import World

# Loop seconds after which everything must have come to rest.
REST_S = 240.0


@dataclass(frozen=True)
class Ran:
    """The result of a world."""

    plan: Plan
    broken: Sequence[Broken]
    trace: str
    lines: Sequence[str]
    deliveries: int
    attempts: int
    at_s: float
    took_s: float


def run(plan: Plan, *, verbose: bool = False, look: Callable[[Promises], object] = id) -> Ran:
    """Run a world to its end, and call `look` with its judge."""
    began = time.process_time()
    random.seed(plan.seed)
    world = World(plan.seed, verbose=verbose)
    with _key_directory() as key_dir, collected():
        kafka = Kafka(world, dict.fromkeys(TOPICS, plan.partitions))
        hosts = [Host(name, world, kafka, key_dir / name, plan.partitions) for name in HOSTS]
        for host in hosts:
            host.key_dir.mkdir()
            write_key(host.key_dir / "current", 0)
            host.set_aside_after_s, host.spooling = plan.set_aside_after_s, plan.spooling
        senders = Senders(world, hosts)
        operators = Operators(world, hosts, kafka, senders)
        promises = Promises(world, kafka, hosts, senders, operators)
        world.loop.set_exception_handler(
            lambda _loop, context: promises.note("no_bug", context.get("message"), repr(context.get("exception")))
        )
        before = log.put, log.least
        log.put, log.least = promises.logged, LEVELS["info"]
        try:
            world.loop.run_until_complete(_live(world, plan, operators, promises))
        except RuntimeError as exc:
            promises.note("no_bug", exc)
        finally:
            log.put, log.least = before
            world.loop.bury()
        look(promises)
    sent = sum(act.kind == "send" for act in plan.acts)
    took_s = time.process_time() - began
    return Ran(plan, promises.broken, world.trace, world.lines, sent, len(senders.attempts), world.at_s, took_s)


async def _live(world: World, plan: Plan, operators: Operators, promises: Promises) -> None:
    loop, hosts = world.loop, operators.hosts
    for host in hosts:
        host.start()
    for phase in range(PHASES):
        began = loop.time()
        for act in [each for each in plan.acts if each.phase == phase]:
            await asyncio.sleep(max(0.0, began + act.at - loop.time()))
            operators.do(act)
        await asyncio.sleep(max(0.0, began + PHASE_S - loop.time()))
        if phase == PHASES - 1 or random.Random(f"{plan.seed} {phase}").random() < 0.6:  # noqa: S311 - of the seed
            operators.heal()
            await _rest(operators)
            world.skipped_s = QUIET_S * (phase + 1)
    await _mend(operators, promises)
    promises.judge()


async def _mend(operators: Operators, promises: Promises) -> None:
    """Do the operators' final work: deploy readers for all records, put back, replay; then check that all works."""
    for host in operators.hosts:
        if host.variant != "whole" or host.wanted != "whole" or host.failing:
            operators.redeploy(HOSTS.index(host.name), "whole", 0.1)
    await _rest(operators)
    for number, host in enumerate(operators.hosts):
        if host.has_aside:
            operators.put_back(number)
    await _rest(operators)  # a replay reads what was put back
    if promises.is_parked("acme"):
        operators.replay(0, "acme")
    await _rest(operators)
    await promises.probe()
    await promises.resend()
    await _rest(operators)


async def _rest(operators: Operators) -> None:
    """Wait until no work is in progress, up to a limit."""
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + REST_S
    quiet = 0
    while loop.time() < ends_at and quiet < 3:
        await asyncio.sleep(1.0)
        quiet = quiet + 1 if _is_calm(operators) else 0


def _is_calm(operators: Operators) -> bool:
    if operators.under_way or operators.senders.under_way:
        return False
    for host in operators.hosts:
        if host.durability is None or host.durability.writers.spooling or host.durability.writers.records:
            return False
        if any(check() != "ok" for check in host.durability.checks.values()):
            return False
    return True


@contextmanager
def _key_directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="simulation-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def collected() -> Iterator[None]:
    """Disable garbage collection: finalizers would run at times that the seed does not decide."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def shrink(ran: Ran, run: Callable[..., Ran], *, tries: int = 400) -> Ran:
    """Remove acts that are not needed to break the same promise: whole kinds, then single acts."""
    promise = ran.broken[0].promise
    left = tries

    def attempt(acts: Sequence[Act]) -> Ran | None:
        nonlocal left
        left -= 1
        again = run(ran.plan._replace(acts=acts))
        return again if any(each.promise == promise for each in again.broken) else None

    best = ran
    for kind in best.plan.kinds:
        fewer = [act for act in best.plan.acts if act.kind != kind]
        if len(fewer) < len(best.plan.acts) and left > 0 and (found := attempt(fewer)):
            best = found
    size = max(1, len(best.plan.acts) // 2)
    while left > 0:
        at, before = 0, len(best.plan.acts)
        while at < len(best.plan.acts) and left > 0:
            acts = best.plan.acts
            found = attempt([*acts[:at], *acts[at + size :]])
            if found is None:
                at += size
            else:
                best = found
        if size == 1 and len(best.plan.acts) == before:
            break
        size = max(1, size // 2)
    return run(best.plan, verbose=True)


def tell(ran: Ran) -> str:
    """Return the numbered lines of a world's run."""
    plan = ran.plan
    has = "a spool" if plan.spooling else "no spool"
    lines = [f"seed {plan.seed}, {plan.partitions} partitions, {has}, kinds: {' '.join(plan.kinds)}"]
    lines += [f"{number:3} {line}" for number, line in enumerate(ran.lines, 1)]
    lines += [f"BROKEN {each.promise}: {each.what}" for each in ran.broken]
    return "\n".join(lines)
